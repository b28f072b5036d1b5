"""What lies on disk, as an index: image i -> encoded bytes, label. No pixel is decoded here."""

from __future__ import annotations

import contextlib
import copy
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from alexnet2012.core.errors import InputError
from alexnet2012.data.pixels import HELD_BYTES, HELD_SIDE, SIDE, HeldImages, decode
from alexnet2012.data.statistics import Statistics, Sums

RETRIES = (0.1, 0.5)  # seconds before another try at a file that cannot be read
CHUNK = 64  # images a task decodes and sums: 12 MB
IMAGE_BYTES = 2**28  # at most, of an image's file


class Dataset(ABC):
    """One split of a data set. ``d[i] -> (encoded bytes, label)``, ``d.classes``, ``d.statistics``."""

    square256 = False  # every image is 256x256: no resizing needed

    def __init__(self, labels: NDArray[np.integer], classes: list[str], training: Callable[[], Dataset] | None) -> None:
        """``training`` opens the training split; None when this is it."""
        self.labels, self.classes, self._training = labels, classes, training
        self._statistics: Statistics | None = None
        self._held: dict[int, HeldImages] = {}

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[bytes, int]:
        """The encoded image and its label."""
        return self.encoded(index), int(self.labels[index])

    @abstractmethod
    def encoded(self, index: int) -> bytes:
        """Image ``index`` as a JPEG or PNG file's bytes. Raises InputError naming a file that cannot be read."""

    @abstractmethod
    def name(self, index: int) -> str:
        """What an error calls image ``index``: its path, or where it lies."""

    @abstractmethod
    def identity(self) -> bytes:
        """What tells its images, beside their labels, from those of another set, wherever it lies; no image is read."""

    @property
    def statistics(self) -> Statistics:
        """Of the training split, whichever split this is; measured when first asked for, unless given."""
        if self._statistics is None:
            training = self._training() if self._training else self
            self._statistics = measure(training).statistics()
        return self._statistics

    def held(self, side: int) -> HeldImages | None:
        """Where its images, decoded to ``side`` pixels, are kept; None if they are not small."""
        if side > HELD_SIDE or len(self) * side**2 * 3 > HELD_BYTES:
            return None
        if side not in self._held:
            self._held.setdefault(side, HeldImages(len(self), side))
        return self._held[side]

    def with_statistics(self, statistics: Statistics) -> Dataset:
        """The same data set with these statistics, measured elsewhere."""
        other = copy.copy(self)
        other._statistics = statistics
        return other


@contextlib.contextmanager
def naming_unreadable(path: Path) -> Iterator[None]:
    """Raises InputError for a directory that cannot be listed."""
    try:
        yield
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error


def read_image(dataset: Dataset, index: int) -> tuple[bytes, int]:
    """The encoded image ``index`` and its label; what cannot be read is tried again. Raises InputError naming it."""
    for pause in RETRIES:
        with suppress(InputError):
            return dataset[index]
        time.sleep(pause)
    return dataset[index]


def load(dataset: Dataset, index: int, side: int = SIDE) -> tuple[NDArray[np.uint8], int]:
    """Image ``index`` as ``decode`` gives it, and its label. Raises InputError naming a file that is no image."""
    held = dataset.held(side)
    if held and held.known[index]:
        return held.pixels[index], int(dataset.labels[index])
    encoded, label = read_image(dataset, index)
    with naming(dataset, index):
        pixels = decode(encoded, side)
    if held:
        held.keep(index, pixels)
    return pixels, label


@contextmanager
def naming(dataset: Dataset, index: int) -> Iterator[None]:
    """Make of whatever Pillow raises an InputError that names image ``index``."""
    try:
        yield
    except Exception as error:
        reason = str(error).partition(" <_io")[0]
        raise InputError(
            f"{dataset.name(index)}: not a readable JPEG or PNG ({reason}); repair or remove it"
        ) from error


def measure(
    dataset: Dataset,
    start: int = 0,
    stop: int | None = None,
    progress: Callable[[int], object] | None = None,
    workers: int = 2,
    side: int = SIDE,
) -> Sums:
    """Sums over images ``start`` to ``stop``, decoded to squares of ``side`` pixels on ``workers`` threads.

    ``progress`` is called with the number of images just done. Raises InputError naming a file that is no image.
    """
    stop = len(dataset) if stop is None else stop
    chunks = [range(first, min(first + CHUNK, stop)) for first in range(start, stop, CHUNK)]
    total = Sums()

    def sum_chunk(indices: range) -> Sums:
        sums = Sums()
        sums.add(np.stack([load(dataset, index, side)[0] for index in indices]))
        return sums

    with ThreadPoolExecutor(workers) as pool:
        for sums in pool.map(sum_chunk, chunks):
            total.merge(sums)
            if progress:
                progress(sums.images)
    return total
