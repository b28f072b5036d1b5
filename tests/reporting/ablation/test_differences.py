"""Differences to the base net of the same seed on the same images, and what they may be by chance."""

from __future__ import annotations

import numpy as np
import pytest

from alexnet2012.reporting.ablation.differences import Estimate, compare, standard_errors


def measured(*of_images: list[float]) -> np.ndarray:
    """Top-1 error of each image, in percent; top-5 error and loss 0."""
    return np.array([of_images[0], *np.zeros((2, len(of_images[0])))], dtype=np.float64)


def test_a_difference_is_to_the_base_net_of_the_same_seed() -> None:
    base = {0: measured([0, 100, 0, 0]), 1: measured([0, 0, 0, 0])}
    runs = {0: measured([100, 100, 0, 0]), 1: measured([100, 0, 100, 0]), 9: measured([100] * 4)}
    row = compare("no-lrn", runs, base)
    assert [of_seed[0] for of_seed in row.errors.values()] == [50, 50, 100]
    assert row.differences == {0: [25, 0, 0], 1: [50, 0, 0]}  # seed 9 has no base
    assert row.difference(0).mean == 37.5 and row.difference(0).standard_error > 0
    assert row.error(0).standard_error == pytest.approx(np.std([50, 50, 100], ddof=1) / 3**0.5)
    assert compare("base", base, base).difference(0) is None
    assert compare("no-lrn", {}, base).error(0) is None


def test_one_seed_has_no_standard_error() -> None:
    row = compare("no-lrn", {0: measured([100, 0])}, {0: measured([0, 0])})
    assert row.difference(0) == Estimate(50, None) and not row.difference(0).beyond


def components(seeds: int, images: int, of_seed: float, of_image: float, residual: float) -> np.ndarray:
    random = np.random.default_rng(2012)
    parts = ((of_seed, (seeds, 1)), (of_image, (1, images)), (residual, (seeds, images)))
    return sum(random.normal(0, scale, shape) for scale, shape in parts)


@pytest.mark.parametrize("parts", [(0.5, 15, 45), (3, 0, 45), (0, 40, 0.1)], ids=str)
@pytest.mark.parametrize("seeds", [2, 3, 10])
def test_the_standard_error_is_over_seeds_and_images(seeds: int, parts: tuple[float, float, float]) -> None:
    """That of an analysis of variance: mean squares of seeds and of images, less the residuals'."""
    images = 500
    one = components(seeds, images, *parts)
    of_seeds, of_images = images * one.mean(1).var(ddof=1), seeds * one.mean(0).var(ddof=1)
    rest = one - one.mean(0) - one.mean(1, keepdims=True) + one.mean()
    residual = (rest**2).sum() / (seeds - 1) / (images - 1)
    expected = max(of_seeds + of_images - residual, residual) / (seeds * images)
    (found,) = standard_errors(one[:, None])
    assert found == pytest.approx(expected**0.5, rel=0.06)
    assert standard_errors(one[:, None]) == found  # the same report twice


def test_of_two_runs_alike_on_one_image_the_standard_error_is_0() -> None:
    assert standard_errors(np.ones((2, 3, 1))).tolist() == [0, 0, 0]


@pytest.mark.parametrize(("mean", "beyond"), [(1.0, False), (1.01, True), (-1.01, True)])
def test_beyond_two_standard_errors(mean: float, beyond: bool) -> None:
    assert Estimate(mean, 0.5).beyond is beyond
