"""cuda-convnet's nets for CIFAR-10: those of the paper's figure 1 (§3.1) and of its test of LRN (§3.3, footnote 6).

Their authors' published definitions (``example-layers/layers-*.cfg``, ``layer-params-*.cfg``, ``Methodology``; the pair
that differs in LRN alone at the mirror ``dnouri/cuda-convnet``, commit 3878e8f). Pixels of 0..255 less the mean image,
the paper's update rule, the biases' own learning rate, pools that round up, a weight decay for each layer.
"""

from __future__ import annotations

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from alexnet2012.core.errors import InputError
from alexnet2012.network.lrn.layer import InMapResponseNorm, LocalResponseNorm
from alexnet2012.network.reference import Definition
from alexnet2012.network.reference.d2l import Layers
from alexnet2012.network.reference.net import ACTIVATIONS
from alexnet2012.recipe import Recipe, pooled_side

max_pool = partial(nn.MaxPool2d, 3, 2, ceil_mode=True)
average_pool = partial(nn.AvgPool2d, 3, 2, ceil_mode=True)  # divides by the pixels that its window covers
CROPPED = {"crop_size": 24, "crop_offsets": 9, "reflect": 0.5}
WHOLE = {"crop_size": 32, "crop_offsets": 1, "reflect": 0.0}


class Local(nn.Module):
    """A convolution of size 3 and padding 1 whose weights and biases are each output pixel's own.

    (n, inputs, side, side) to (n, kernels, side, side). ``weight`` is (side * side, 9 * inputs, kernels), the rows of a
    window's pixels before its channels; ``bias`` (side * side, kernels).
    """

    def __init__(self, inputs: int, kernels: int, side: int) -> None:
        super().__init__()
        self.side = side
        self.weight = nn.Parameter(torch.empty(side**2, 9 * inputs, kernels))
        self.bias = nn.Parameter(torch.empty(side**2, kernels))

    def forward(self, x: Tensor) -> Tensor:
        """One matrix product a pixel: pixels come first, then images, so that each product reads dense memory."""
        side, images = self.side, x.shape[0]
        padded = F.pad(x.permute(2, 3, 0, 1), (0, 0, 0, 0, 1, 1, 1, 1))  # side + 2, side + 2, n, inputs
        shifted = [padded[top : top + side, left : left + side] for top in range(3) for left in range(3)]
        windows = torch.stack(shifted, 3).view(side**2, images, -1)
        out = torch.baddbmm(self.bias[:, None], windows, self.weight)  # side * side, n, kernels
        return out.view(side, side, images, -1).permute(2, 3, 0, 1)


def drawn(module: nn.Conv2d | nn.Linear | Local, deviation: float) -> nn.Module:
    """``module`` with weights of N(0, ``deviation``) and biases of 0, channels last: on the CPU the faster format."""
    nn.init.normal_(module.weight, std=deviation)
    nn.init.zeros_(module.bias)  # type: ignore[arg-type]
    return module.to(memory_format=torch.channels_last) if isinstance(module, nn.Conv2d) else module


def local_net(
    recipe: Recipe, classes: int, lrn_size: int = 0, lrn_after_pool1: bool = False, local3: int = 32
) -> Layers:
    """Two convolutions, two local layers of ``local3`` and 32 kernels a pixel, LRN where its size is not 0.

    Shapes of one image behind each line.
    """
    side, activation = pooled(recipe.crop_size, 2), ACTIVATIONS[recipe.activation]
    norm = partial(LocalResponseNorm, lrn_size, 0.001 / max(lrn_size, 1), 0.75, 1.0)
    yield "conv1", drawn(nn.Conv2d(3, 64, 5, padding=2), 1e-4)  # 64x24x24
    yield "activation1", activation()
    if lrn_size and not lrn_after_pool1:
        yield "norm1", norm()
    yield "pool1", max_pool()  # 64x12x12
    if lrn_size and lrn_after_pool1:
        yield "norm1", norm()
    yield "conv2", drawn(nn.Conv2d(64, 64, 5, padding=2), 0.01)
    yield "activation2", activation()
    if lrn_size:
        yield "norm2", norm()
    yield "pool2", max_pool()  # 64x6x6
    yield "local3", drawn(Local(64, local3, side), 0.04)
    yield "activation3", activation()
    yield "local4", drawn(Local(local3, 32, side), 0.04)  # 32x6x6
    yield "activation4", activation()
    yield "flat", nn.Flatten()
    yield "fc10", drawn(nn.Linear(32 * side**2, classes), 0.01)


def four_layers(recipe: Recipe, classes: int, in_map_norm: bool = False) -> Layers:
    """Three convolutions and the classifier; 18pct normalises within maps, 3x3 pixels, behind the first two pools."""
    activation, norm = ACTIVATIONS[recipe.activation], partial(InMapResponseNorm, 3, 5e-5 / 9, 0.75, 1.0)
    yield "conv1", drawn(nn.Conv2d(3, 32, 5, padding=2), 1e-4)  # 32x32x32
    yield "pool1", max_pool()  # 32x16x16
    yield "activation1", activation()
    if in_map_norm:
        yield "norm1", norm()
    yield "conv2", drawn(nn.Conv2d(32, 32, 5, padding=2), 0.01)
    yield "activation2", activation()
    yield "pool2", average_pool()  # 32x8x8
    if in_map_norm:
        yield "norm2", norm()
    yield "conv3", drawn(nn.Conv2d(32, 64, 5, padding=2), 0.01)
    yield "activation3", activation()
    yield "pool3", average_pool()  # 64x4x4
    yield "flat", nn.Flatten()
    yield "fc10", drawn(nn.Linear(64 * pooled(recipe.crop_size, 3) ** 2, classes), 0.01)


def pooled(side: int, pools: int) -> int:
    """The side of a map after so many pools of 3x3/2 that round up: 24 -> 12 -> 6."""
    first = side
    for _ in range(pools):
        side = pooled_side(side, 3, 2, rounds_up=True)
        if side < 1:
            raise InputError(f"--image-size {first}: leaves nothing behind a pool of 3x3; give a larger one")
    return side


def recipe_13pct(name: str = "conv-local-13pct") -> Recipe:
    """100 epochs on four fifths of the images, 40 on all, then two drops of the weights' rate, 10 epochs each.

    Its counterpart with LRN takes the same schedule here, so that the two differ in LRN alone; its authors trained it
    for 300 epochs on four fifths and 150 on all.
    """
    return cifar_recipe(
        name, (0.0, 0.0, 0.004, 0.004, 0.004), 160, bias_lr_held=True,
        drop_epochs=(140, 150), subset_epochs=100, subset=0.8, **CROPPED,
    )  # fmt: skip


def recipe_11pct() -> Recipe:
    """350 epochs on four fifths of the images, 150 on all, then two drops, 10 epochs each."""
    return cifar_recipe(
        "conv-local-11pct", (0.0, 0.0, 0.004, 0.004, 0.01), 520, bias_lr_held=True,
        drop_epochs=(500, 510), subset_epochs=350, subset=0.8, **CROPPED,
    )  # fmt: skip


def recipe_19pct() -> Recipe:
    """Whole images at one rate. 170 epochs are the published 20 minutes at the published 7 seconds an epoch."""
    return cifar_recipe("19pct", (0.004, 0.004, 0.004, 3.0), 170, drop_epochs=(), **WHOLE)


def recipe_18pct() -> Recipe:
    """Whole images; all rates drop after 120 epochs and again after 10 more."""
    return cifar_recipe("18pct", (0.004, 0.004, 0.004, 1.0), 140, drop_epochs=(120, 130), **WHOLE)


def cifar_recipe(name: str, weight_decays: tuple[float, ...], epochs: int, **others: object) -> Recipe:
    """What all have in common; the mean's central crop is subtracted from every crop."""
    return Recipe(
        name=name, net=name, towers=1, batch_size=128, epochs=epochs, schedule_epochs=epochs, lr=0.001, bias_lr=0.002,
        momentum=0.9, weight_decay=0.004, weight_decays=weight_decays, image_size=32, mean_central=True,
        color_noise=0.0, dropout=0.0, **others,  # type: ignore[arg-type]
    )  # fmt: skip


cuda_convnet = partial(Definition, schedule="steps", takes=("activation",))
CONV_LOCAL_13PCT = cuda_convnet(recipe_13pct, local_net)
CONV_LOCAL_13PCT_LRN = cuda_convnet(partial(recipe_13pct, "conv-local-13pct-lrn"), partial(local_net, lrn_size=5))
CONV_LOCAL_11PCT = cuda_convnet(recipe_11pct, partial(local_net, lrn_size=9, lrn_after_pool1=True, local3=64))
NET_19PCT = cuda_convnet(recipe_19pct, four_layers, schedule="constant")
NET_18PCT = cuda_convnet(recipe_18pct, partial(four_layers, in_map_norm=True))
