"""The 2012 net: two towers that exchange activations before conv3, fc6, fc7 and fc8 (paper §3.5 and figure 2)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from alexnet2012.core.errors import InputError
from alexnet2012.core.random_streams import Purpose, philox
from alexnet2012.network.dropout import DropoutKey
from alexnet2012.network.exchange import Exchange, InProcess
from alexnet2012.network.tower import Tower
from alexnet2012.recipe import CLASSES, LAYERS, Recipe, paper_recipe


class AlexNet(nn.Module):
    """The net of ``recipe`` for ``classes`` classes, its weights drawn from ``seed``.

    Both towers live in this process, on the CPU until placed, unless ``exchange`` says which of them this process
    holds. ``towers[t]`` is tower t, None where another process holds it; nothing is held twice. There are no buffers.

    Raises InputError for fewer than two classes or a seed outside 0..2^63-1.
    """

    def __init__(
        self, recipe: Recipe | None = None, classes: int = CLASSES, seed: int = 0, exchange: Exchange | None = None
    ) -> None:
        super().__init__()
        self.recipe, self.classes, self.seed = recipe or paper_recipe(), classes, seed
        self.exchange = exchange or InProcess(self.recipe.towers)
        if classes < 2:
            raise InputError(f"{classes} class: a classifier needs at least two")
        if not 0 <= seed < 2**63:
            raise InputError(f"--seed {seed}: must be in 0..2^63-1")
        self.layers = self.recipe.layers
        self.passes = 0  # training passes so far: the dropout step of a caller who counts none
        self.towers = nn.ModuleList()
        for index in range(self.recipe.towers):
            with torch.device("meta"):
                tower = Tower(self.recipe, index, classes_of(classes, self.recipe.towers, index))
            self.towers.add_module(str(index), tower if index in self.exchange.towers else None)
        device = torch.get_default_device()
        self.to_empty(device=device).to(memory_format=torch.channels_last)  # the faster format, on the CPU too
        if device.type != "meta":
            self.draw_weights()

    @property
    def held(self) -> list[Tower]:
        """The towers that live in this process."""
        return [tower for tower in self.towers if isinstance(tower, Tower)]

    def place(self, devices: Sequence[torch.device | str]) -> AlexNet:
        """Put each tower held here on its device; one device serves all."""
        for tower, device in zip(self.held, list(devices) * len(self.held), strict=False):
            tower.to(device)
        return self

    def forward(
        self,
        images: Tensor,
        step: int | Tensor | None = None,
        first_row: int = 0,
        return_features: bool = False,
    ) -> Tensor | tuple[Tensor, dict[str, Tensor]]:
        """Logits (N, classes) of images (N, 3, 224, 224), on tower 0's device.

        Pixels are floats of scale 0..255 with the mean subtracted: N(0, 0.01) weights carry a signal of that size
        through eight layers, not one of unit variance. The input is 224, not 227: conv1's last window reads 3 pixels
        of zeros past the right and bottom edge (S layers-145).

        ``step`` and ``first_row`` place a training pass and its rows in the run, for the dropout masks; without
        ``step`` the net counts its own training passes. With ``return_features`` also each layer's output as the
        next layer reads it, after ReLU, LRN, pooling and dropout, both towers joined: conv1 (N, 96, 27, 27), conv2
        (N, 256, 13, 13), conv3 and conv4 (N, 384, 13, 13), conv5 (N, 256, 6, 6), fc6 and fc7 (N, 4096), fc8 the
        logits.
        """
        key = None
        if self.training:
            if step is None:
                step, self.passes = self.passes, self.passes + 1
            key = DropoutKey(self.seed, step, first_row)
        outputs = self.padded(images)
        features: dict[str, Tensor] = {}
        for layer in self.layers:
            if self.recipe.reads_both_towers(layer):
                outputs = self.exchange.gather_channels(outputs, layer)
            outputs = [tower(layer, x, key) for tower, x in zip(self.held, outputs, strict=True)]
            if return_features and layer != "fc8":
                features[layer] = self.exchange.gather_logits(
                    outputs, layer, self.recipe.towers * self.recipe.outputs(layer)
                )
        logits = self.exchange.gather_logits(outputs, "fc8", self.classes)
        return (logits, {**features, "fc8": logits}) if return_features else logits

    def padded(self, images: Tensor) -> list[Tensor]:
        """What each tower's conv1 reads, (N, 3, 227, 227) on its device; towers on one device share it."""
        edge, devices = self.recipe.conv1_edge, [tower.device for tower in self.held]
        copies = {}
        for device in dict.fromkeys(devices):
            padded = F.pad(images.to(device, non_blocking=True), (0, edge, 0, edge))
            copies[device] = padded.contiguous(memory_format=torch.channels_last)  # once for all towers there
        return [copies[device] for device in devices]

    @torch.no_grad()
    def draw_weights(self) -> None:
        """Draw every layer full size, N(0, std) (P §5), and keep the kernels of the towers held here.

        Each layer has a stream of its own, so no layout, and no change of another layer, moves it.
        """
        for layer in self.layers:
            index = LAYERS.index(layer)
            generator = np.random.Generator(philox(Purpose.WEIGHTS, self.seed, index))
            for t, tower in enumerate(self.towers):
                drawn = generator.standard_normal(self.weight_shape(layer, t), dtype=np.float32)
                if tower is not None:
                    getattr(tower, layer).weight.copy_(torch.from_numpy(drawn) * self.recipe.initial_std(layer))
                    getattr(tower, layer).bias.fill_(self.recipe.biases[index])

    def weight_shape(self, layer: str, tower: int) -> tuple[int, ...]:
        """Shape of ``layer``'s weights in ``tower``, whichever process holds it."""
        inputs = getattr(self.held[0], layer).weight.shape[1:]
        if layer == "fc8":
            return classes_of(self.classes, self.recipe.towers, tower), *inputs
        return self.recipe.outputs(layer), *inputs


def classes_of(classes: int, towers: int, tower: int) -> int:
    """The number of ``classes`` whose logits ``tower`` computes: tower 0 has the first ceil(classes / towers)."""
    return (classes + towers - 1 - tower) // towers
