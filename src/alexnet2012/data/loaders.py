"""The loader that the flags name."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import torch

from alexnet2012.core.errors import InputError
from alexnet2012.data.dataset import Dataset
from alexnet2012.data.pillow_loader import PillowLoader
from alexnet2012.data.plan import Batch
from alexnet2012.recipe import ImageRecipe

if TYPE_CHECKING:
    from alexnet2012.data.dali_loader import DaliLoader


def open_loader(
    kind: str,
    dataset: Dataset,
    batches: Iterable[Batch],
    recipe: ImageRecipe,
    workers: int,
    device: torch.device | str | None = None,
    skip_bad: bool = False,
) -> PillowLoader | DaliLoader:
    """A loader of ``kind`` dali or pillow: the same images in the same order. Raises InputError without DALI."""
    if kind == "pillow":
        return PillowLoader(dataset, batches, recipe, workers, device, skip_bad)
    if kind != "dali":
        raise InputError(f"--loader {kind}: must be dali or pillow")
    try:  # only here: importing DALI takes a second, and only Linux has it
        from alexnet2012.data.dali_loader import DaliLoader
    except ImportError as error:
        raise InputError(f"--loader dali: DALI is not installed ({error}); use --loader pillow") from error
    return DaliLoader(dataset, batches, recipe, workers, device, skip_bad)
