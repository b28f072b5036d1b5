"""The images of every step, ready for the net, on this process's device."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import torch
from torch import Tensor

from alexnet2012.core import messages
from alexnet2012.core.errors import InputError
from alexnet2012.data import Augmentations, Dataset, TrainingPlan, normalize, open_loader
from alexnet2012.data.loaders import ahead
from alexnet2012.distributed.collectives import PendingRows, raise_together, rank_slice, reduce
from alexnet2012.distributed.layout import Layout
from alexnet2012.training.settings import Settings


class TrainingBatches:
    """This replica's rows of each global batch of ``steps``: images (n, 3, 224, 224) and labels (n,).

    A thread decodes and normalizes one batch while another is used: steps do not wait for that. Each rank of a pair
    does so with half of the rows and gathers the rest one batch ahead. A loader's InputError is kept in ``failure``
    while the step before is trained, so that all ranks save and stop together.
    """

    def __init__(self, layout: Layout, dataset: Dataset, plan: TrainingPlan, settings: Settings, steps: range) -> None:
        self.layout, self.plan, self.recipe, self.steps = layout, plan, settings.recipe, steps
        self.decode_on = torch.device("cpu") if layout.backend == "gloo" else layout.devices[0]
        self.mean = dataset.statistics.mean_on(self.decode_on)
        for_loader, self.augmentations = itertools.tee(map(self.own_augmentations, steps))
        skip_bad = settings.on_bad_image == "skip"
        self.loader = open_loader(
            settings.loader, dataset, for_loader, self.recipe, settings.workers, self.decode_on, skip_bad
        )
        self.thread = ThreadPoolExecutor(1)
        self.failure: InputError | None = None
        self.reported = 0  # skipped images that were named

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        normalized = self.normalized()
        decoded = ahead(self.steps, lambda step: self.thread.submit(next, normalized), 1)
        coming = self.send(decoded, self.steps.start)
        raise_together(self.layout, self.failure)
        for step in self.steps:
            arriving, coming = coming, self.send(decoded, step + 1) if step + 1 < self.steps.stop else []
            self.layout.begin("the pair's images", step + 1)
            images, labels = (rows.wait().to(self.layout.devices[0], non_blocking=True) for rows in arriving)
            yield images, labels

    def own(self, step: int) -> slice:
        """Rows of ``step``'s batch that this rank decodes."""
        return rank_slice(self.plan.rows(step), self.layout.rank, self.layout.processes)

    def normalized(self) -> Iterator[tuple[Tensor, Tensor]]:
        """This rank's own rows of each batch."""
        for (crops, labels), augmentations in zip(self.loader, self.augmentations, strict=True):
            yield normalize(crops, augmentations, self.mean, self.recipe), labels

    def own_augmentations(self, step: int) -> Augmentations:
        own = self.own(step)
        return self.plan.augmentations(step, own.start, own.stop)

    def send(self, decoded: Iterator[Future[tuple[Tensor, Tensor]]], step: int) -> list[PendingRows]:
        """Start the pair's gather of ``step``'s batch; images that cannot be read are replaced by blank ones."""
        try:
            with self.layout.working():
                images, labels = next(decoded).result()
        except InputError as failure:
            self.failure = failure
            own, size = self.own(step), self.recipe.crop_size
            count = own.stop - own.start
            images = torch.zeros(count, self.recipe.channels, size, size, device=self.decode_on)
            labels = torch.zeros(count, dtype=torch.int64, device=self.decode_on)
        return [PendingRows(self.layout, rows, self.plan.rows(step)) for rows in (images, labels)]

    def skipped(self) -> int:
        """The number of images replaced so far, over all ranks; each rank prints a warning for its own, once."""
        reasons = list(self.loader.skipped.values())  # of one moment: threads add to them
        for reason in reasons[self.reported :]:
            messages.warn(f"{reason}; skipped, another image takes its place")
        self.reported = len(reasons)
        return round(reduce(self.layout, torch.tensor([float(self.reported)])).item())

    def close(self) -> None:
        """Stop the threads."""
        self.thread.shutdown(cancel_futures=True)
        self.loader.close()
