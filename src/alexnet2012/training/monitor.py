"""Monitors of training: values that are not finite, sizes of gradients and updates, dead units, activations."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from alexnet2012.distributed.collectives import reduce
from alexnet2012.distributed.layout import Layout
from alexnet2012.evaluation.evaluate import evaluating
from alexnet2012.network import AlexNet


@torch.no_grad()
def broken_layers(net: AlexNet, layout: Layout, value: Callable[[Tensor], Any]) -> Tensor:
    """(layers,) on the first device: above 0 where the ``value`` of a weight or bias held here is not finite.

    A sum is finite only if all its terms are; one that float32 cannot hold counts as not finite too.
    """
    broken = torch.zeros(len(net.layers), device=layout.devices[0])
    for tower in net.held:
        sums = [torch.stack([value(w).sum() for w in getattr(tower, layer).parameters()]).sum() for layer in net.layers]
        broken += torch.stack(sums).isfinite().logical_not().to(broken.device, non_blocking=True)
    return broken


@torch.no_grad()
def layer_weights(net: AlexNet) -> list[Tensor]:
    """Copies of the weights held here: of a tower's layers in order, tower by tower."""
    return [getattr(tower, layer).weight.detach().clone() for tower in net.held for layer in net.layers]


@torch.no_grad()
def layer_sizes(net: AlexNet, before: list[Tensor], layout: Layout) -> dict[str, float]:
    """Norm of each layer's gradient, and of the update of its weights ``before`` over theirs; both towers together."""
    layers = net.layers
    squares = torch.zeros(len(layers), 3, device=layout.devices[0])
    weights = [getattr(tower, layer).weight for tower in net.held for layer in layers]
    for row, (weight, old) in enumerate(zip(weights, before, strict=True)):
        sizes = [weight.grad.norm(dtype=weight.dtype), (weight - old).norm(), weight.norm()]
        squares[row % len(layers)] += torch.stack(sizes).square().to(squares.device)
    gradient, update, weight = reduce(layout, squares, "pair").sqrt().unbind(1)
    ratios = (update / weight).tolist()
    names = [f"gradient norm/{layer}" for layer in layers] + [f"update to weights/{layer}" for layer in layers]
    return dict(zip(names, gradient.tolist() + ratios, strict=True))


def dead_units(net: AlexNet, images: Tensor) -> dict[str, float]:
    """Share (0..1) of each layer's kernels or neurons whose ReLU never fires on ``images``, without dropout."""
    with evaluating(net):
        _, features = net(images, return_features=True)
    return {
        f"dead units/{layer}": (activation.transpose(0, 1).flatten(1).amax(1) <= 0).float().mean().item()
        for layer, activation in features.items()
        if layer != net.layers[-1]
    }


@torch.no_grad()
def explain_divergence(net: AlexNet, images: Tensor, step: int, first_row: int, layout: Layout) -> str:
    """The largest activation of each layer over all ranks, and the first layer with one that is not finite."""
    _, features = net(images, step, first_row, return_features=True)
    outputs = [features[layer] for layer in net.layers]
    largest = torch.stack([x.abs().max() if len(x) else x.new_zeros(()) for x in outputs])
    over_ranks = reduce(layout, largest.nan_to_num(torch.inf, torch.inf).float(), largest=True).tolist()
    by_layer = dict(zip(net.layers, over_ranks, strict=True))
    sizes = ", ".join(f"{layer} {size:.3g}" for layer, size in by_layer.items())
    broken = [layer for layer, size in by_layer.items() if size == float("inf")]
    return f"largest activations {sizes}" + (f"; first not finite in {broken[0]}" if broken else "")
