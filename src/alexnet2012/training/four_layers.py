"""Training of the small net of the paper's figure 1, on images small enough to lie in memory (P §3.1, §3.3)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from alexnet2012.data import Dataset
from alexnet2012.data.dataset import ArrayDataset
from alexnet2012.errors import InputError
from alexnet2012.network.four_layers import FourLayers
from alexnet2012.recipe import OptimizationRecipe

RATES = (0.1, 0.03, 0.01, 0.003)  # the grid, ours
MOMENTUM = OptimizationRecipe.momentum
BATCH = OptimizationRecipe.batch_size  # images
GOAL = 25.0  # percent of training error, P figure 1
POINTS = 10  # of a curve, an epoch


@dataclass(frozen=True)
class SmallImages:
    """A split, whole in memory: pixels (n, channels, side, side) of unit variance, labels (n,)."""

    pixels: Tensor
    labels: Tensor


@dataclass(frozen=True)
class Learning:
    """How one net learned."""

    rate: float
    epochs: list[float]  # where each point of the curve ends
    errors: list[float]  # percent of the training images since the point before, as they were met
    test_error: float  # percent, at the end

    @property
    def reached(self) -> float | None:
        """Epochs until the training error was ``GOAL`` or less; None if it never was."""
        return next((epoch for epoch, error in zip(self.epochs, self.errors, strict=True) if error <= GOAL), None)

    @property
    def speed(self) -> tuple[float, float]:
        """To sort by, fastest first."""
        return (float("inf") if self.reached is None else self.reached, self.errors[-1])


def small_images(train: Dataset, val: Dataset, count: int | None) -> tuple[SmallImages, SmallImages]:
    """The first ``count`` training images, or all, and all others: less the training mean image, over the deviation.

    Raises InputError for images that are not held as arrays of one size, or less than a batch of them.
    """
    if not isinstance(train, ArrayDataset) or not isinstance(val, ArrayDataset):
        raise InputError("--figure 1: needs small images; give --data cifar10, fashion-mnist or sample")
    parts = ((train, count), (val, None))
    pixels = [torch.from_numpy(split.pixels[:size].copy()).float() for split, size in parts]
    pixels = [x.unsqueeze(1) if x.dim() == 3 else x.permute(0, 3, 1, 2) for x in pixels]
    mean, deviation = pixels[0].mean(0), (pixels[0] - pixels[0].mean(0)).std()
    if len(pixels[0]) < BATCH:
        raise InputError(f"--images {len(pixels[0])}: a step takes {BATCH}; give as many or more")
    labels = [torch.from_numpy(split.labels[:size].astype("int64")) for split, size in parts]
    first, second = (SmallImages((x - mean) / deviation, y) for x, y in zip(pixels, labels, strict=True))
    return first, second


def learn(
    train: SmallImages, val: SmallImages, classes: int, activation: str, rate: float, epochs: int, lrn: bool, seed: int
) -> Learning:
    """Train one net at one rate; the same order of images and first weights for every activation and rate."""
    _, channels, side, _ = train.pixels.shape
    net = FourLayers(channels, side, classes, activation, lrn, seed)
    optimizer = torch.optim.SGD(net.parameters(), rate, MOMENTUM)
    per_epoch = len(train.labels) // BATCH
    ends, errors, wrong, counted = [], [], 0, 0
    for step, batch in enumerate(batches(len(train.labels), epochs, seed), start=1):
        logits, labels = net(train.pixels[batch]), train.labels[batch]
        optimizer.zero_grad()
        F.cross_entropy(logits, labels).backward()
        optimizer.step()
        wrong, counted = wrong + int((logits.argmax(1) != labels).sum()), counted + BATCH
        if step * POINTS // per_epoch > (step - 1) * POINTS // per_epoch:
            ends.append(step / per_epoch)
            errors.append(100 * wrong / counted)
            wrong = counted = 0
    return Learning(rate, ends, errors, test_error(net, val))


def batches(images: int, epochs: int, seed: int) -> Iterator[Tensor]:
    """Indices of each step's images; an epoch's last short batch is dropped."""
    generator = torch.Generator().manual_seed(seed)
    for _ in range(epochs):
        order = torch.randperm(images, generator=generator)
        yield from order[: images // BATCH * BATCH].split(BATCH)


@torch.no_grad()
def test_error(net: FourLayers, val: SmallImages) -> float:
    parts = zip(val.pixels.split(1000), val.labels.split(1000), strict=True)
    wrong = sum(int((net(pixels).argmax(1) != labels).sum()) for pixels, labels in parts)
    return 100 * wrong / len(val.labels)


def learn_figure1(
    train: SmallImages, val: SmallImages, classes: int, epochs: int, seed: int, progress: Callable[[str], object]
) -> dict[str, Learning]:
    """The fastest rate of the grid for ``relu`` and for ``tanh``, each its own; and ``relu with LRN`` at relu's."""
    fastest = {}
    for activation in ("relu", "tanh"):
        of_rates = []
        for rate in RATES:
            of_rates.append(learn(train, val, classes, activation, rate, epochs, False, seed))
            progress(f"{activation} at {rate:g}: training error {of_rates[-1].errors[-1]:.1f} %")
        fastest[activation] = min(of_rates, key=lambda learning: learning.speed)
    fastest["relu with LRN"] = learn(train, val, classes, "relu", fastest["relu"].rate, epochs, True, seed)
    return fastest
