"""The images of every step, ready for the net, on this process's device."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from alexnet2012.core import messages
from alexnet2012.core.errors import InputError
from alexnet2012.data import Dataset, TrainingPlan, normalize, open_loader
from alexnet2012.distributed.collectives import PendingRows, raise_together, rank_slice, reduce
from alexnet2012.distributed.layout import Layout
from alexnet2012.training.settings import Settings


class TrainingBatches:
    """This replica's rows of each global batch of ``steps``: images (n, 3, 224, 224) and labels (n,).

    Each rank of a pair decodes half of them and gathers the rest one batch ahead. A loader's InputError is kept in
    ``failure`` while the step before is trained, so that all ranks save and stop together.
    """

    def __init__(self, layout: Layout, dataset: Dataset, plan: TrainingPlan, settings: Settings, steps: range) -> None:
        self.layout, self.plan, self.recipe, self.steps = layout, plan, settings.recipe, steps
        self.mean = dataset.statistics.mean_on(layout.devices[0])
        self.decode_on = torch.device("cpu") if layout.backend == "gloo" else layout.devices[0]
        own_views = (plan.augmentations(step, self.own(step).start, self.own(step).stop) for step in self.steps)
        skip_bad = settings.on_bad_image == "skip"
        self.loader = open_loader(
            settings.loader, dataset, own_views, self.recipe, settings.workers, self.decode_on, skip_bad
        )
        self.failure: InputError | None = None
        self.reported = 0  # skipped images that were named

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        decoded = iter(self.loader)
        coming = self.send(decoded, self.steps.start)
        raise_together(self.layout, self.failure)
        for step in self.steps:
            arriving, coming = coming, self.send(decoded, step + 1) if step + 1 < self.steps.stop else []
            self.layout.begin("the pair's images", step + 1)
            yield self.ready(step, *arriving)

    def own(self, step: int) -> slice:
        """Rows of ``step``'s batch that this rank decodes."""
        return rank_slice(self.plan.rows(step), self.layout.rank, self.layout.processes)

    def send(self, decoded: Iterator[tuple[Tensor, Tensor]], step: int) -> list[PendingRows]:
        """Start the pair's gather of ``step``'s batch; images that cannot be read are replaced by blank ones."""
        try:
            with self.layout.working():
                images, labels = next(decoded)
        except InputError as failure:
            self.failure = failure
            own, size = self.own(step), self.recipe.crop_size
            count = own.stop - own.start
            images = torch.zeros(count, 3, size, size, device=self.decode_on)
            labels = torch.zeros(count, dtype=torch.int64, device=self.decode_on)
        return [PendingRows(self.layout, rows, self.plan.rows(step)) for rows in (images, labels)]

    def ready(self, step: int, images: PendingRows, labels: PendingRows) -> tuple[Tensor, Tensor]:
        """Wait for a batch; normalize its images on the device."""
        device = self.layout.devices[0]
        replica = rank_slice(self.plan.rows(step), self.layout.replica, self.layout.replicas)
        augmentations = self.plan.augmentations(step, replica.start, replica.stop)
        pixels = normalize(images.wait().to(device, non_blocking=True), augmentations, self.mean, self.recipe)
        return pixels, labels.wait().to(device, non_blocking=True)

    def skipped(self) -> int:
        """The number of images replaced so far, over all ranks; each rank prints a warning for its own, once."""
        own = self.loader.skipped
        for reason in list(own.values())[self.reported :]:
            messages.warn(f"{reason}; skipped, another image takes its place")
        self.reported = len(own)
        return round(reduce(self.layout, torch.tensor([float(self.reported)])).item())

    def close(self) -> None:
        """Stop the loader."""
        self.loader.close()
