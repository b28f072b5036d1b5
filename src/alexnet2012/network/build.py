"""The net that a recipe asks for, and its compiled form."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import cast

import torch
from torch import nn

from alexnet2012.core.errors import InputError
from alexnet2012.network.alexnet import AlexNet
from alexnet2012.network.exchange import Exchange
from alexnet2012.network.reference import ReferenceNet
from alexnet2012.recipe import Recipe


def build_net(recipe: Recipe, classes: int, seed: int = 0, exchange: Exchange | None = None) -> AlexNet:
    """The 2012 net, or a reference net, which offers all of it that training and evaluation use."""
    if recipe.net == "2012":
        return AlexNet(recipe, classes, seed, exchange)
    return cast(AlexNet, ReferenceNet(recipe, classes, seed))


def parameter_shapes(recipe: Recipe, classes: int) -> dict[str, tuple[int, ...]]:
    """The shape of every parameter of the whole net, by name, without allocating it.

    Raises RuntimeError where a reference net cannot read the recipe's images.
    """
    with torch.device("meta"):
        net = build_net(recipe, classes)
        if recipe.net != "2012":
            net.eval()(torch.empty(1, recipe.channels, recipe.crop_size, recipe.crop_size))
    return {name: tuple(parameter.shape) for name, parameter in net.named_parameters()}


def compile_net(net: nn.Module, device: torch.device) -> nn.Module:
    """``net`` compiled for batches of one size: one graph, or where ranks exchange activations one a layer.

    On CUDA the graphs are replayed as CUDA graphs. The compilation itself comes with the first step, which has to be
    a tensor: a number would be compiled in.
    """
    mode = "reduce-overhead" if device.type == "cuda" else None
    return cast(nn.Module, torch.compile(net, dynamic=False, mode=mode))


@contextlib.contextmanager
def naming_failed_compilation() -> Iterator[None]:
    """Raises InputError for what torch cannot compile on this machine."""
    try:
        yield
    except torch._dynamo.exc.TorchDynamoException as error:
        reason = " ".join(str(error).strip().splitlines()[:2])  # who failed, and how
        raise InputError(f"--compile: torch cannot compile the net here ({reason}); leave it out") from error
