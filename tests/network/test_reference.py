"""The reference nets: their parameters by hand, their first weights, their masks."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import nn
from torchvision.models import alexnet

from alexnet2012.core.errors import InputError
from alexnet2012.core.random_streams import Purpose, torch_seed
from alexnet2012.data.pixels import scaled
from alexnet2012.network.build import InBfloat16, build_net, parameter_shapes
from alexnet2012.network.reference import NETS, ReferenceNet, recorded_fields
from alexnet2012.network.summary import describe

PARAMETERS = {  # kernels x inputs x area + biases
    "d2l": 96 * 121 + 96 + 256 * 96 * 25 + 256 + 384 * 256 * 9 + 384 + 384 * 384 * 9 + 384 + 256 * 384 * 9 + 256
    + 4096 * 6400 + 4096 + 4096 * 4096 + 4096 + 10 * 4096 + 10,
    "lenet": 6 * 25 + 6 + 16 * 6 * 25 + 16 + 120 * 400 + 120 + 84 * 120 + 84 + 10 * 84 + 10,
    "torchvision": 61_100_840 - 990 * 4097,  # the published count, less 990 classes
}  # fmt: skip
PARAMETERS["lenet-relu"] = PARAMETERS["lenet"]
PARAMETERS["d2l-28"] = 32 * 9 + 32 + 64 * 32 * 9 + 64 + 128 * 64 * 49 + 128 + 10 * 128 + 10
PARAMETERS["one-column"] = PARAMETERS["d2l"] + 96 * 2 * 121 + 4096 * 256 * (36 - 25)  # three channels, 6x6 before fc6
PARAMETERS |= {  # each layer's in test_cuda_convnet.py
    "conv-local-13pct": 1_116_490, "conv-local-13pct-lrn": 1_116_490, "conv-local-11pct": 2_112_970,
    "19pct": 89_578, "18pct": 89_578,
}  # fmt: skip


def small(name: str) -> tuple[ReferenceNet, torch.Tensor]:
    recipe = NETS[name].recipe()
    size = (2, recipe.channels, recipe.crop_size, recipe.crop_size)
    return ReferenceNet(recipe, 10, seed=3), torch.randn(size, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", NETS)
def test_the_numbers_of_its_layers(name: str) -> None:
    layers = describe(NETS[name].recipe(), 10)
    assert sum(layer.parameters for layer in layers) == PARAMETERS[name]
    assert layers[-1].shapes == ((10,),)
    with torch.device("meta"):
        net = ReferenceNet(NETS[name].recipe(), 10)
    assert sum(weight.numel() for weight in net.parameters()) == PARAMETERS[name]
    assert net.layers == tuple(layer.layer for layer in layers)


@pytest.mark.parametrize("name", [name for name in NETS if name not in ("torchvision", "one-column", "d2l")])
def test_in_bfloat16_it_computes_what_autocast_does(name: str) -> None:
    """To the bit, gradients too, for nets small enough for a test."""
    results = []
    for autocast in (True, False):
        net, images = small(name)
        computing = net if autocast else InBfloat16(net)
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            logits = computing(images, 0)
        logits.float().square().sum().backward()
        results.append((logits, [weight.grad for weight in net.parameters()]))
    (expected, expected_gradients), (found, gradients) = results
    torch.testing.assert_close(found.float(), expected.float(), rtol=0, atol=0)
    for gradient, other in zip(gradients, expected_gradients, strict=True):
        torch.testing.assert_close(gradient, other, rtol=0, atol=0)


def test_the_shapes_that_padding_1_gives() -> None:
    shapes = {layer.layer: layer.shapes for layer in describe(NETS["d2l"].recipe(), 10)}
    assert shapes["conv1"] == ((96, 54, 54), (96, 26, 26))
    assert shapes["conv5"] == ((256, 12, 12), (256, 5, 5))


@pytest.mark.parametrize("name", ["lenet", "lenet-relu"])
def test_weights_are_those_of_the_seed_and_leave_the_global_generator_alone(name: str) -> None:
    before = torch.random.get_rng_state()
    one, same = (small(name)[0] for _ in range(2))
    assert torch.equal(before, torch.random.get_rng_state())
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), same.parameters(), strict=True))
    other = ReferenceNet(NETS[name].recipe(), 10, seed=4)
    assert not torch.equal(one.conv1.weight, other.conv1.weight)


def test_xaviers_deviation() -> None:
    weight = small("lenet")[0].fc6.weight
    assert weight.std().item() == pytest.approx((2 / (400 + 120)) ** 0.5, rel=0.02)


@pytest.mark.parametrize("name", ["lenet-relu", "d2l"])
def test_two_replicas_draw_the_masks_of_one_process(name: str) -> None:
    net, images = small(name)
    torch.manual_seed(1)
    with torch.no_grad():
        whole = net(images, 5)
        torch.manual_seed(2)
        halves = torch.cat([net(images[row : row + 1], 5, row) for row in (0, 1)])
    torch.testing.assert_close(halves, whole)


def test_dropout_drops_half_and_doubles_the_rest() -> None:
    net, _ = small("lenet-relu")
    images = torch.randn(64, 1, 28, 28, generator=torch.Generator().manual_seed(1))
    trained = net(images, 5, return_features=True)[1]["fc6"]
    tested = net.eval()(images, return_features=True)[1]["fc6"]
    kept = trained != 0
    torch.testing.assert_close(trained[kept], 2 * tested[kept])
    assert kept[tested > 0].float().mean().item() == pytest.approx(0.5, abs=0.05)


def test_masks_follow_from_the_step_and_the_row() -> None:
    net, images = small("lenet-relu")
    with torch.no_grad():
        first, again, later, other_rows = (net(images, step, row) for step, row in ((5, 0), (5, 0), (6, 0), (5, 2)))
        features = net.eval()(images, return_features=True)[1]
    assert torch.equal(first, again)
    assert not torch.equal(first, later)
    assert not torch.equal(first, other_rows)
    assert list(features) == ["conv1", "conv2", "fc6", "fc7", "fc8"]


def test_relu_and_dropout_stand_in_the_place_of_sigmoids() -> None:
    names = [name for name, _ in small("lenet-relu")[0].named_children()]
    assert [name for name in names if name.startswith(("activation", "dropout"))] == [
        "activation1", "activation2", "activation6", "dropout6", "activation7", "dropout7",
    ]  # fmt: skip


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize(
    "change", [{"activation": "tanh"}, {"dropout": 0.25}, {"width": 0.5}, {"init": "he"}, {"lrn": False}], ids=str
)
def test_a_net_takes_a_switch_or_refuses_it_by_name(name: str, change: dict[str, Any]) -> None:
    ((switch, value),) = change.items()
    recipe = dataclasses.replace(NETS[name].recipe(), **change)
    with torch.device("meta"):
        if switch not in NETS[name].takes:
            with pytest.raises(InputError, match=f"--net {name}: its {switch} cannot be changed; it takes --"):
                ReferenceNet(recipe)
            return
        before, net = ReferenceNet(NETS[name].recipe()), ReferenceNet(recipe)
    kinds = {type(module) for module in net.children()}
    if switch == "activation":
        assert nn.Tanh in kinds and not kinds & {nn.ReLU, nn.Sigmoid}
    elif switch == "dropout":
        assert {module.p for module in net.modules() if isinstance(module, nn.Dropout)} == {value}
    elif switch == "width":
        assert all(len(half.bias) <= math.ceil(len(whole.bias) / 2) for half, whole in hidden(net, before))


def hidden(*nets: ReferenceNet) -> Iterator[tuple[nn.Module, ...]]:
    """The layers with weights but the last, of all ``nets``."""
    return zip(*([getattr(net, layer) for layer in net.layers[:-1]] for net in nets), strict=True)


@pytest.mark.parametrize(
    ("init", "deviation"),
    [("normal", 0.01), ("he", (2 / 400) ** 0.5), ("xavier", (2 / 520) ** 0.5), ("default", (1 / 1200) ** 0.5)],
)
def test_initial_weights_by_name(init: str, deviation: float) -> None:
    fc6 = ReferenceNet(dataclasses.replace(NETS["lenet"].recipe(), init=init)).fc6
    assert fc6.weight.std().item() == pytest.approx(deviation, rel=0.02)
    assert bool((fc6.bias == 0).all()) == (init == "normal")


@pytest.mark.parametrize(("name", "side", "inputs"), [("d2l", 96, 256), ("lenet", 32, 576), ("one-column", 227, 9216)])
def test_fc6_reads_what_images_of_another_size_leave(name: str, side: int, inputs: int) -> None:
    recipe = NETS[name].recipe().with_images(side, ())
    assert parameter_shapes(recipe, 10)["fc6.weight"][1] == inputs
    with pytest.raises(InputError, match="--image-size 2: leaves nothing behind a layer of"):
        parameter_shapes(recipe.with_images(2, ()), 10)


@pytest.mark.parametrize(("name", "side"), [("torchvision", 62), ("conv-local-13pct", 3), ("19pct", 7)])
def test_images_that_leave_nothing_are_refused(name: str, side: int) -> None:
    recipe = dataclasses.replace(NETS[name].recipe(), image_size=side, crop_size=side, crop_offsets=1)
    with pytest.raises(InputError, match=f"--image-size {side}: leaves nothing behind a"):
        parameter_shapes(recipe, 10)
    recipe = dataclasses.replace(recipe, image_size=side + 1, crop_size=side + 1)
    ReferenceNet(recipe, 10).eval()(torch.zeros(1, 3, side + 1, side + 1))


def test_records_from_before_the_switches_are_of_the_net_s_own() -> None:
    """Then the fields were there but not read: LeNet's said ReLU and dropout 0.5."""
    old = {"net": "lenet", "name": "lenet", "activation": "relu", "dropout": 0.5, "width": 1.0, "lr": 0.2}
    fields = recorded_fields(old)
    assert (fields["activation"], fields["dropout"], fields["init"], fields["lr"]) == ("sigmoid", 0.0, "xavier", 0.2)
    assert recorded_fields({"net": "18pct", "activation": "tanh"})["activation"] == "tanh"
    today = dataclasses.asdict(dataclasses.replace(NETS["lenet"].recipe(), activation="relu"))
    assert recorded_fields(today) == today


def test_torchvisions_net_is_torchvisions() -> None:
    net, images = small("torchvision")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(torch_seed(Purpose.REFERENCE_WEIGHTS, 3))
        theirs = alexnet(num_classes=10).eval()
    with torch.no_grad():
        assert torch.equal(net.eval()(images), theirs(images))


def test_a_recipe_builds_its_net() -> None:
    net = build_net(NETS["lenet"].recipe(), 7, seed=1)
    assert isinstance(net, ReferenceNet)
    assert net.classes == net.fc8.out_features == 7


def test_torchvisions_pixels_are_those_of_the_walk_through() -> None:
    pixels = torch.tensor([0.0, 127.5, 255.0]).view(3, 1, 1, 1).expand(3, 3, 2, 2)
    assert scaled(pixels, NETS["torchvision"].recipe())[:, 0, 0, 0].tolist() == [-1, 0, 1]
