"""Every random stream of a run: a function of (seed, purpose, what it is for), and of nothing else.

The generator is numpy's Philox, a counter-based one: any part of a stream is computed without the parts before it, so
resuming needs no state and no layout moves a draw. The seed is one word of its key, purpose and index the other: no two
seeds, purposes or indices share a stream.
"""

from __future__ import annotations

from enum import IntEnum
from pathlib import Path

import numpy as np

from alexnet2012.core.errors import InputError

STREAMS = 2  # version: a run goes on only with the streams it began with; 1 let some purposes coincide


class Purpose(IntEnum):
    """What a stream is for, and what its index counts. The values are part of every run: never change one."""

    WEIGHTS = 1  # the 2012 net's initial weights; index: the layer
    DROPOUT = 2  # keys of the masks; index: tower and layer
    ORDER = 3  # of an epoch's images; index: the epoch
    AUGMENTATION = 4  # crop, reflection, colour noise, replacement images; index: the epoch
    HELD_BACK = 5  # training images held back to validate on
    REFERENCE_WEIGHTS = 6  # a reference net's initial weights
    PREPARATION = 7  # the order of a prepared set's images; index: the split
    SUBSET = 8  # the training images of a recipe's first epochs
    BOOTSTRAP = 9  # resamples of an ablation's differences


def philox(purpose: Purpose, seed: int, index: int = 0, block: int = 0) -> np.random.Philox:
    """The stream of ``purpose`` and ``index`` (below 2**56) under ``seed`` (below 2**64), at a block of four draws."""
    return np.random.Philox(key=np.array([seed, index << 8 | purpose], dtype=np.uint64), counter=block)


def torch_seed(purpose: Purpose, seed: int, index: int = 0) -> int:
    """The first draw of a stream as a seed for torch's own generators, 0 to 2**63-1."""
    return int(philox(purpose, seed, index).random_raw()) >> 1


def refuse_other_streams(path: Path, version: object) -> None:
    """Raises InputError for the run of ``path`` if it began with another ``version`` of the streams."""
    if version != STREAMS:
        raise InputError(
            f"{path}: its run drew from version {version} of the random streams, this alexnet2012 draws from version "
            f"{STREAMS}; its checkpoints evaluate and export here, but training cannot go on: give another --out"
        )
