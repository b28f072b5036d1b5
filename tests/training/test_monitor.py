"""The monitor: dead units, and layers whose weights are not finite."""

from __future__ import annotations

import pytest
import torch

from alexnet2012 import AlexNet, paper_recipe
from alexnet2012.distributed.layout import Layout
from alexnet2012.training.monitor import broken_layers, dead_units, layer_sizes, layer_weights


@pytest.fixture
def net() -> AlexNet:
    return AlexNet(paper_recipe(width=1 / 16), classes=5).train()


def test_units_are_dead_that_never_fire_and_not_those_that_dropout_silences(net: AlexNet) -> None:
    """Of one image dropout silences about half of fc6 and fc7."""
    with torch.no_grad():
        for tower in net.held:
            for layer in ("fc6", "fc7"):
                getattr(tower, layer).bias.fill_(1000.0)
        net.held[1].fc7.bias[:32] = -1000.0
    found = dead_units(net, torch.randn(1, 3, 224, 224))
    assert (found["dead units/fc6"], found["dead units/fc7"]) == (0, 32 / 256)
    assert net.training and "dead units/fc8" not in found


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_layers_with_a_value_that_is_not_finite(net: AlexNet, value: float) -> None:
    assert not broken_layers(net, Layout(), lambda weight: weight).any()
    net.held[0].conv2.weight.data[1, 2, 3, 4] = value
    net.held[1].fc7.bias.data[5] = value
    net.held[1].fc7.weight.data[5, :2] = torch.tensor([value, -value])
    found = broken_layers(net, Layout(), lambda weight: weight)
    assert [layer for layer, broken in zip(net.layers, found, strict=True) if broken] == ["conv2", "fc7"]


def test_the_update_of_a_layer_is_what_a_step_added_in_both_towers(net: AlexNet) -> None:
    before = layer_weights(net)
    for tower in net.held:
        for weight in tower.parameters():
            weight.grad = torch.full_like(weight, 2.0)
        tower.conv2.weight.data *= 1.25
    found = layer_sizes(net, before, Layout())
    assert found["update to weights/conv2"] == pytest.approx(0.2)
    assert found["update to weights/conv3"] == 0
    count = sum(tower.conv2.weight.numel() for tower in net.held)
    assert found["gradient norm/conv2"] == pytest.approx(2 * count**0.5)
