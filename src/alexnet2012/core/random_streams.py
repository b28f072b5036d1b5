"""Random streams: each is a function of (seed, purpose, index) and of nothing else.

The generator is numpy's Philox, a counter-based one: any part of a stream is computed without the parts before it, so
resuming needs no generator state and draws do not depend on the layout. The seed is one word of its key, purpose and
index the other: no two seeds, purposes or indices share a stream.
"""

from __future__ import annotations

from enum import IntEnum
from pathlib import Path

import numpy as np

from alexnet2012.core.errors import InputError

STREAMS = 2  # version: a run resumes only with the streams it began with; in version 1 some purposes coincided


class Purpose(IntEnum):
    """Purposes of streams, with the meaning of the index. The values are part of every run: never change one."""

    WEIGHTS = 1  # the 2012 net's initial weights; index: the layer
    DROPOUT = 2  # keys of the masks; index: tower and layer
    ORDER = 3  # of an epoch's images; index: the epoch
    AUGMENTATION = 4  # crop, reflection, colour noise, replacement images; index: the epoch
    HELD_BACK = 5  # training images held out for validation
    REFERENCE_WEIGHTS = 6  # a reference net's initial weights
    PREPARATION = 7  # the order of a prepared set's images; index: the split
    SUBSET = 8  # the training images of a recipe's first epochs
    BOOTSTRAP = 9  # resamples of an ablation's differences


def philox(purpose: Purpose, seed: int, index: int = 0, block: int = 0) -> np.random.Philox:
    """The stream of ``purpose`` and ``index`` (below 2**56) under ``seed`` (below 2**64), at a block of four draws."""
    return np.random.Philox(key=np.array([seed, index << 8 | purpose], dtype=np.uint64), counter=block)


def torch_seed(purpose: Purpose, seed: int, index: int = 0) -> int:
    """A seed for torch's generators, 0 to 2**63-1: the first draw of a stream."""
    return int(philox(purpose, seed, index).random_raw()) >> 1


def refuse_other_streams(path: Path, version: object) -> None:
    """Raises InputError if the run of ``path`` began with another ``version`` of the streams."""
    if version != STREAMS:
        raise InputError(
            f"{path}: its run drew from version {version} of the random streams, this alexnet2012 draws from version "
            f"{STREAMS}; its checkpoints evaluate and export here, but training cannot go on: give another --out"
        )
