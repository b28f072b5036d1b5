"""A net in numbers, layer by layer, as a training pass of one image goes through it."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from alexnet2012.network.alexnet import AlexNet
from alexnet2012.network.build import build_net
from alexnet2012.network.exchange import Exchange
from alexnet2012.network.reference.cuda_convnet import Local
from alexnet2012.recipe import CLASSES, Recipe


@dataclass
class LayerNumbers:
    """One layer. Shapes are of one tower, the rest of all towers together, on one device; of one image, forward."""

    layer: str
    shapes: tuple[tuple[int, ...], ...] = ()  # what one tower's layer puts out, then after pooling
    parameters: int = 0  # weights and biases
    multiply_adds: int = 0  # of the convolution or matrix
    read: int = 0  # values that the convolution or matrix reads
    written: int = 0  # values that it writes
    kept: int = 0  # bytes of float32 and others that the gradient needs, with the layer that first needs them
    exchanged: int = 0  # values that each tower sends the other before this layer


def describe(recipe: Recipe, classes: int = CLASSES, exchange: Exchange | None = None) -> list[LayerNumbers]:
    """Every layer of ``recipe``'s net in order; last ``logits``, the meeting of fc8's halves where there are towers.

    The net is on torch's meta device, so nothing is computed. Only the towers that ``exchange`` holds are
    counted.
    """
    with torch.device("meta"):
        net = build_net(recipe, classes, exchange=exchange)
        images = torch.empty(1, recipe.channels, recipe.crop_size, recipe.crop_size)
    observed = Observed(net)
    with saved_tensors_hooks(observed.keep, lambda saved: saved):
        net(images, step=0)
    layers = list(observed.layers.values())
    if recipe.towers > 1:
        for before, layer in itertools.pairwise(layers):
            layer.exchanged = torch.Size(before.shapes[-1]).numel() if recipe.reads_both_towers(layer.layer) else 0
        (half,) = layers[-1].shapes[0]
        layers.append(LayerNumbers("logits", ((classes,),), exchanged=half))
    return layers


@dataclass(frozen=True)
class InitialWeights:
    """What a layer starts with: over all towers, the shape of one tower's weights."""

    layer: str
    shape: tuple[int, ...]
    mean: float
    deviation: float
    bias_mean: float
    bias_deviation: float


@torch.no_grad()
def initial_weights(recipe: Recipe, classes: int, seed: int) -> list[InitialWeights]:
    """Every layer with weights as a run with ``seed`` draws them."""
    net, drawn = build_net(recipe, classes, seed), []
    for layer in net.layers:
        held = [getattr(tower, layer) for tower in net.held]
        weights, biases = (torch.cat([getattr(one, name).flatten() for one in held]) for name in ("weight", "bias"))
        numbers = [value.item() for of in (weights, biases) for value in torch.std_mean(of, correction=0)[::-1]]
        drawn.append(InitialWeights(layer, tuple(held[0].weight.shape), *numbers))
    return drawn


@dataclass
class Observed:
    """What hooks see of a pass through ``net``."""

    net: AlexNet
    layers: dict[str, LayerNumbers] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.current = self.net.layers[0]
        # By storage; a live tensor keeps its storage from being used again.
        self.kept: dict[int, Tensor] = {storage(weight): weight for weight in self.net.parameters()}
        for name, module in self.net.named_modules():
            layer = name.rpartition(".")[2]
            if layer in self.net.layers:
                module.register_forward_pre_hook(lambda module, inputs, layer=layer: self.begin(layer))
                module.register_forward_hook(self.computed)
            else:
                module.register_forward_hook(self.followed)

    def begin(self, layer: str) -> None:
        self.current = layer
        self.layers.setdefault(layer, LayerNumbers(layer))

    def computed(self, module: nn.Module, inputs: Any, output: Tensor) -> None:
        """The current layer's convolution or matrix, of one tower."""
        numbers = self.layers[self.current]
        numbers.shapes = numbers.shapes or (tuple(output.shape[1:]),)
        numbers.parameters += sum(weight.numel() for weight in module.parameters())
        places = 1 if isinstance(module, Local) else output[0, 0].numel()  # where each weight is used
        numbers.read += inputs[0][0].numel()
        numbers.written += output[0].numel()
        numbers.multiply_adds += module.get_parameter("weight").numel() * places

    def followed(self, module: nn.Module, inputs: Any, output: Tensor) -> None:
        """What comes behind it: a pool, or the whole row of a tower."""
        numbers, shape = self.layers[self.current], tuple(output.shape[1:])
        if len(shape) == 3 and shape not in numbers.shapes:
            numbers.shapes += (shape,)

    def keep(self, saved: Tensor) -> Tensor:
        """Autograd's hook for what it saves: counted once a storage."""
        if storage(saved) not in self.kept:
            self.kept[storage(saved)] = saved
            self.layers[self.current].kept += saved.untyped_storage().nbytes()
        return saved


def storage(tensor: Tensor) -> int:
    """A name for the memory of ``tensor``, also on the meta device."""
    return tensor.untyped_storage()._cdata
