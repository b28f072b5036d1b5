"""The dropout of 2012 (P §4.2), its masks a pure function of where they are used.

A mask value is an integer hash of (seed, step, tower, layer, row of the global batch, unit), so every layout of
processes and devices draws the same masks, and a run resumed at a step goes on with the masks it would have had.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from alexnet2012.core.random_streams import Purpose, philox
from alexnet2012.recipe import LAYERS

WORD_MASK = 0xFFFFFFFF


class DropoutKey(NamedTuple):
    """Which masks a training pass uses: the run's seed, the step, and where its rows stand in the global batch."""

    seed: int
    step: int | Tensor
    first_row: int = 0


def mix(word: Any) -> Any:
    """A 32-bit finaliser of an int or an int64 tensor; multipliers below 2^31 keep products below 2^63."""
    word = ((word ^ (word >> 16)) * 0x7FEB352D) & WORD_MASK
    word = ((word ^ (word >> 15)) * 0x31848BAB) & WORD_MASK
    return word ^ (word >> 16)


@torch.compiler.assume_constant_result
def keys(seed: int, tower: int, layer: str) -> tuple[int, int]:
    """Two words of 32 bits for all masks of a layer in a run."""
    drawn = int(philox(Purpose.DROPOUT, seed, tower << 8 | LAYERS.index(layer)).random_raw())
    return drawn & WORD_MASK, drawn >> 32


def dropout_mask(
    key: DropoutKey, tower: int, layer: str, size: torch.Size, share: float, device: torch.device
) -> Tensor:
    """Boolean of ``size`` (rows, units): False for the ``share`` of units that are dropped."""
    rows, units = size
    step = key.step.to(device, non_blocking=True) if isinstance(key.step, Tensor) else key.step
    first, second = keys(key.seed, tower, layer)
    at_step = mix(mix(first ^ step) ^ second)
    row = torch.arange(key.first_row, key.first_row + rows, device=device)[:, None]
    unit = torch.arange(units, device=device)
    return mix(mix(at_step ^ row) ^ second ^ unit) >= int(share * 2**32)
