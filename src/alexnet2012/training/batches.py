"""The images of every step, ready for the net, on this process's device."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from alexnet2012.data import Dataset, TrainingPlan, finish, open_loader
from alexnet2012.data.plan import Views
from alexnet2012.distributed import Layout, PendingRows, share
from alexnet2012.training.settings import Settings


class TrainingBatches:
    """This replica's rows of each global batch from ``first_step`` on: images (n, 3, 224, 224) and labels (n,).

    Each rank of a pair decodes half of them; their gather runs one batch ahead of its use. Raises InputError naming
    a file that is no image.
    """

    def __init__(
        self, layout: Layout, dataset: Dataset, plan: TrainingPlan, settings: Settings, first_step: int
    ) -> None:
        self.layout, self.plan, self.recipe = layout, plan, settings.recipe
        self.steps = range(first_step, plan.steps)
        self.own = share(plan.batch_size, layout.rank, layout.processes)
        self.replica = share(plan.batch_size, layout.replica, layout.replicas)
        self.mean = torch.from_numpy(dataset.statistics.mean).to(layout.devices[0])
        decode_on = torch.device("cpu") if layout.backend == "gloo" else layout.devices[0]
        own_views = (plan.views(step, self.own.start, self.own.stop) for step in self.steps)
        self.loader = open_loader(settings.loader, dataset, own_views, self.recipe, settings.workers, decode_on)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        waiting: tuple[PendingRows, PendingRows] | None = None
        steps = iter(self.steps)
        for images, labels in self.loader:
            arriving = tuple(PendingRows(self.layout, rows, self.plan.batch_size) for rows in (images, labels))
            if waiting:
                yield self.ready(next(steps), *waiting)
            waiting = arriving  # type: ignore[assignment]
        if waiting:
            yield self.ready(next(steps), *waiting)

    def ready(self, step: int, images: PendingRows, labels: PendingRows) -> tuple[Tensor, Tensor]:
        device = self.layout.devices[0]
        views: Views = self.plan.views(step, self.replica.start, self.replica.stop)
        pixels = finish(images.wait().to(device, non_blocking=True), views, self.mean, self.recipe)
        return pixels, labels.wait().to(device, non_blocking=True)

    def close(self) -> None:
        """Stop the loader."""
        self.loader.close()
