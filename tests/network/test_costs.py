"""Operations, bytes and memory: against torch's own counts, autograd, and figures by hand."""

from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from alexnet2012 import paper_recipe
from alexnet2012.network.build import build_net
from alexnet2012.network.costs import (
    DEVICES,
    Cost,
    describe_tower,
    inference,
    output_lines,
    state_bytes,
    training,
)
from alexnet2012.network.reference import NETS
from alexnet2012.network.summary import describe
from alexnet2012.recipe import Recipe

BOOK = """\
Conv2d 96 54 54, ReLU 96 54 54, MaxPool2d 96 26 26, Conv2d 256 26 26, ReLU 256 26 26, MaxPool2d 256 12 12,
Conv2d 384 12 12, ReLU 384 12 12, Conv2d 384 12 12, ReLU 384 12 12, Conv2d 256 12 12, ReLU 256 12 12,
MaxPool2d 256 5 5, Flatten 6400, Linear 4096, ReLU 4096, Dropout 4096, Linear 4096, ReLU 4096, Dropout 4096,
Linear 10"""


def recipe_of(net: str) -> Recipe:
    return paper_recipe() if net == "2012" else NETS[net].recipe()


def test_the_book_s_layer_lines() -> None:
    words = [line.split() for line in BOOK.replace("\n", " ").split(", ")]
    expected = [f"{layer} output shape:\t torch.Size([1, {', '.join(sizes)}])" for layer, *sizes in words]
    assert len(expected) == 21
    assert list(output_lines(NETS["d2l"].recipe(), 10)) == expected


def test_the_net_of_2012_has_a_line_a_layer_of_one_tower() -> None:
    lines = list(output_lines(paper_recipe(), 1000))
    assert lines[:2] == [
        "conv1 output shape:\t torch.Size([1, 48, 55, 55])",
        "conv1, pooled, output shape:\t torch.Size([1, 48, 27, 27])",
    ]


@pytest.mark.parametrize("net", ["2012", "d2l", "torchvision", "lenet"])
def test_operations_are_those_that_torch_counts(net: str) -> None:
    recipe, layers = recipe_of(net), describe(recipe_of(net), 10)
    with torch.device("meta"):
        images, module = torch.empty(4, recipe.channels, recipe.crop_size, recipe.crop_size), build_net(recipe, 10)
    with FlopCounterMode(display=False) as forward:
        logits = module(images, step=0)
    with FlopCounterMode(display=False) as backward:
        logits.sum().backward()
    assert sum(cost.operations for cost in inference(layers, 4)) == forward.get_total_flops()
    assert sum(cost.operations for cost in training(layers, 4, True)) == (
        forward.get_total_flops() + backward.get_total_flops()
    )


def test_state_is_weights_gradients_and_velocities() -> None:
    recipe = recipe_of("lenet")
    weights = sum(weight.numel() for weight in build_net(recipe, 10).parameters())
    layers = describe(recipe, 10)
    assert [state_bytes(layers, velocities) for velocities in (False, True)] == [8 * weights, 12 * weights]


def test_a_device_of_two_keeps_its_half_and_what_both_read() -> None:
    whole, one = describe(paper_recipe()), describe_tower(paper_recipe(), 1000)
    assert 2 * sum(layer.parameters for layer in one) == sum(layer.parameters for layer in whole)
    read_by_both = 3 * 227**2 + 256 * 13**2 + 256 * 6**2 + 4096 + 4096  # conv1, conv3, fc6, fc7, fc8
    kept = [sum(layer.kept for layer in layers) for layers in (one, whole)]
    assert 2 * kept[0] == kept[1] + 4 * read_by_both


def test_bytes_and_time_by_hand() -> None:
    (conv1, *_), batch = describe(NETS["lenet"].recipe(), 10), 2
    weights, read, written = 6 * 26, 28 * 28, 6 * 28 * 28
    assert inference([conv1], batch) == [Cost("conv1", 2 * 2 * 25 * written, 4 * (weights + 2 * (read + written)))]
    moved = 4 * (weights + 2 * (read + written) + weights + 2 * (read + written) + 3 * weights)
    assert training([conv1], batch, False) == [Cost("conv1", 2 * 2 * 2 * 25 * written, moved)]
    gtx = DEVICES["gtx580"]
    assert Cost("bound by memory", 1, 1924).seconds(gtx) == pytest.approx(1e-8)
    assert Cost("bound by operations", 1581, 1).seconds(gtx) == pytest.approx(1e-9)
