"""Files that are whole or not there: the one way in which this project writes a file that somebody reads again."""

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
    """A path to write to, in ``directory`` or beside ``path``, that becomes ``path`` when the block ends without error.

    A reader, a kill or a power cut finds the old file or the new one, never half of it. Every writer has a partial file
    of its own, so several may write the same ``path`` at once: the last one wins. ``directory`` is on the disk of
    ``path``; a process that is killed leaves its partial file there.
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
    """A path to write to, whose content goes where a flag's ``path`` leads when the block ends without error.

    A regular file, or the one that a link names, is replaced as ``atomic_write`` does. A device or pipe stays what it
    is and receives the bytes; so does stdout, whatever it is.
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
    """Whether ``path`` is a regular file or to become one."""
    return not path.exists() or (path.is_file() and not is_stdout(path))


def is_stdout(path: Path) -> bool:
    """Whether ``path`` is this process's stdout, as /dev/stdout and /dev/fd/1 are."""
    try:
        return os.path.samestat(path.stat(), os.fstat(1))
    except OSError:
        return False


def write_text(path: Path, text: str) -> None:
    """Replace the text file ``path`` as ``atomic_write`` does."""
    with atomic_write(path) as partial:
        partial.write_text(text)


def remove_partials(directory: Path, names: str = "*") -> None:
    """Remove what killed writers of ``names`` have left in ``directory``; nobody writes such files there now."""
    for partial in directory.glob(f"{names}.*{PARTIAL}"):
        partial.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    """Bring a file, or the names in a directory, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
