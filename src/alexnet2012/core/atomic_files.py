"""Atomic writes: a file is complete or absent. Every file that is read again is written here."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

PARTIAL = ".partial"  # suffix of a file under way


@contextmanager
def atomic_write(path: Path, directory: Path | None = None) -> Iterator[Path]:
    """Yields a path to write to, in ``directory`` or beside ``path``; it replaces ``path`` if the block succeeds.

    A reader, a kill or a power cut finds the old file or the new one, never half of one. Every writer has its own
    partial file, so several may write the same ``path`` at once: the last one wins. ``directory`` must be on the file
    system of ``path``; a killed process leaves its partial file there.
    """
    partial = (directory or path.parent) / f"{path.name}.{secrets.token_hex(8)}{PARTIAL}"
    try:
        yield partial
        _sync(partial)
        partial.replace(path)
        _sync(path.parent)
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def write_output(path: Path) -> Iterator[Path]:
    """Yields a path to write to; if the block succeeds, its content goes to the ``path`` given by a flag.

    A regular file, or the target of a link, is replaced as in ``atomic_write``. A device, a pipe or stdout receives
    the bytes.
    """
    if replaceable(path):
        with atomic_write(Path(os.path.realpath(path))) as partial:
            yield partial
        return
    with TemporaryDirectory() as directory:
        yield (whole := Path(directory, path.name))
        with whole.open("rb") as content, open(1 if is_stdout(path) else path, "wb", closefd=not is_stdout(path)) as to:
            shutil.copyfileobj(content, to)


def replaceable(path: Path) -> bool:
    """True if ``path`` is a regular file, or does not exist yet."""
    return not path.exists() or (path.is_file() and not is_stdout(path))


def is_stdout(path: Path) -> bool:
    """True if ``path`` is this process's stdout, such as /dev/stdout or /dev/fd/1."""
    try:
        return os.path.samestat(path.stat(), os.fstat(1))
    except OSError:
        return False


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically."""
    with atomic_write(path) as partial:
        partial.write_text(text)


def remove_partials(directory: Path, names: str = "*") -> None:
    """Remove the partial files of killed writers of ``names`` in ``directory``; none may be running."""
    for partial in directory.glob(f"{names}.*{PARTIAL}"):
        partial.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    """Flush a file, or the entries of a directory, to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
