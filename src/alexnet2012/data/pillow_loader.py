"""Execute a plan with Pillow on threads: Pillow decodes and resizes without holding Python's lock."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from alexnet2012.core.errors import InputError
from alexnet2012.data.dataset import Dataset, load
from alexnet2012.data.pixels import cut
from alexnet2012.data.plan import Augmentations, Batch
from alexnet2012.data.replacements import Replacements
from alexnet2012.recipe import ImageRecipe

AHEAD = 3  # batches being prepared while one is used
Item = TypeVar("Item")
Started = TypeVar("Started")


class PillowLoader:
    """Yields ``(images, labels)`` for each of ``batches``, in order, on ``device``; labels are int64 (n,).

    For Augmentations: float32 (n, 3, 224, 224) crops, reflected, with their colour noise, 0..255, mean not subtracted.
    For plain index arrays: uint8 (n, 256, 256, 3) whole images. ``workers`` threads prepare three batches ahead.
    Raises InputError naming a file that is no image; with ``skip_bad`` another one of the plan's takes its place.
    """

    def __init__(
        self,
        dataset: Dataset,
        batches: Iterable[Batch],
        recipe: ImageRecipe,
        workers: int,
        device: torch.device | str | None = None,
        skip_bad: bool = False,
    ) -> None:
        self.replacements = Replacements(skip_bad)
        self.dataset, self.batches, self.recipe = dataset, batches, recipe
        self.device = torch.device(device or "cpu")
        self.workers = max(1, workers)
        self._threads = ThreadPoolExecutor(self.workers)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for started in ahead(self.batches, self._start, AHEAD):
            yield started.finish(self.device)

    def close(self) -> None:
        """Stop the threads."""
        self._threads.shutdown(cancel_futures=True)

    def _start(self, batch: Batch) -> _Started:
        images = empty_images(batch, self.recipe, self.device)
        labels = torch.empty(len(batch), dtype=torch.int64, pin_memory=images.is_pinned())
        parts = np.array_split(np.arange(len(batch)), self.workers)
        tasks = [self._threads.submit(self._fill, images.numpy(), labels.numpy(), batch, rows) for rows in parts]
        return _Started(images, labels, tasks)

    def _fill(self, images: NDArray, labels: NDArray[np.int64], batch: Batch, rows: NDArray[np.int64]) -> None:
        for row in rows:
            if isinstance(batch, Augmentations):
                planned, others = int(batch.index[row]), batch.replacements[row].tolist()
                image, labels[row] = self.replacements.get(self._load, planned, others)
                cut(image, batch, row, out=images[row])
            else:
                images[row], labels[row] = self._load(int(batch[row]))

    def _load(self, index: int) -> tuple[NDArray[np.uint8], int]:
        return load(self.dataset, index, self.recipe.image_size)


@dataclass
class _Started:
    """A batch on its way: the tensors, and the tasks that fill them."""

    images: Tensor
    labels: Tensor
    tasks: list[Future[None]]

    def finish(self, device: torch.device) -> tuple[Tensor, Tensor]:
        for task in self.tasks:
            task.result()
        return self.images.to(device, non_blocking=True), self.labels.to(device, non_blocking=True)


def empty_images(batch: Batch, recipe: ImageRecipe, device: torch.device) -> Tensor:
    """The tensor a batch is made in, in main memory, page-locked when it will be copied to a GPU."""
    count, crop, side, pin = len(batch), recipe.crop_size, recipe.image_size, device.type == "cuda"
    if isinstance(batch, Augmentations):
        return torch.empty((count, 3, crop, crop), dtype=torch.float32, pin_memory=pin)
    return torch.empty((count, side, side, 3), dtype=torch.uint8, pin_memory=pin)


def ahead(items: Iterable[Item], start: Callable[[Item], Started], depth: int) -> Iterator[Started]:
    """``start`` each item and yield what it returns, in order, ``depth`` items after it was started.

    An InputError waits until what was started before it has been yielded.
    """
    started: deque[Started] = deque()
    failure = None
    try:
        for item in items:
            started.append(start(item))
            if len(started) > depth:
                yield started.popleft()
    except InputError as error:
        failure = error
    while started:
        yield started.popleft()
    if failure:
        raise failure
