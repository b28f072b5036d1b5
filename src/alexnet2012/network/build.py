"""The net that a recipe asks for, compiled, or computing in bfloat16."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any, cast

import torch
from torch import Tensor, nn

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


class Bfloat16Copy:
    """A float32 weight in bfloat16, of the same order in memory. It is fresh at the version of the weight it knows."""

    def __init__(self, weight: Tensor) -> None:
        self.values = torch.empty_like(weight, dtype=torch.bfloat16, requires_grad=False)
        self.version: int | None = None

    @torch.no_grad()
    def of(self, weight: Tensor) -> Tensor:
        """The values, copied again if ``weight`` has changed since."""
        if self.version != weight._version:
            self.values.copy_(weight)
            self.version = weight._version
        return self.values


class UseCopy(torch.autograd.Function):
    """Forward ``copy``; its gradient is that of ``weight``, converted only if ``weight.grad_dtype`` asks for it."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, copy: Tensor) -> Tensor:
        return copy.detach()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient, None


class InBfloat16(nn.Module):
    """``net``, compiled or not, with weights, activations and their gradients in bfloat16.

    Its parameters stay what they are: float32, in ``state_dict``, for the optimizer and for whoever calls ``net``
    itself. ``copies`` are derived from them, and never saved.
    """

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net
        self.copies = {weight: Bfloat16Copy(weight) for weight in net.parameters()}

    def forward(self, images: Tensor, *arguments: Any, **options: Any) -> Any:
        """What ``net`` returns, in bfloat16."""
        weights = {
            name: UseCopy.apply(weight, self.copies[weight].of(weight)) for name, weight in self.net.named_parameters()
        }
        return torch.func.functional_call(self.net, weights, (images.bfloat16(), *arguments), options)


@contextlib.contextmanager
def naming_failed_compilation() -> Iterator[None]:
    """Raises InputError for what torch cannot compile on this machine."""
    try:
        yield
    except torch._dynamo.exc.TorchDynamoException as error:
        reason = " ".join(str(error).strip().splitlines()[:2])  # who failed, and how
        raise InputError(f"--compile: torch cannot compile the net here ({reason}); leave it out") from error
