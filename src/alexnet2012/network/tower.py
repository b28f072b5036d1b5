"""One tower: half of every layer, on one device (P §3.5 and figure 2)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from alexnet2012.network.dropout import DropoutKey, dropout_mask
from alexnet2012.network.lrn.layer import InMapResponseNorm, LocalResponseNorm
from alexnet2012.recipe import CONVOLUTIONS, LAYERS, POOLED, POOLED_SIZE, Recipe


class Tower(nn.Module):
    """Tower ``index`` of the net: its own kernels and neurons, none of the other's.

    ``classes`` counts those that this tower's fc8 computes. ``forward`` runs one layer, so that the caller decides
    what each layer reads: this tower's own output, or the channels of both towers.
    """

    conv1: nn.Conv2d
    conv2: nn.Conv2d
    conv3: nn.Conv2d
    conv4: nn.Conv2d
    conv5: nn.Conv2d
    fc6: nn.Linear
    fc7: nn.Linear
    fc8: nn.Linear

    def __init__(self, recipe: Recipe, index: int, classes: int) -> None:
        super().__init__()
        self.recipe, self.index = recipe, index
        out_channels = 3
        for layer in recipe.layers:
            in_channels = out_channels * recipe.towers if recipe.reads_both_towers(layer) else out_channels
            out_channels = classes if layer == "fc8" else recipe.outputs(layer)
            if layer in CONVOLUTIONS:
                i = LAYERS.index(layer)
                stride = recipe.conv1_stride if layer == "conv1" else 1
                convolution = nn.Conv2d(in_channels, out_channels, recipe.kernel_sizes[i], stride, recipe.paddings[i])
                self.add_module(layer, convolution)
            else:
                pixels = POOLED_SIZE**2 if layer == "fc6" else 1
                self.add_module(layer, nn.Linear(in_channels * pixels, out_channels))
        alpha = recipe.lrn_alpha / recipe.lrn_size if recipe.lrn_mean else recipe.lrn_alpha
        self.lrn = LocalResponseNorm(recipe.lrn_size, alpha, recipe.lrn_beta, recipe.lrn_k)
        in_map_alpha = recipe.in_map_alpha / recipe.in_map_size**2
        self.in_map = InMapResponseNorm(recipe.in_map_size, in_map_alpha, recipe.in_map_beta, recipe.in_map_k)
        self.activation = getattr(torch, recipe.activation)

    @property
    def device(self) -> torch.device:
        return self.conv1.weight.device

    def forward(self, layer: str, x: Tensor, key: DropoutKey | None = None) -> Tensor:
        """A layer, what follows it, and the pools of the layers left out behind it, so that fc6 always reads 6x6.

        ``key`` picks the dropout masks of a training pass; None is a test pass.
        """
        x = self.layer_output(layer, x, key)
        for _ in set(POOLED) & set(self.recipe.left_out_behind(layer)):
            x = self.pool(x)
        return x

    def layer_output(self, layer: str, x: Tensor, key: DropoutKey | None) -> Tensor:
        """One row of the paper's table. Shapes are of the full width, per tower."""
        match layer:
            case "conv1":
                return self.after_conv1(self.conv1(x))  # 3x227x227 -> 48x55x55 -> 48x27x27
            case "conv2":
                return self.after_conv2(self.conv2(x))  # 48x27x27 -> 128x27x27 -> 128x13x13
            case "conv3":
                return self.activation(self.conv3(x))  # 256x13x13 -> 192x13x13
            case "conv4":
                return self.activation(self.conv4(x))  # 192x13x13 -> 192x13x13
            case "conv5":
                return self.pool(self.activation(self.conv5(x)))  # 192x13x13 -> 128x13x13 -> 128x6x6
            case "fc6":
                return self.dropout(self.activation(self.fc6(x.flatten(1))), layer, key)  # 256x6x6 = 9216 -> 2048
            case "fc7":
                return self.dropout(self.activation(self.fc7(x)), layer, key)  # 4096 -> 2048
            case "fc8":
                return self.fc8(x)  # 4096 -> 500
        raise ValueError(f"no layer {layer!r}")

    def after_conv1(self, x: Tensor) -> Tensor:
        """ReLU, LRN, pool (P §3.3, §3.4, §3.5); the authors' records put the ReLU last (S layers-145)."""
        if self.recipe.lrn1_before_relu:
            return self.activation(self.pool(self.lrn(x) if self.recipe.lrn else x))
        return self.pool(self.activate_and_normalize(x))

    def after_conv2(self, x: Tensor) -> Tensor:
        """ReLU, LRN, pool; the authors' records normalise once more, inside each map (S layers-145)."""
        x = self.activate_and_normalize(x)
        if self.recipe.in_map_norm and self.recipe.lrn:
            x = self.in_map(x)
        return self.pool(x)

    def activate_and_normalize(self, x: Tensor) -> Tensor:
        """The activation, then LRN; ReLU and LRN in one pass over memory."""
        if not self.recipe.lrn:
            return self.activation(x)
        return self.lrn(x, relu=True) if self.recipe.activation == "relu" else self.lrn(self.activation(x))

    def pool(self, x: Tensor) -> Tensor:
        """Overlapping max-pooling (P §3.4)."""
        return F.max_pool2d(x, self.recipe.pool_size, self.recipe.pool_stride, ceil_mode=self.recipe.pool_rounds_up)

    def dropout(self, x: Tensor, layer: str, key: DropoutKey | None) -> Tensor:
        """Training drops without rescaling; testing multiplies by the share that is kept (P §4.2)."""
        share = self.recipe.dropout
        if share == 0:
            return x
        if key is None:
            return x * (1 - share)
        return x * dropout_mask(key, self.index, layer, x.shape, share, x.device)
