"""The small net of the paper's figure 1: three convolutions and a classifier (P §3.1, §3.3)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from alexnet2012.network.response_norm import LocalResponseNorm

KERNELS = (32, 32, 64)  # cuda-convnet's layout for CIFAR-10
ACTIVATIONS = {"relu": nn.ReLU, "tanh": nn.Tanh}


class FourLayers(nn.Sequential):
    """Kernels of 5x5, an activation and 3x3/2 pooling, three times; then the classifier. No regularisation.

    Takes (n, channels, side, side) of unit variance, gives logits (n, classes). Weights are drawn from ``seed`` with
    variance 1/inputs, so that neither activation starts saturated (ours); biases are 0. With ``lrn`` the first two
    activations are normalised (P §3.3).
    """

    def __init__(self, channels: int, side: int, classes: int, activation: str, lrn: bool, seed: int) -> None:
        layers: list[nn.Module] = []
        for place, kernels in enumerate(KERNELS):
            layers += [nn.Conv2d(channels, kernels, 5, padding=2), ACTIVATIONS[activation]()]
            layers += [LocalResponseNorm()] if lrn and place < 2 else []
            layers.append(nn.MaxPool2d(3, 2, ceil_mode=True))
            channels, side = kernels, math.ceil((side - 3) / 2) + 1
        super().__init__(*layers, nn.Flatten(), nn.Linear(channels * side**2, classes))
        self.draw_weights(torch.Generator().manual_seed(seed))

    @torch.no_grad()
    def draw_weights(self, generator: torch.Generator) -> None:
        for layer in self:
            if isinstance(layer, nn.Conv2d | nn.Linear):
                drawn: Tensor = torch.randn(layer.weight.shape, generator=generator)
                layer.weight.copy_(drawn / layer.weight[0].numel() ** 0.5)
                nn.init.constant_(layer.bias, 0.0)  # type: ignore[arg-type]
