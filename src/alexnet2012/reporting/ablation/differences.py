"""Differences between a variant and the base net, paired by seed and image, with standard errors over both."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from alexnet2012.core.random_streams import Purpose, philox

RESAMPLES = 2000  # of the bootstrap
Measured = NDArray[np.float64]  # (3, images): top-1 and top-5 error (0 to 100) and loss (nats) of each image


@dataclass(frozen=True)
class Estimate:
    """A mean and its standard error, None for a single seed."""

    mean: float
    standard_error: float | None

    @property
    def beyond(self) -> bool:
        """True if the mean is more than two standard errors from 0."""
        return self.standard_error is not None and abs(self.mean) > 2 * self.standard_error


@dataclass(frozen=True)
class Row:
    """The errors of a variant by seed, and their differences from the base net of the same seed.

    Each is [top-1 error, top-5 error, loss], in percent, percentage points and nats.
    """

    variant: str
    errors: dict[int, list[float]]
    differences: dict[int, list[float]]
    standard_errors: list[float] | None  # of the mean differences

    def error(self, measure: int) -> Estimate | None:
        """Mean over seeds of a ``measure``: 0 top-1 error, 1 top-5 error, 2 loss. None if nothing was run."""
        values = [of_seed[measure] for of_seed in self.errors.values()]
        if not values:
            return None
        spread = statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else None
        return Estimate(statistics.mean(values), spread)

    def difference(self, measure: int) -> Estimate | None:
        if not self.differences:
            return None
        mean = statistics.mean(of_seed[measure] for of_seed in self.differences.values())
        return Estimate(mean, self.standard_errors[measure] if self.standard_errors else None)


def compare(variant: str, runs: Mapping[int, Measured], base: Mapping[int, Measured]) -> Row:
    """The row of a variant, from its ``runs`` and the ``base`` runs by seed, all measured on the same images."""
    errors = {seed: run.mean(1).tolist() for seed, run in runs.items()}
    if runs is base or not (paired := sorted(runs.keys() & base.keys())):
        return Row(variant, errors, {}, None)
    differences = np.stack([runs[seed] - base[seed] for seed in paired])
    of_seeds = dict(zip(paired, differences.mean(2).tolist(), strict=True))
    return Row(variant, errors, of_seeds, standard_errors(differences).tolist() if len(paired) > 1 else None)


def standard_errors(differences: NDArray[np.float64]) -> NDArray[np.float64]:
    """Standard errors (measures,) of the mean of ``differences`` (seeds, measures, images), with at least two seeds.

    A bootstrap over both seeds and images, drawn with replacement. It draws one seed fewer than there are, since the
    spread over seeds would be underestimated otherwise. Its variance includes that of the residuals, the interaction
    of seed and image, three times (Owen, The pigeonhole bootstrap, Annals of Applied Statistics, 2007), so it is
    subtracted twice.
    """
    seeds, measures, images = differences.shape
    residuals = (
        differences - differences.mean(0) - differences.mean(2, keepdims=True) + differences.mean((0, 2))[:, None]
    )
    of_residuals = (residuals**2).sum((0, 2)) / ((seeds - 1) * max(images - 1, 1) * seeds * images)
    draws = np.random.Generator(philox(Purpose.BOOTSTRAP, 0))
    means = np.empty((RESAMPLES, measures))
    for resample in range(RESAMPLES):
        weights = np.bincount(draws.integers(images, size=images), minlength=images) / images
        means[resample] = (differences @ weights)[draws.integers(seeds, size=seeds - 1)].mean(0)
    return np.sqrt(np.maximum(means.var(0) - 2 * of_residuals, of_residuals))
