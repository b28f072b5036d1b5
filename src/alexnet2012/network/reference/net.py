"""What the trainer and the evaluation ask of a net, offered by any sequence of modules."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor, nn

from alexnet2012.core.random_streams import Purpose, torch_seed
from alexnet2012.network.dropout import DropoutKey, dropout_mask
from alexnet2012.network.reference import NETS
from alexnet2012.recipe import Recipe

ACTIVATIONS = {"relu": nn.ReLU, "tanh": nn.Tanh, "sigmoid": nn.Sigmoid}


class ReferenceNet(nn.Module):
    """The net ``recipe.net`` of ``NETS``, one tower, its weights drawn from ``seed``.

    Takes images (n, channels, size, size) as its recipe says, gives logits (n, classes).
    """

    def __init__(self, recipe: Recipe, classes: int = 10, seed: int = 0) -> None:
        super().__init__()
        self.recipe, self.classes, self.seed = recipe, classes, seed
        self.passes = 0  # training passes so far, as in AlexNet
        definition = NETS[recipe.net]
        definition.refuse(recipe)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(torch_seed(Purpose.REFERENCE_WEIGHTS, seed))
            for name, module in definition.layers(recipe, classes):
                self.add_module(name, module)
            if "init" in definition.takes:
                self.apply(partial(initialize, init=recipe.init))
        named = self.named_children()
        self.layers = tuple(name for name, module in named if any(True for _ in module.parameters()))

    @property
    def held(self) -> list[ReferenceNet]:
        """The towers that live in this process: itself."""
        return [self]

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device

    def place(self, devices: Sequence[torch.device | str]) -> ReferenceNet:
        """Put it on the first of ``devices``."""
        return self.to(devices[0])

    def forward(
        self, images: Tensor, step: int | Tensor | None = None, first_row: int = 0, return_features: bool = False
    ) -> Tensor | tuple[Tensor, dict[str, Tensor]]:
        """As ``AlexNet.forward``."""
        key = None
        if self.training:
            if step is None:
                step, self.passes = self.passes, self.passes + 1
            key = DropoutKey(self.seed, step, first_row)
        x, layer, features = images.to(self.device), "", {}
        for name, module in self.named_children():
            x = drop(x, key, layer, module.p) if isinstance(module, nn.Dropout) else module(x)
            layer = name if name in self.layers else layer
            features[layer] = x
        return (x, features) if return_features else x


def initialize(module: nn.Module, init: str) -> None:
    """Draw the weights of a layer. Biases stay as PyTorch draws them, except with ``normal``, which is the paper's."""
    if not isinstance(module, nn.Conv2d | nn.Linear) or init == "default":
        return
    if init == "xavier":
        nn.init.xavier_uniform_(module.weight)
    elif init == "he":
        nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
    else:
        nn.init.normal_(module.weight, std=Recipe.weight_std[0])
        nn.init.zeros_(module.bias)  # type: ignore[arg-type]


def drop(x: Tensor, key: DropoutKey | None, layer: str, share: float) -> Tensor:
    """Dropout of (rows, units) behind ``layer``, rescaled in training; the masks are those of the 2012 net.

    ``nn.Dropout`` draws its masks from a stream that neither layouts nor resumed runs share.
    """
    if key is None:
        return x
    return x * dropout_mask(key, 0, layer, x.shape, share, x.device) / (1 - share)
