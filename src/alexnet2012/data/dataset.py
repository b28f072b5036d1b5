"""A data set as an index: image i -> encoded bytes, label; what is made of one: parts, decoded images, sums."""

from __future__ import annotations

import copy
import functools
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from alexnet2012.core.errors import InputError, printable
from alexnet2012.core.random_streams import Purpose, philox
from alexnet2012.data.pixels import SIDE, decode
from alexnet2012.data.statistics import Statistics, Sums

RETRIES = (0.1, 0.5)  # seconds before another try at a file that cannot be read
CHUNK = 64  # images a task decodes and sums: 12 MB
IMAGE_BYTES = 2**28  # at most, of an image's file
HELD_SIDE, HELD_BYTES = 64, 2**30  # a data set of images this small, together no larger, is decoded once
ILSVRC2012_CLASSES = Path(__file__).with_name("ilsvrc2012_classes.txt")  # "wnid words" a line, as in meta.mat


@functools.cache
def ilsvrc_words() -> dict[str, str]:
    """WordNet id -> words of the 1,000 classes. Two of them are called "crane"."""
    return dict(line.split(" ", 1) for line in ILSVRC2012_CLASSES.read_text(encoding="utf-8").splitlines())


def in_words(names: Iterable[str]) -> list[str]:
    """``names`` with every WordNet id of ILSVRC-2012 replaced by its words; what would not print is escaped."""
    return [printable(ilsvrc_words().get(name, name)) for name in names]


class Dataset(ABC):
    """One split of a data set. ``d[i] -> (encoded bytes, label)``, ``d.classes``, ``d.statistics``."""

    square256 = False  # every image is 256x256: no resizing needed
    statistics_kept = False  # those of its images at 256x256 lie with it: nothing is measured
    raw = False  # every image is a file of ``pixels.pnm``: no decoding needed

    def __init__(self, labels: NDArray[np.integer], classes: list[str], training: Callable[[], Dataset] | None) -> None:
        """``training`` opens the training split; None when this is it."""
        self.labels, self.classes, self._training = labels, classes, training
        self._statistics: Statistics | None = None
        self._held: dict[int, tuple[NDArray[np.uint8], NDArray[np.bool_]]] = {}

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[bytes, int]:
        """The encoded image and its label."""
        return self.encoded(index), int(self.labels[index])

    @abstractmethod
    def encoded(self, index: int) -> bytes:
        """Image ``index`` as the bytes of a JPEG, PNG or ``pixels.pnm`` file.

        Raises InputError naming a file that cannot be read.
        """

    @abstractmethod
    def name(self, index: int) -> str:
        """The name of image ``index`` in errors: its path, or where it lies."""

    @abstractmethod
    def identity(self) -> bytes:
        """Bytes that, beside the labels, distinguish its images from another set's, wherever it lies; none is read."""

    @property
    def statistics(self) -> Statistics:
        """Of the training split, whichever split this is; measured when first asked for, unless given."""
        if self._statistics is None:
            training = self._training() if self._training else self
            self._statistics = measure(training).statistics()
        return self._statistics

    def held(self, side: int) -> tuple[NDArray[np.uint8], NDArray[np.bool_]] | None:
        """Its images decoded to ``side`` pixels, (n, side, side, 3), and which are there yet; None for large ones."""
        if side > HELD_SIDE or len(self) * side**2 * 3 > HELD_BYTES:
            return None
        if side not in self._held:
            empty = np.empty((len(self), side, side, 3), np.uint8), np.zeros(len(self), np.bool_)
            self._held.setdefault(side, empty)
        return self._held[side]

    def with_statistics(self, statistics: Statistics) -> Dataset:
        """The same data set with these statistics, measured elsewhere."""
        other = copy.copy(self)
        other._statistics = statistics
        return other


class Subset(Dataset):
    """Some images of ``whole``, by index, in that order."""

    def __init__(self, whole: Dataset, indices: NDArray[np.int64]) -> None:
        super().__init__(np.asarray(whole.labels)[indices], whole.classes, None)
        self.whole, self.indices = whole, indices
        self.square256, self.raw, self.statistics_kept = whole.square256, whole.raw, whole.square256

    @property
    def statistics(self) -> Statistics:
        """Unless given, those that a prepared ``whole`` keeps, of all its images, else those of these images alone."""
        kept = self._statistics is None and self.statistics_kept
        return self.whole.statistics if kept else super().statistics

    def encoded(self, index: int) -> bytes:
        return self.whole.encoded(int(self.indices[index]))

    def name(self, index: int) -> str:
        return self.whole.name(int(self.indices[index]))

    def identity(self) -> bytes:
        return self.whole.identity() + self.indices.tobytes()


def hold_out(train: Dataset, fraction: float, seed: int) -> tuple[Dataset, Dataset]:
    """The training images in two parts, the second of about ``fraction`` of them, drawn by ``seed``.

    Raises InputError if one of them would be empty.
    """
    held = round(len(train) * fraction)
    if not 0 < held < len(train):
        raise InputError(f"--val-fraction {fraction:g}: of {len(train)} training images leaves a part empty")
    order = philox(Purpose.HELD_BACK, seed).random_raw(len(train)).argsort(kind="stable")
    return Subset(train, np.sort(order[held:])), Subset(train, np.sort(order[:held]))


def spread(dataset: Dataset, count: int) -> Dataset:
    """At most ``count`` images of ``dataset``, evenly spread over it."""
    if count >= len(dataset):
        return dataset
    chosen = (2 * np.arange(count) + 1) * len(dataset) // (2 * count)
    return Subset(dataset, chosen).with_statistics(dataset.statistics)


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
    if held and held[1][index]:
        return held[0][index], int(dataset.labels[index])
    encoded, label = read_image(dataset, index)
    with naming(dataset, index):
        pixels = decode(encoded, side)
    if held:
        held[0][index] = pixels
        held[1][index] = True  # last: other threads see the image once it is whole
    return pixels, label


@contextmanager
def naming(dataset: Dataset, index: int) -> Iterator[None]:
    """Make of whatever Pillow raises an InputError that names image ``index``."""
    try:
        yield
    except Exception as error:
        raise InputError(f"{dataset.name(index)}: not a readable JPEG or PNG ({error}); repair or remove it") from error


def measure(
    dataset: Dataset,
    start: int = 0,
    stop: int | None = None,
    progress: Callable[[int], object] = lambda images: None,
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
            progress(sums.images)
    return total
