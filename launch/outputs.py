"""What commands write and show: files refused before the work, a bar on a terminal."""

from __future__ import annotations

import contextlib
import os
import sys
from argparse import ArgumentTypeError
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from rich.console import Console
from rich.progress import Progress

from alexnet2012.core.atomic_files import replaceable
from alexnet2012.core.errors import InputError


def output_file(text: str) -> Path:
    """A flag's value as a file that can be written."""
    path = Path(text)
    written = Path(os.path.realpath(path)).parent if replaceable(path) else path
    if path.is_dir() or not written.exists() or not os.access(written, os.W_OK):
        raise ArgumentTypeError(f"{text} cannot be written; name a file in a directory that exists")
    return path


def refuse_overwriting(outputs: Iterable[Path | None], inputs: Iterable[Path]) -> None:
    """Raises InputError for an output that is one of the ``inputs``, or named twice."""
    taken = {os.path.realpath(path): "it is read" for path in inputs}  # realpath: a loop of links raises nothing
    for path in filter(None, outputs):
        if (real := os.path.realpath(path)) in taken:
            raise InputError(f"{path}: cannot be written, {taken[real]}; name another file")
        taken[real] = "another output goes there"


@contextlib.contextmanager
def progress(title: str, total: int, shown: bool = True) -> Iterator[Callable[[int], object]]:
    """A bar on stderr where that is a terminal; gives what is to be told the number of images just done."""
    with Progress(console=Console(stderr=True), disable=not (shown and sys.stderr.isatty())) as bar:
        task = bar.add_task(title, total=total)
        yield lambda images: bar.advance(task, images)
