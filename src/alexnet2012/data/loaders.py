"""Execute a plan: what both loaders share, and the one that decodes with Pillow on threads."""

from __future__ import annotations

from abc import ABC, abstractmethod
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
from alexnet2012.data import LOADERS
from alexnet2012.data.dataset import Dataset, load
from alexnet2012.data.pixels import cut
from alexnet2012.data.plan import Augmentations, Batch
from alexnet2012.recipe import ImageRecipe

AHEAD = 3  # batches being prepared while one is used
Item = TypeVar("Item")
Started = TypeVar("Started")


@dataclass
class Loader(ABC):
    """Yields ``(images, labels)`` for each of ``batches``, in order, on ``device``; labels are int64 (n,).

    For Augmentations: crops (n, 224, 224, 3), reflected; ``pixels.normalize`` adds their noise. For plain index arrays:
    whole images (n, 256, 256, 3). Both uint8. Raises InputError naming a file that is no image; with
    ``skip_bad`` one of the plan's replacements takes its place in Augmentations.
    """

    dataset: Dataset
    batches: Iterable[Batch]  # all Augmentations or all index arrays
    recipe: ImageRecipe
    workers: int  # decoding threads
    device: torch.device
    skip_bad: bool

    def __post_init__(self) -> None:
        self.skipped: dict[int, str] = {}  # image -> what was wrong with it

    @abstractmethod
    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]: ...

    @abstractmethod
    def close(self) -> None:
        """Stop the threads."""

    def readable(self, read: Callable[[int], Item], batch: Augmentations, row: int) -> Item:
        """``read`` the image of a row or the first of its replacements that can be read."""
        image, replacements = int(batch.index[row]), batch.replacements[row].tolist()
        for candidate in (image, *replacements):
            if candidate not in self.skipped:
                try:
                    return read(candidate)
                except InputError as error:
                    self.skip(candidate, batch, error)
        raise InputError(f"{self.skipped[image]}; nor can the {len(replacements)} images that may take its place")

    def skip(self, image: int, batch: Batch, error: InputError) -> None:
        """Do not use ``image`` again. Raises ``error`` unless it may be skipped and ``batch`` has replacements."""
        if not (self.skip_bad and isinstance(batch, Augmentations)):
            raise error
        self.skipped[image] = str(error)


class PillowLoader(Loader):
    """Pillow decodes and resizes without holding Python's lock; batches are prepared three ahead."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self._threads = ThreadPoolExecutor(self.workers)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for images, labels, tasks in ahead(self.batches, self._start, AHEAD):
            for task in tasks:
                task.result()
            yield images.to(self.device, non_blocking=True), labels.to(self.device, non_blocking=True)

    def close(self) -> None:
        self._threads.shutdown(cancel_futures=True)

    def _start(self, batch: Batch) -> tuple[Tensor, Tensor, list[Future[None]]]:
        images = empty_images(batch, self.recipe, self.device)
        labels = torch.empty(len(batch), dtype=torch.int64, pin_memory=images.is_pinned())
        parts = np.array_split(np.arange(len(batch)), self.workers)
        tasks = [self._threads.submit(self._fill, images.numpy(), labels.numpy(), batch, rows) for rows in parts]
        return images, labels, tasks

    def _fill(
        self, images: NDArray[np.uint8], labels: NDArray[np.int64], batch: Batch, rows: NDArray[np.int64]
    ) -> None:
        for row in rows:
            if isinstance(batch, Augmentations):
                image, labels[row] = self.readable(self._load, batch, row)
                cut(image, batch, row, out=images[row])
            else:
                images[row], labels[row] = self._load(int(batch[row]))

    def _load(self, index: int) -> tuple[NDArray[np.uint8], int]:
        return load(self.dataset, index, self.recipe.image_size)


def open_loader(
    kind: str,
    dataset: Dataset,
    batches: Iterable[Batch],
    recipe: ImageRecipe,
    workers: int,
    device: torch.device | str = "cpu",
    skip_bad: bool = False,
) -> Loader:
    """A loader of ``kind`` dali or pillow: the same images in the same order. Raises InputError without DALI."""
    if kind not in LOADERS:
        raise InputError(f"--loader {kind}: must be {' or '.join(LOADERS)}")
    try:
        loader = LOADERS[kind]
    except ImportError as error:
        raise InputError(f"--loader dali: DALI is not installed ({error}); use --loader pillow") from error
    return loader(dataset, batches, recipe, max(1, workers), torch.device(device), skip_bad)


def empty_images(batch: Batch, recipe: ImageRecipe, device: torch.device) -> Tensor:
    """The tensor a batch is made in, in main memory, page-locked when it will be copied to a GPU."""
    side = recipe.crop_size if isinstance(batch, Augmentations) else recipe.image_size
    return torch.empty((len(batch), side, side, 3), dtype=torch.uint8, pin_memory=device.type == "cuda")


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
