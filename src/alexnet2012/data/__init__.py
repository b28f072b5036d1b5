"""Images: what lies on disk, an epoch as a plan, and two loaders that execute it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import torch

from alexnet2012.core.errors import InputError
from alexnet2012.data.dataset import Dataset, measure
from alexnet2012.data.datasets import open_dataset
from alexnet2012.data.pillow_loader import PillowLoader
from alexnet2012.data.pixels import normalize
from alexnet2012.data.plan import Augmentations, Batch, TrainingPlan, evaluation_batches, steps_per_epoch
from alexnet2012.data.statistics import Statistics, Sums
from alexnet2012.data.subset import hold_out
from alexnet2012.recipe import ImageRecipe

if TYPE_CHECKING:
    from alexnet2012.data.dali_loader import DaliLoader

__all__ = [
    "Augmentations",
    "Dataset",
    "Statistics",
    "Sums",
    "TrainingPlan",
    "evaluation_batches",
    "hold_out",
    "measure",
    "normalize",
    "open_dataset",
    "open_loader",
    "steps_per_epoch",
]  # fmt: skip


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
