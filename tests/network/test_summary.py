"""The net in numbers: those of the reference, and those of the net itself."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from alexnet2012 import AlexNet, paper_recipe, source_recipe
from alexnet2012.network.build import build_net
from alexnet2012.network.reference import NETS
from alexnet2012.network.summary import LayerNumbers, describe, initial_weights
from alexnet2012.recipe import VARIANTS, Recipe

VARIED = ((), *((variant,) for variant in VARIANTS), ("without-conv3", "without-conv4"))
PARAMETERS = {
    **{"conv1": 34_944, "conv2": 307_456, "conv3": 885_120, "conv4": 663_936, "conv5": 442_624},
    **{"fc6": 37_752_832, "fc7": 16_781_312, "fc8": 4_097_000},
}
MILLIONS = {"conv1": 105.4, "conv2": 223.9, "conv3": 149.5, "conv4": 112.1, "conv5": 74.8, "fc6": 37.7, "fc7": 16.8}
SUMS = {  # by hand, from the variants' widths: parameters, millions of multiply-adds, values exchanged
    "no-exchange": (60_714_408, 724.3, 2_548),
    "exchange-at-conv4": (61_186_408, 761.8, 41_652),
    "one-tower": (59_798_312, 391.5, 0),
    "without-conv2": (60_104_808, 407.0, 17_316),
    "without-conv3": (60_301_288, 612.3, 30_836),
    "without-conv4": (60_301_288, 612.3, 30_836),
    "without-conv5": (79_396_968, 668.5, 33_140),
    **dict.fromkeys(  # as the base net
        ("no-lrn", "no-overlap", "no-color-noise", "no-dropout", "tanh", "wide-init"), (60_965_224, 724.4, 30_836)
    ),
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
    exchanged = {name: layer.exchanged for name, layer in layers.items() if layer.exchanged}
    assert exchanged == {"conv3": 21_632, "fc6": 4_608, "fc7": 2_048, "fc8": 2_048, "logits": 500}
    assert layers["conv1"].shapes == ((48, 55, 55), (48, 27, 27))
    assert layers["fc6"].shapes == ((2048,),)
    padded, maps = 3 * 227**2, 2 * 48 * 55**2  # once for both towers; what LRN and then the pool read
    assert layers["conv1"].kept == 4 * (padded + 2 * maps) + 8 * 2 * 48 * 27**2  # int64 indices of the pool
    assert layers["fc6"].kept == 4 * (9216 + 4096) + 4096  # its input, its ReLU, the mask a byte each


def test_the_authors_net_without_overlap() -> None:
    """S #147, by hand: pools round up, 55 -> 28; conv2 pads 1, 26 -> 13; conv5 pads 0, 11 -> 6."""
    layers = {one.layer: one for one in describe(source_recipe().varied("no-overlap"))}
    assert {name: layer.shapes for name, layer in layers.items() if name.startswith("conv")} == {
        "conv1": ((48, 55, 55), (48, 28, 28)),
        "conv2": ((128, 26, 26), (128, 13, 13)),
        "conv3": ((192, 13, 13),),
        "conv4": ((192, 13, 13),),
        "conv5": ((128, 11, 11), (128, 6, 6)),
    }
    assert {name: layers[name].parameters for name in PARAMETERS} == PARAMETERS
    by_hand = {  # kernels x what each reads x places
        "conv1": 96 * 363 * 55**2,
        "conv2": 256 * 48 * 25 * 26**2,
        "conv3": 384 * 256 * 9 * 13**2,
        "conv4": 384 * 192 * 9 * 13**2,
        "conv5": 256 * 192 * 9 * 11**2,
        "fc6": 4096 * 9216,
        "fc7": 4096 * 4096,
        "fc8": 1000 * 4096,
    }
    assert {name: layers[name].multiply_adds for name in by_hand} == by_hand
    assert sum(by_hand.values()) == 686_891_552


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_sums_of_a_variant(variant: str) -> None:
    parameters, millions, exchanged = SUMS[variant]
    assert (total("parameters", variant), total("exchanged", variant)) == (parameters, exchanged)
    assert round(total("multiply_adds", variant) / 1e6, 1) == millions


def test_the_one_tower_net() -> None:
    layers = by_layer("one-tower")
    assert layers["conv5"].shapes == ((256, 13, 13), (256, 6, 6))
    assert layers["fc6"].multiply_adds == 9216 * 4096
    assert "logits" not in layers


def test_towers_that_exchange_at_conv4_only_send_more() -> None:
    exchanged = {name: layer.exchanged for name, layer in by_layer("exchange-at-conv4").items() if layer.exchanged}
    assert exchanged == {"conv4": 192 * 13 * 13, "fc6": 4_608, "fc7": 2_048, "fc8": 2_048, "logits": 500}


def test_layers_that_go_leave_their_pools() -> None:
    both = by_layer("without-conv2", "without-conv5")
    assert both["conv1"].shapes == ((48, 55, 55), (48, 13, 13))
    assert both["conv4"].shapes == ((192, 13, 13), (192, 6, 6))
    assert [name for name, layer in both.items() if layer.exchanged] == ["conv3", "fc6", "fc7", "fc8", "logits"]


def kept_bytes(recipe: Recipe, images: int) -> int:
    """What autograd keeps of a training pass on the CPU, counted once a storage, the weights not."""
    net = build_net(recipe, 10)
    kept: dict[int, Tensor] = {weight.untyped_storage().data_ptr(): weight for weight in net.parameters()}
    weights = set(kept)

    def keep(saved: Tensor) -> Tensor:
        return kept.setdefault(saved.untyped_storage().data_ptr(), saved) if saved.numel() else saved

    with saved_tensors_hooks(lambda saved: (keep(saved), saved)[1], lambda saved: saved):
        logits = net(torch.rand(images, recipe.channels, recipe.crop_size, recipe.crop_size), step=0)
    assert logits.requires_grad
    return sum(saved.untyped_storage().nbytes() for name, saved in kept.items() if name not in weights)


@pytest.mark.parametrize(
    "recipe",
    [
        *(paper_recipe(width=1 / 16).varied(*variants) for variants in VARIED),
        *(source_recipe(width=1 / 16).varied(*variants) for variants in ((), ("no-overlap",), ("no-lrn",))),
        *(net.recipe() for net in NETS.values()),
    ],
    ids=lambda recipe: f"{recipe.name}",
)
def test_what_is_kept_is_what_autograd_keeps(recipe: Recipe) -> None:
    """Of two images, so that what does not grow with them would show."""
    assert 2 * sum(layer.kept for layer in describe(recipe, 10)) == kept_bytes(recipe, 2)


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


@pytest.mark.parametrize("recipe", [source_recipe(width=1 / 4), NETS["lenet"].recipe()], ids=lambda recipe: recipe.name)
def test_initial_weights_are_those_that_training_begins_with(recipe: Recipe) -> None:
    net = build_net(recipe, 10, seed=3)
    for one in initial_weights(recipe, 10, seed=3):
        weights = torch.cat([getattr(tower, one.layer).weight.flatten() for tower in net.held])
        assert (one.mean, one.deviation) == pytest.approx((weights.mean().item(), weights.std().item()), rel=0.01)
        assert one.shape == tuple(getattr(net.held[0], one.layer).weight.shape)


def test_the_papers_initial_weights() -> None:
    layers = {one.layer: one for one in initial_weights(paper_recipe(width=1 / 4), 10, seed=0)}
    assert {name: one.bias_mean for name, one in layers.items()} == {
        **{"conv1": 0, "conv2": 1, "conv3": 0, "conv4": 1, "conv5": 1}, **{"fc6": 1, "fc7": 1, "fc8": 0}
    }  # fmt: skip
    assert layers["conv1"].deviation == pytest.approx(0.01, rel=0.02)
    assert layers["fc6"].deviation == pytest.approx(0.02, rel=0.02)  # 0.01 / sqrt(width)
