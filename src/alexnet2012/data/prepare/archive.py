"""Tar archives listed in place: nothing is unpacked, and no header trusted.

tarfile parses each header by itself, but does not walk the archive: it follows a negative size backwards for ever,
reads a long name of any length into memory, and takes garbage for the end.
"""

from __future__ import annotations

import os
import tarfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import BinaryIO, NamedTuple

from alexnet2012.core.guarded_files import Damaged

BLOCK = tarfile.BLOCKSIZE  # bytes
PADDING = 2**16  # bytes behind the end that are looked at: tar writes at most 10,240, all zero
EXTENSION = 2**20  # bytes that a header for the next one, of a long name for instance, may have
FILES = (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.CONTTYPE)
LINKS = (tarfile.LNKTYPE, tarfile.SYMTYPE)
WITHOUT_DATA = (*LINKS, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.DIRTYPE, tarfile.FIFOTYPE)  # whatever their size says
EXTENSIONS = (tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE, tarfile.XGLTYPE)  # headers that tell of the next


class Member(NamedTuple):
    """Whatever is no directory."""

    name: PurePosixPath
    offset: int  # bytes from the start of the file that holds the archive
    length: int  # bytes
    odd: str  # what it is, where it is no plain file


def members(file: BinaryIO, path: Path, start: int = 0, stop: int | None = None) -> Iterator[Member]:
    """List the archive in bytes ``start`` to ``stop`` of ``file``, which messages call ``path``.

    Raises Damaged with the byte where the archive is cut short, damaged, or continues past its end.
    """
    size = file.seek(0, os.SEEK_END)
    stop = size if stop is None else stop

    def damaged(place: int) -> Damaged:
        return Damaged(path, f"cut short or damaged at byte {min(place, size)} of {size}", "download it again")

    def read(place: int, length: int) -> bytes:
        if place + length > stop:
            raise damaged(place)
        file.seek(place)
        return file.read(length)

    place, extended = start, dict[str, str]()
    while (block := read(place, BLOCK)) != bytes(BLOCK):
        header = place
        try:
            info = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
            extension = info.type in EXTENSIONS
            length = (
                info.size if extension else 0 if info.type in WITHOUT_DATA else int(extended.get("size", info.size))
            )
            place += BLOCK + -(-length // BLOCK) * BLOCK
            if length < 0 or place > stop or (extension and length > EXTENSION):
                raise damaged(header)
            if extension:
                extended |= _tell_of_next(info.type, read(header + BLOCK, length))
                continue
        except (tarfile.HeaderError, ValueError) as error:
            raise damaged(header) from error
        if info.type != tarfile.DIRTYPE:
            yield Member(
                PurePosixPath(extended.get("path", info.name)), header + BLOCK, length, _odd(info.type, extended)
            )
        extended = {}
    if any(read(place, min(PADDING, stop - place))):
        raise Damaged(path, f"continues past its end at byte {place}", "two archives in one file, or a damaged one")


def _tell_of_next(kind: bytes, content: bytes) -> dict[str, str]:
    """``path`` and ``size`` of the next member, if this header gives them. Raises ValueError for a malformed one."""
    if kind == tarfile.GNUTYPE_LONGNAME:
        return {"path": os.fsdecode(content.partition(b"\0")[0])}
    extended = {}
    while content:  # "length key=value\n", the length being the record's own
        length = int(content.partition(b" ")[0])
        if not 0 < length <= len(content):
            raise ValueError
        key, _, value = content[:length].partition(b" ")[2].removesuffix(b"\n").partition(b"=")
        extended[os.fsdecode(key)] = os.fsdecode(value)
        content = content[length:]
    return extended if kind == tarfile.XHDTYPE else {}


def _odd(kind: bytes, extended: dict[str, str]) -> str:
    if kind in LINKS:
        return "a link"
    if kind not in FILES or any(key.startswith("GNU.sparse") for key in extended):
        return f"neither a file nor a directory (type {kind.decode('latin1')!r})"
    return ""
