"""Files that are whole or not there."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path


def write_whole(path: Path, write: Callable[[Path], object]) -> None:
    """Let ``write`` make ``path`` at once: a reader, or a kill, finds the old file or the new one, never half of it."""
    partial = path.with_name(path.name + ".partial")
    try:
        write(partial)
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def write_text_whole(path: Path, text: str) -> None:
    """The same of a text."""
    write_whole(path, lambda partial: partial.write_text(text))
