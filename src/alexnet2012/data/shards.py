"""The prepared data set: tar shards that any WebDataset reader reads, and an index that finds any image at once.

A directory holds, for each split, ``train-000000.tar``, ... (``key.jpg`` or ``key.ppm``, and ``key.cls``, an image) and
``train-index.npy``; beside them ``classes.json``, ``statistics.npz`` and ``manifest.json``: how it was prepared, what
was odd about the source's images, and the checksum of every other file. Those of the shards are compared by
``--verify``, the others whenever a set is opened.
"""

from __future__ import annotations

import hashlib
import json
import os
import tarfile
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from alexnet2012.core.errors import InputError
from alexnet2012.core.guarded_files import Field, is_count, map_npy, open_file, read_json
from alexnet2012.data.dataset import Dataset, in_words
from alexnet2012.data.pixels import SIDE
from alexnet2012.data.statistics import Statistics

INDEX = np.dtype([("shard", "<i4"), ("offset", "<i8"), ("length", "<i4"), ("label", "<i4")])  # bytes from shard's start
MANIFEST = "manifest.json"  # written last: where it is, the set is complete
UNFINISHED = ".preparation"  # directory of a preparation under way
OPEN_SHARDS = 256  # file descriptors a process keeps; a usual limit is 1,024
ROWS = 2**14  # of the index, read at a time
BLOCK = tarfile.BLOCKSIZE  # bytes; an image's header is the block before it
SUFFIXES = {"jpeg": "jpg", "ppm": "ppm"}  # of images, by the encoding of the set
FILES = (
    "train-index.npy",
    "val-index.npy",
    "classes.json",
    "statistics.npz",
)  # whose checksums are compared at opening
PPM_HEADER = b"P6\n%d %d\n255\n" % (SIDE, SIDE)
PPM_BYTES = len(PPM_HEADER) + 3 * SIDE**2
ADVICE = "delete the set and prepare it again with data_prep/prepare_imagenet.py"


def _is_file_name(value: Any) -> bool:
    """Of a file in the set's own directory."""
    return isinstance(value, str) and Path(value).name == value and value.isprintable()


def _is_image_name(value: Any) -> bool:
    return isinstance(value, str) and value.startswith(("train/", "val/"))


SEAL = {"bytes": is_count, "sha256": str}
SPLIT = {"images": is_count, "shards": [{"name": _is_file_name, "images": is_count, **SEAL}]}
MANIFEST_FORM = {
    "settings": {"classes": is_count, "encoding?": tuple(SUFFIXES).__contains__},  # a set without one is of JPEGs
    "splits": {"train": SPLIT, "val": SPLIT},
    "unreadable": [_is_image_name],
    "repaired": {f"{kind}?": [str] for kind in ("cmyk", "grey", "png")},
    "files?": {f"{name}?": SEAL for name in FILES},  # sets prepared before these were sealed have none
}


class ShardWriter:
    """Writes one shard into ``file``: the same bytes for the same images, whenever and by whomever."""

    def __init__(self, file: BinaryIO, encoding: str = "jpeg") -> None:
        self.rows: list[tuple[int, int, int]] = []  # offset, length, label
        self.bytes = 0
        self._file, self._sha256, self._suffix = file, hashlib.sha256(), SUFFIXES[encoding]

    def add(self, key: str, encoded: bytes, label: int) -> None:
        """Append an image. ``key`` has no dot and fits a tar header with its suffix: see ``prepare/source.py``."""
        self.rows.append((self.bytes + BLOCK, len(encoded), label))
        for suffix, content in ((self._suffix, encoded), ("cls", str(label).encode())):
            info = tarfile.TarInfo(f"{key}.{suffix}")  # its time and owner are 0
            info.size = len(content)
            self._write(info.tobuf(tarfile.USTAR_FORMAT) + content + bytes(-len(content) % BLOCK))

    def finish(self) -> str:
        """Write the end of the archive. Returns the shard's SHA-256."""
        self._write(bytes(2 * BLOCK))
        return self._sha256.hexdigest()

    def _write(self, content: bytes) -> None:
        self._file.write(content)
        self._sha256.update(content)
        self.bytes += len(content)


class _Shard:
    """An open shard. Read with pread: a lost disk is an error, not a SIGBUS, and nothing is mapped in."""

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_RDONLY)  # found to be a file when the set was opened

    def read(self, offset: int, length: int) -> bytes:
        return os.pread(self._descriptor, length, offset)

    def __del__(self) -> None:
        if hasattr(self, "_descriptor"):
            os.close(self._descriptor)


class ShardDataset(Dataset):
    """One split, ``train`` or ``val``, of a prepared directory: ``d[i] -> (JPEG or PPM of 256x256, label)`` in O(1).

    The index is mapped, shards stay open once read; both survive fork and pickling. Raises InputError when the
    directory is no finished set, or naming a shard that is missing, unreadable or at odds with the index.
    """

    square256 = statistics_kept = True

    def __init__(self, directory: str | Path, split: str) -> None:
        self.directory, self.split = Path(directory), split
        manifest = read_manifest(self.directory)
        description = manifest["splits"][split]
        self.raw = manifest["settings"].get("encoding") == "ppm"
        self.shards = [self.directory / shard["name"] for shard in description["shards"]]
        self._sizes = [shard["bytes"] for shard in description["shards"]]  # bytes
        for shard, size in zip(self.shards, self._sizes, strict=True):
            _check_size(shard, size)
        self._seals = manifest.get("files", {})
        self._open = lru_cache(OPEN_SHARDS)(_Shard)
        words = self._read_words(manifest["settings"]["classes"])
        self.index = self._open_index(description["images"], len(words))
        super().__init__(self.index["label"], words, None)

    def __reduce__(self) -> tuple[type, tuple[Path, str]]:
        return type(self), (self.directory, self.split)

    @property
    def statistics(self) -> Statistics:
        """Of the training split, from ``statistics.npz``."""
        if self._statistics is None:
            self._statistics = Statistics.load(self._sealed("statistics.npz"), ADVICE)
        return self._statistics

    def _sealed(self, name: str) -> Path:
        """The path of one of ``FILES``. Raises InputError where it is not what the manifest says."""
        path = self.directory / name
        if (expected := self._seals.get(name)) and seal(path) != expected:
            raise InputError(f"{path}: its checksum is not the manifest's; {ADVICE}")
        return path

    def _read_words(self, classes: int) -> list[str]:
        path = self._sealed("classes.json")
        words = in_words(entry["words"] for entry in read_json(path, [{"words": str}], ADVICE))
        if len(words) != classes:
            raise InputError(f"{path}: {len(words)} classes, not {classes}; {ADVICE}")
        return words

    def _open_index(self, images: int, classes: int) -> np.memmap:
        path = self._sealed(f"{self.split}-index.npy")
        index = map_npy(path, Field(INDEX, ("images",)), ADVICE)
        if len(index) != images:
            raise InputError(f"{path}: {len(index)} entries, the manifest says {images}; {ADVICE}")
        with open_file(path, ADVICE) as file:  # read, since pages of the map would count as this process's memory
            file.seek(index.offset)
            while len(labels := np.fromfile(file, INDEX, ROWS)["label"]):
                if not 0 <= labels.min() <= labels.max() < classes:
                    raise InputError(f"{path}: labels {labels.min()}..{labels.max()} for {classes} classes; {ADVICE}")
        return index

    def encoded(self, index: int) -> bytes:
        shard, offset, length, _ = self.index[index].item()
        encoded, kind = self._read(shard, offset, length), "PPM" if self.raw else "JPEG"
        start, end, bytes_ = (PPM_HEADER, b"", PPM_BYTES) if self.raw else (b"\xff\xd8", b"\xff\xd9", length)
        if not (encoded.startswith(start) and encoded.endswith(end) and length == bytes_):
            raise InputError(f"{self.shards[shard]}: no {kind} at byte {offset}, where the index has one; {ADVICE}")
        return encoded

    def name(self, index: int) -> str:
        """``train-000003.tar: key``."""
        shard, offset, *_ = self.index[index].item()
        header = self._read(shard, offset - BLOCK, BLOCK)
        return f"{self.shards[shard]}: {os.fsdecode(header[:100].rstrip(bytes(1))).partition('.')[0]}"

    def identity(self) -> bytes:
        """All that decided its bytes: source, order and encoding."""
        return json.dumps([self.split, read_manifest(self.directory)["settings"]], sort_keys=True).encode()

    def _read(self, shard: int, offset: int, length: int) -> bytes:
        if not 0 <= shard < len(self.shards):
            raise InputError(f"{self.directory / self.split}-index.npy: names shard {shard}, which is none; {ADVICE}")
        if not (offset >= 0 and 0 < length <= self._sizes[shard] - offset):
            raise InputError(f"{self.shards[shard]}: ends before byte {offset + length} of the index; {ADVICE}")
        try:
            content = self._open(self.shards[shard]).read(offset, length)
        except OSError as error:
            raise InputError(f"{self.shards[shard]}: cannot be read ({error.strerror}); {ADVICE}") from error
        if len(content) < length:
            raise InputError(f"{self.shards[shard]}: has become shorter than byte {offset + length}; {ADVICE}")
        return content


def is_prepared(directory: Path) -> bool:
    """True where ``directory`` holds prepared shards, or will when its preparation is run to the end."""
    return (directory / MANIFEST).exists() or (directory / UNFINISHED).exists()


def read_manifest(directory: Path) -> dict[str, Any]:
    """The manifest. Raises InputError if there is none."""
    if not (directory / MANIFEST).exists() and (directory / UNFINISHED).exists():
        raise InputError(f"{directory}: its preparation has not finished; run data_prep/prepare_imagenet.py again")
    return read_json(directory / MANIFEST, MANIFEST_FORM, ADVICE)


def seal(path: Path) -> dict[str, int | str]:
    """Size and checksum, as the manifest keeps them. Raises InputError for what is not a file."""
    with open_file(path, ADVICE) as file:
        return {"bytes": os.fstat(file.fileno()).st_size, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}


def _check_size(shard: Path, size: int) -> None:
    try:
        found = shard.stat().st_size
    except OSError as error:
        raise InputError(f"{shard}: cannot be read ({error.strerror}); {ADVICE}") from error
    if found != size:
        raise InputError(f"{shard}: {found} bytes, the manifest says {size}; {ADVICE}")
