"""The small net of the paper's figure 1, and how its curves are read."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from alexnet2012.data.dataset import ArrayDataset
from alexnet2012.errors import InputError
from alexnet2012.network.four_layers import FourLayers
from alexnet2012.reporting.figures.figure1 import claims, draw_figure1, ratio
from alexnet2012.training import four_layers
from alexnet2012.training.four_layers import BATCH, Learning, learn, learn_figure1, small_images


def images(count: int) -> ArrayDataset:
    """Class 0 is dark above, class 1 below."""
    labels = np.arange(count) % 2
    pixels = np.random.default_rng(1).integers(0, 64, (count, 28, 28), dtype=np.uint8)
    pixels[labels == 0, 14:] += 128
    pixels[labels == 1, :14] += 128
    return ArrayDataset(pixels, labels, ["a", "b"], "test", None)


def learning(epochs: list[float], errors: list[float], test_error: float = 11.0) -> Learning:
    return Learning(0.1, epochs, errors, test_error)


@pytest.mark.parametrize(("channels", "side", "last"), [(3, 32, 4), (1, 28, 3)])
def test_the_layout_is_cuda_convnets(channels: int, side: int, last: int) -> None:
    net = FourLayers(channels, side, 10, "relu", False, 0)
    weights = [tuple(layer.weight.shape) for layer in net if hasattr(layer, "weight")]
    assert weights == [(32, channels, 5, 5), (32, 32, 5, 5), (64, 32, 5, 5), (10, 64 * last**2)]
    assert net(torch.zeros(2, channels, side, side)).shape == (2, 10)


def test_the_first_weights_are_those_of_the_seed_whatever_the_activation() -> None:
    relu, tanh = (
        list(FourLayers(1, 28, 10, kind, lrn, 7).parameters()) for kind, lrn in (("relu", True), ("tanh", False))
    )
    assert all(torch.equal(one, other) for one, other in zip(relu, tanh, strict=True))
    other = next(iter(FourLayers(1, 28, 10, "relu", False, 8).parameters()))
    assert not torch.equal(relu[0], other)


def test_small_images_have_mean_zero_and_unit_deviation() -> None:
    train, val = small_images(images(200), images(130), 150)
    assert train.pixels.shape == (150, 1, 28, 28)
    assert train.pixels.mean(0).abs().max() < 1e-5
    assert train.pixels.std() == pytest.approx(1, abs=1e-4)
    assert len(val.labels) == 130


def test_too_few_images_are_refused() -> None:
    with pytest.raises(InputError, match="--images 100"):
        small_images(images(200), images(200), 100)


def test_it_learns_and_the_same_seed_learns_alike() -> None:
    data = small_images(images(2 * BATCH), images(BATCH), None)
    one, same = (learn(*data, 2, "relu", 0.03, 2, True, 0) for _ in range(2))
    assert one == same
    assert one.test_error < 5
    assert one.epochs[-1] == 2
    assert one.reached == one.epochs[next(i for i, error in enumerate(one.errors) if error <= 25)]


def test_each_activation_gets_the_rate_at_which_it_is_fastest(monkeypatch: pytest.MonkeyPatch) -> None:
    best = {"relu": 0.03, "tanh": 0.1}

    def pretend(train, val, classes, activation, rate, epochs, lrn, seed) -> Learning:
        return Learning(rate, [1.0, 2.0], [50.0, 20.0 if rate == best[activation] else 30.0], 10.0)

    monkeypatch.setattr(four_layers, "learn", pretend)
    lines: list[str] = []
    learned = learn_figure1(None, None, 2, 2, 0, lines.append)  # type: ignore[arg-type]
    assert {name: learning.rate for name, learning in learned.items()} == {**best, "relu with LRN": 0.03}
    assert len(lines) == 2 * len(four_layers.RATES)


def test_the_ratio_of_epochs() -> None:
    relu, tanh = learning([1, 2], [30, 25]), learning([1, 8], [40, 20])
    assert "4.0 times as fast" in ratio({"relu": relu, "tanh": tanh})
    slow = learning([1, 8], [40, 30])
    assert "by tanh not in 8" in ratio({"relu": relu, "tanh": slow})
    assert "not reached" in ratio({"relu": slow, "tanh": slow})


def test_the_figure_has_a_line_at_25_percent_and_the_claims_of_2012() -> None:
    learned = {name: learning([1, 2], [30, 20]) for name in ("relu", "tanh", "relu with LRN")}
    figure = draw_figure1(learned, "cifar10", 50_000)
    dashed = [line for line in figure.axes[0].lines if set(line.get_ydata()) == {25.0}]
    assert len(dashed) == 1
    text = figure.get_supxlabel()
    assert "six times" in text
    assert all(claim in text for claim in claims(learned))
