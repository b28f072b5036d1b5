"""An epoch as a plan: everything random about an image is a pure function of (seed, epoch, position).

The draws of any step are computed without the steps before it (see ``core/random_streams.py``), so resuming needs no
state and every layout sees the same batches.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from alexnet2012.core.errors import InputError
from alexnet2012.core.random_streams import Purpose, philox
from alexnet2012.data.statistics import Statistics
from alexnet2012.recipe import Recipe

DRAWS = 8  # 64-bit draws set aside for each position: two Philox blocks of four


@dataclass(frozen=True)
class Augmentations:
    """The augmentations of n images: which image, where cropped, whether reflected, which colour shift."""

    index: NDArray[np.int64]  # (n,) images of the training split
    top: NDArray[np.int64]  # (n,) pixels, the crop's first row in the 256x256 image
    left: NDArray[np.int64]  # (n,) pixels, its first column
    reflect: NDArray[np.bool_]  # (n,) mirrored left to right
    noise: NDArray[np.float32]  # (n, 3) RGB shift of every pixel of the image, 0..255 scale
    replacements: NDArray[np.int64]  # (n, 4) the images that take its place, the first that can be read, if it cannot
    divisor: float = 1.0  # the noisy image is divided by it (S: 1.1 while there is noise)

    def __len__(self) -> int:
        return len(self.index)


Batch = Augmentations | NDArray[np.int64]  # of a loader: augmentations in training, plain indices in evaluation


class TrainingPlan:
    """The training of ``epochs`` epochs in batches of ``batch_size``.

    What an epoch has left over is its last, short batch where the recipe says so, else it is left out.
    ``statistics`` gives the axes of the colour noise. Raises InputError when the images do not fill one batch.
    """

    def __init__(
        self, recipe: Recipe, images: int, batch_size: int, seed: int, statistics: Statistics, epochs: int
    ) -> None:
        self.recipe, self.images, self.batch_size, self.seed, self.epochs = recipe, images, batch_size, seed, epochs
        self.color_axes = statistics.color_axes
        self.steps_per_epoch = steps_per_epoch(images, batch_size, recipe.short_batch)
        self.subset_epochs = epochs * recipe.subset_epochs // recipe.schedule_epochs
        subset = round(images * recipe.subset)
        self.steps_per_subset_epoch = steps_per_epoch(subset, batch_size, recipe.short_batch)
        self.subset = np.empty(0, np.int64)
        if self.subset_epochs:
            self.subset = philox(Purpose.SUBSET, seed).random_raw(images).argsort(kind="stable")[:subset]
        self.steps = self.first_step(epochs)

    def first_step(self, epoch: int) -> int:
        """The first step of ``epoch``, both counted from 0. The first ``subset_epochs`` are those of a subset."""
        short = min(epoch, self.subset_epochs)
        return short * self.steps_per_subset_epoch + (epoch - short) * self.steps_per_epoch

    def step_of(self, epoch: int) -> int:
        """The first step after ``epoch`` of the recipe's schedule, which is stretched over this run's epochs."""
        whole, part = divmod(self.epochs * epoch, self.recipe.schedule_epochs)
        first, after = self.first_step(whole), self.first_step(whole + 1)
        return first + (after - first) * part // self.recipe.schedule_epochs

    def place(self, step: int) -> tuple[int, int]:
        """The epoch that ``step`` belongs to, and the step within it, all counted from 0."""
        if step < (end := self.first_step(self.subset_epochs)):
            return divmod(step, self.steps_per_subset_epoch)
        epoch, within = divmod(step - end, self.steps_per_epoch)
        return self.subset_epochs + epoch, within

    def epoch_of(self, step: int) -> int:
        """The epoch that ``step`` belongs to, both counted from 0."""
        return self.place(step)[0]

    def first_position(self, step: int) -> int:
        """The position in its epoch at which the batch of ``step`` begins."""
        return self.place(step)[1] * self.batch_size

    def rows(self, step: int) -> int:
        """Images in the global batch of ``step``."""
        images = self.images if self.epoch_of(step) >= self.subset_epochs else len(self.subset)
        return min(self.batch_size, images - self.first_position(step))

    def noisy(self, epoch: int) -> bool:
        """True where ``epoch`` (from 0) has colour noise: S ends it before the last epochs."""
        recipe, end = self.recipe, self.recipe.color_noise_end
        return recipe.color_noise > 0 and (
            end is None or epoch * recipe.schedule_epochs < (end - recipe.first_epoch) * self.epochs
        )

    def images_at(self, epoch: int, first: int, last: int) -> NDArray[np.int64]:
        """The images at positions ``first`` to ``last`` of ``epoch``."""
        stream = epoch if self.recipe.new_order else 0
        if epoch >= self.subset_epochs:
            return _epoch_order(self.seed, stream, self.images)[first:last]
        return self.subset[_epoch_order(self.seed, stream, len(self.subset))[first:last]]

    def augmentations(self, step: int, start: int = 0, stop: int | None = None) -> Augmentations:
        """Rows ``start`` to ``stop`` of the global batch of ``step``, the same however a batch is sliced."""
        epoch, position = self.epoch_of(step), self.first_position(step)
        first, last = position + start, position + (self.rows(step) if stop is None else stop)
        shared = self.recipe.shared_crop
        leaders = np.arange(first, last) // shared * shared  # the positions whose crop and reflection are taken
        begin = first // shared * shared
        draws = _uniform(self.seed, epoch, begin, last)
        crops, draws = draws[leaders - begin], draws[first - begin :]
        top, left = (crops[:, :2].T * self.recipe.crop_offsets).astype(np.int64) + self.recipe.first_offset
        noisy = self.noisy(epoch)
        return Augmentations(
            index=self.images_at(epoch, first, last),
            top=top,
            left=left,
            reflect=crops[:, 2] < self.recipe.reflect,
            noise=_color_noise(draws[:, 3:6], self.color_axes * (self.recipe.color_noise * noisy)),
            replacements=_replacements(draws[:, 6:8], self.images),
            divisor=self.recipe.color_noise_divisor if noisy else 1.0,
        )


def steps_per_epoch(images: int, batch_size: int, short_batch: bool = False) -> int:
    """Whole batches in an epoch, and with ``short_batch`` that of what is left over. Raises InputError for no whole."""
    if images < batch_size:
        raise InputError(f"--batch-size {batch_size}: the training split has {images} images, less than one batch")
    return -(-images // batch_size) if short_batch else images // batch_size


def _replacements(draws: NDArray[np.float64], images: int) -> NDArray[np.int64]:
    """(n, 4) images from uniform ``draws`` (n, 2), two of each: the second from what the first leaves of its bits."""
    scaled = draws * images
    first = np.floor(scaled)
    return np.stack([first, np.floor((scaled - first) * images)], axis=2).reshape(-1, 4).astype(np.int64)


def evaluation_batches(images: int, batch_size: int, part: int = 0, parts: int = 1) -> Iterator[NDArray[np.int64]]:
    """Images 0 to ``images`` in order, each exactly once: global batches of ``batch_size``, each split over ``parts``.

    Every part yields the same number of arrays (int64); within a batch their lengths differ by at most one, so the
    last may be empty. The parts of a batch, joined in order, are the batch.
    """
    for first in range(0, images, batch_size):
        count = min(batch_size, images - first)
        yield np.arange(first + count * part // parts, first + count * (part + 1) // parts)


def _uniform(seed: int, epoch: int, first: int, last: int) -> NDArray[np.float64]:
    """Positions ``first`` to ``last`` of an epoch: (n, DRAWS) numbers in the open interval (0, 1)."""
    raw = (
        philox(Purpose.AUGMENTATION, seed, epoch, first * DRAWS // 4)
        .random_raw((last - first) * DRAWS)
        .reshape(-1, DRAWS)
    )
    return ((raw >> 12).astype(np.float64) + 0.5) * 2.0**-52  # 52 bits and a half: never rounded up to 1


@lru_cache(maxsize=1)
def _epoch_order(seed: int, epoch: int, images: int) -> NDArray[np.int64]:
    """The epoch's permutation. Sorting raw draws keeps it the same in every numpy, which ``permutation`` need not.

    An image's number takes the low bits of its draw and goes with it: no two are equal, and a sort of numbers takes a
    tenth of the time of an argsort.
    """
    bits = np.uint64(images.bit_length())
    draws = philox(Purpose.ORDER, seed, epoch).random_raw(images)
    draws = (draws >> bits << bits) | np.arange(images, dtype=np.uint64)
    draws.sort()
    order = (draws & ((np.uint64(1) << bits) - np.uint64(1))).astype(np.int64)
    order.flags.writeable = False
    return order


def _color_noise(draws: NDArray[np.float64], axes: NDArray[np.float64]) -> NDArray[np.float32]:
    """``axes @ alpha`` per image, alpha ~ N(0, 1) from uniform ``draws`` (n, 3); summed term by term, not by a BLAS
    whose rounding depends on n."""
    alpha = ndtri(draws)
    return sum(alpha[:, i : i + 1] * axes[:, i] for i in range(3)).astype(np.float32)
