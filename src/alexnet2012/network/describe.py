"""A net in numbers, layer by layer: the 2012 net from its recipe alone (P §3.5), a reference net from its modules."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import nn

from alexnet2012.network.reference import ReferenceNet
from alexnet2012.network.reference.cuda_convnet import Local
from alexnet2012.network.response_norm import InMapResponseNorm, LocalResponseNorm
from alexnet2012.recipe import CONVOLUTIONS, LAYERS, Recipe


@dataclass(frozen=True)
class LayerNumbers:
    """One layer. Shapes are of one tower, counts of all towers together; of one image, forward."""

    layer: str
    shapes: tuple[tuple[int, ...], ...]  # what one tower's layer puts out, then after pooling
    parameters: int  # weights and biases
    multiply_adds: int  # of the convolution or matrix
    activations: int  # values that a training pass keeps: after activation, after LRN, after pooling
    crossing: int  # values that each tower sends the other before this layer


def describe(recipe: Recipe, classes: int = 1000) -> list[LayerNumbers]:
    """Every layer of ``recipe``'s net in order; last ``logits``, the meeting of fc8's halves where there are towers."""
    layers = list(numbers(recipe, classes))
    if recipe.towers > 1:
        (half,) = layers[-1].shapes[0]
        layers.append(LayerNumbers("logits", ((classes,),), 0, 0, 0, half))
    return layers


def numbers(recipe: Recipe, classes: int) -> Iterator[LayerNumbers]:
    towers, values, side = recipe.towers, 3, recipe.crop_size
    for layer in recipe.layers:
        meets = recipe.meets(layer)
        crossing = values * side**2 if meets else 0
        reads = values * towers if meets else values
        values = -(-classes // towers) if layer == "fc8" else recipe.outputs(layer)
        everywhere = classes if layer == "fc8" else values * towers  # kernels or neurons of all towers
        if layer in CONVOLUTIONS:
            shapes = convolved(recipe, layer, values, side)
            weights = everywhere * reads * recipe.kernel_sizes[LAYERS.index(layer)] ** 2
        else:
            shapes, weights = ((values,),), everywhere * reads * side**2
        area = pixels(shapes[0])
        side = shapes[-1][-1] if layer in CONVOLUTIONS else 1
        kept = area * (1 + normalised(recipe, layer)) + (pixels(shapes[-1]) if len(shapes) > 1 else 0)
        yield LayerNumbers(layer, shapes, weights + everywhere, weights * area, everywhere * kept, crossing)


def convolved(recipe: Recipe, layer: str, kernels: int, side: int) -> tuple[tuple[int, ...], ...]:
    """The shape (kernels, side, side) of a convolution's output, and after the pool behind it."""
    place = LAYERS.index(layer)
    stride, edge = (recipe.conv1_stride, recipe.conv1_edge) if layer == "conv1" else (1, 0)
    out = (side + edge + 2 * recipe.paddings[place] - recipe.kernel_sizes[place]) // stride + 1
    if layer not in ("conv1", "conv2", "conv5"):
        return ((kernels, out, out),)
    pooled = (out - recipe.pool_size) // recipe.pool_stride + 1
    return (kernels, out, out), (kernels, pooled, pooled)


def pixels(shape: tuple[int, ...]) -> int:
    """Of one map; a neuron is a map of one."""
    return shape[-1] ** 2 if len(shape) == 3 else 1


def normalised(recipe: Recipe, layer: str) -> int:
    """Response normalisations behind ``layer``."""
    if not recipe.lrn:
        return 0
    return {"conv1": 1, "conv2": 1 + recipe.in_map_norm}.get(layer, 0)


def describe_reference(recipe: Recipe, classes: int) -> list[LayerNumbers]:
    """The same of a reference net, as one image passes through it."""
    with torch.device("meta"):
        net = ReferenceNet(recipe, classes).eval()
        x = torch.empty(1, recipe.channels, recipe.crop_size, recipe.crop_size)
    found: list[LayerNumbers] = []
    for name, module in net.named_children():
        x = module.forward(x)
        shape = tuple(x.shape[1:])
        if name in net.layers:
            weights, biases = (module.get_parameter(kind).numel() for kind in ("weight", "bias"))
            places = 1 if isinstance(module, Local) else pixels(shape)
            found.append(LayerNumbers(name, (shape,), weights + biases, weights * places, x.numel(), 0))
        elif isinstance(module, nn.MaxPool2d | nn.AvgPool2d | LocalResponseNorm | InMapResponseNorm):
            before = found.pop()
            shapes = before.shapes if shape == before.shapes[-1] else (*before.shapes, shape)
            found.append(dataclasses.replace(before, shapes=shapes, activations=before.activations + x.numel()))
    return found
