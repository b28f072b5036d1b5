"""What a net costs a device, from its layers in numbers: operations, bytes moved, memory, and the least time.

A lower bound. Each convolution or matrix reads its input and weights once and writes its output once, in float32; ReLU,
pooling and normalization count as done on the way.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from alexnet2012.network.build import build_net
from alexnet2012.network.exchange import InProcess
from alexnet2012.network.reference import ReferenceNet
from alexnet2012.network.summary import LayerNumbers, describe
from alexnet2012.recipe import Recipe

FLOAT = 4  # bytes


@dataclass(frozen=True)
class Device:
    """Peak float32 operations and memory bytes a second."""

    name: str
    flops: float
    bandwidth: float


DEVICES = {  # NVIDIA's data sheets: float32 without tensor cores
    "gtx580": Device("GTX 580", 1.581e12, 192.4e9),
    "a100": Device("A100 40 GB", 19.5e12, 1555e9),
    "h100": Device("H100 SXM", 67e12, 3350e9),
}


@dataclass(frozen=True)
class Cost:
    """Of one layer and a batch."""

    layer: str
    operations: int  # a multiply-add is two
    moved: int  # bytes

    def seconds(self, device: Device) -> float:
        """The least time on ``device``: that of the operations or that of the bytes, whichever is longer."""
        return max(self.operations / device.flops, self.moved / device.bandwidth)


def inference(layers: Sequence[LayerNumbers], batch: int) -> list[Cost]:
    """A forward pass, layer by layer."""
    return [
        Cost(one.layer, 2 * batch * one.multiply_adds, FLOAT * (one.parameters + batch * (one.read + one.written)))
        for one in layers
    ]


def training(layers: Sequence[LayerNumbers], batch: int, velocities: bool) -> list[Cost]:
    """Forward, backward and the update, layer by layer.

    Backward reads the output's gradient, the input and the weights, and writes the gradients of both; the first layer
    needs no gradient of its input. The update reads and writes weights, and with ``velocities`` those too.
    """
    costs = []
    for index, (one, forward) in enumerate(zip(layers, inference(layers, batch), strict=True)):
        inner = index > 0
        backward = batch * (one.written + (1 + inner) * one.read) + (1 + inner) * one.parameters
        update = (5 if velocities else 3) * one.parameters
        operations = forward.operations * (2 + inner)
        costs.append(Cost(one.layer, operations, forward.moved + FLOAT * (backward + update)))
    return costs


def state_bytes(layers: Sequence[LayerNumbers], velocities: bool) -> int:
    """Weights, their gradients and ``velocities``."""
    return FLOAT * (3 if velocities else 2) * sum(one.parameters for one in layers)


class OneOfTwo(InProcess):
    """Tower 0 alone on its device, the other's activations as they arrive there: for counting on the meta device."""

    def __init__(self) -> None:
        super().__init__(1)

    def gather_channels(self, outputs: list[Tensor], layer: str) -> list[Tensor]:
        """[(N, C, ...)] -> [(N, 2C, ...)]."""
        return super().gather_channels([*outputs, torch.empty_like(outputs[0])], layer)[:1]


def describe_tower(recipe: Recipe, classes: int) -> list[LayerNumbers]:
    """What the device of one of the two towers holds and keeps, as ``describe`` for both."""
    return describe(recipe, classes, OneOfTwo())


def output_lines(recipe: Recipe, classes: int) -> Iterator[str]:
    """Each module's output for one image, in the words of Dive into Deep Learning's ``layer_summary``.

    Of the net of 2012 each layer's, of one tower, after pooling where that follows.
    """
    with torch.device("meta"):
        net = build_net(recipe, classes).eval()
        x = torch.empty(1, recipe.channels, recipe.crop_size, recipe.crop_size)
    if not isinstance(net, ReferenceNet):
        for one in describe(recipe, classes):
            for shape, what in zip(one.shapes, (one.layer, f"{one.layer}, pooled,"), strict=False):
                yield f"{what} output shape:\t {torch.Size((1, *shape))}"
        return
    for module in net.children():
        x = module(x)
        yield f"{type(module).__name__} output shape:\t {x.shape}"
