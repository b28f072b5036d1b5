"""Files that a command is asked to write: refused before the work, written whole."""

from __future__ import annotations

import os
from argparse import ArgumentTypeError
from collections.abc import Callable
from pathlib import Path


def output_file(text: str) -> Path:
    """A flag's value as a file that can be written."""
    path = Path(text)
    if path.is_dir() or not path.parent.is_dir() or not os.access(path.parent, os.W_OK):
        raise ArgumentTypeError(f"{text} cannot be written; name a file in a directory that exists")
    return path


def write_whole(path: Path, write: Callable[[Path], object]) -> None:
    """Let ``path`` appear only when it is whole."""
    partial = path.with_name(path.name + ".partial")
    write(partial)
    partial.replace(path)
