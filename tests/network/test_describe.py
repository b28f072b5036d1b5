"""The net in numbers: those of the reference, and those of the net itself."""

from __future__ import annotations

import pytest
import torch

from alexnet2012 import AlexNet, paper_recipe, source_recipe
from alexnet2012.network.describe import LayerNumbers, describe
from alexnet2012.recipe import VARIANTS

VARIED = ((), *((variant,) for variant in VARIANTS))
PARAMETERS = {
    **{"conv1": 34_944, "conv2": 307_456, "conv3": 885_120, "conv4": 663_936, "conv5": 442_624},
    **{"fc6": 37_752_832, "fc7": 16_781_312, "fc8": 4_097_000},
}
MILLIONS = {"conv1": 105.4, "conv2": 223.9, "conv3": 149.5, "conv4": 112.1, "conv5": 74.8, "fc6": 37.7, "fc7": 16.8}
SUMS = {  # by hand, from the variants' widths: parameters, millions of multiply-adds, values crossing
    "no-lrn": (60_965_224, 724.4, 30_836),
    "no-overlap": (60_965_224, 724.4, 30_836),
    "no-exchange": (60_714_408, 724.3, 2_548),
    "exchange-at-conv4": (61_186_408, 761.8, 41_652),
    "one-tower": (59_798_312, 391.5, 0),
    "without-conv3": (60_301_288, 612.3, 30_836),
    "without-conv4": (60_301_288, 612.3, 30_836),
    "no-color-noise": (60_965_224, 724.4, 30_836),
    "no-dropout": (60_965_224, 724.4, 30_836),
    "tanh": (60_965_224, 724.4, 30_836),
    "wide-init": (60_965_224, 724.4, 30_836),
}


def by_layer(*variants: str) -> dict[str, LayerNumbers]:
    return {one.layer: one for one in describe(paper_recipe().varied(*variants))}


def total(name: str, *variants: str) -> int:
    return sum(getattr(layer, name) for layer in by_layer(*variants).values())


def test_the_papers_net() -> None:
    layers = by_layer()
    assert {name: layers[name].parameters for name in PARAMETERS} == PARAMETERS
    assert total("parameters") == 60_965_224  # P: 60 million
    assert {name: round(layers[name].multiply_adds / 1e6, 1) for name in MILLIONS} == MILLIONS
    assert round(total("multiply_adds") / 1e6) == 724
    crossing = {name: layer.crossing for name, layer in layers.items() if layer.crossing}
    assert crossing == {"conv3": 21_632, "fc6": 4_608, "fc7": 2_048, "fc8": 2_048, "logits": 500}
    assert layers["conv1"].shapes == ((48, 55, 55), (48, 27, 27))
    assert layers["conv1"].activations == 2 * 48 * (2 * 55 * 55 + 27 * 27)  # ReLU, LRN, pool
    assert layers["fc6"].shapes == ((2048,),)


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_sums_of_a_variant(variant: str) -> None:
    parameters, millions, crossing = SUMS[variant]
    assert (total("parameters", variant), total("crossing", variant)) == (parameters, crossing)
    assert round(total("multiply_adds", variant) / 1e6, 1) == millions


def test_the_one_tower_net() -> None:
    layers = by_layer("one-tower")
    assert layers["conv5"].shapes == ((256, 13, 13), (256, 6, 6))
    assert layers["fc6"].multiply_adds == 9216 * 4096
    assert "logits" not in layers


def test_towers_that_meet_at_conv4_only_send_more() -> None:
    crossing = {name: layer.crossing for name, layer in by_layer("exchange-at-conv4").items() if layer.crossing}
    assert crossing == {"conv4": 192 * 13 * 13, "fc6": 4_608, "fc7": 2_048, "fc8": 2_048, "logits": 500}


def test_the_authors_net_keeps_one_map_more_for_its_in_map_normalisation() -> None:
    paper, source = (
        {one.layer: one.activations for one in describe(recipe())} for recipe in (paper_recipe, source_recipe)
    )
    assert source["conv2"] - paper["conv2"] == 2 * 128 * 27 * 27


@pytest.mark.parametrize("variants", VARIED, ids=str)
@pytest.mark.parametrize("classes", [10, 5])
def test_the_numbers_are_those_of_the_net_itself(variants: tuple[str, ...], classes: int) -> None:
    recipe = paper_recipe(width=1 / 16).varied(*variants)
    net = AlexNet(recipe, classes).eval()
    with torch.no_grad():
        _, features = net(torch.zeros(1, 3, 224, 224), return_features=True)
    described = {one.layer: one for one in describe(recipe, classes)}
    parameters = dict(net.named_parameters())
    for layer in recipe.layers:
        own = [weight.numel() for name, weight in parameters.items() if f".{layer}." in name]
        assert described[layer].parameters == sum(own), layer
        if layer != "fc8":
            kernels, *sides = described[layer].shapes[-1]
            assert features[layer].shape == (1, kernels * recipe.towers, *sides), layer
