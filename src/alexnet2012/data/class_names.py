"""Words for ILSVRC-2012's classes, so that a picture says "parachute" and not n03888257."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from pathlib import Path

from alexnet2012.core.errors import printable

TABLE = Path(__file__).with_name("ilsvrc2012_classes.txt")  # "wnid words" a line, as in the devkit's meta.mat


@functools.cache
def ilsvrc_words() -> dict[str, str]:
    """WordNet id -> words of the 1,000 classes. Two of them are called "crane"."""
    return dict(line.split(" ", 1) for line in TABLE.read_text(encoding="utf-8").splitlines())


def in_words(names: Iterable[str]) -> list[str]:
    """``names`` with every WordNet id of ILSVRC-2012 replaced by its words; what would not print is escaped."""
    return [printable(ilsvrc_words().get(name, name)) for name in names]
