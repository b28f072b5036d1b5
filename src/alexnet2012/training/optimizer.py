"""The paper's stochastic gradient descent (P §5)."""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Callable, Iterable, Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from alexnet2012.network.build import Bfloat16Copy, InBfloat16
from alexnet2012.recipe import Recipe
from alexnet2012.training import optimizer_native


class PaperSGD(Optimizer):
    """v <- momentum * v - weight_decay * lr * w - lr * gradient;  w <- w + v (P §5).

    The learning rate is inside the velocity, so a drop reaches the step only as the velocity turns over;
    ``torch.optim.SGD`` multiplies the whole velocity by the new one at once. A group with lr 0 is frozen:
    no update at all, its velocity untouched (S layer-params-145).

    Each parameter's state is its ``velocity``. Raises ValueError for negative settings.
    """

    found_inf: Tensor | None = None  # (), float32: where it is not 0, a step changes nothing
    copies: Mapping[Any, Bfloat16Copy] = {}  # of weights, written in the same pass

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[dict[str, Any]],
        lr: float,
        momentum: float = Recipe.momentum,
        weight_decay: float = Recipe.weight_decay,
    ) -> None:
        if not all(number >= 0 for number in (lr, momentum, weight_decay)):
            raise ValueError(f"lr {lr}, momentum {momentum} and weight_decay {weight_decay} must not be negative")
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Update every parameter that has a gradient; returns what ``closure`` returns."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for weight in group["params"]:
                if group["lr"] != 0 and weight.grad is not None:
                    self.update(weight, group["lr"], group["momentum"], group["weight_decay"])
        return loss

    def update(self, weight: Tensor, lr: float, momentum: float, weight_decay: float) -> None:
        """One pass over memory where the device has a kernel for it and the tensors suit it."""
        velocity, skip = self.velocity(weight), self.found_inf
        skip = None if skip is None else skip.to(weight.device, non_blocking=True)
        fused = fused_update(weight.device.type)
        if fused and suits(weight, velocity):
            copy = self.copies.get(weight)
            fresh = copy is not None and copy.version == weight._version  # else a skipped step leaves it out of date
            fused(weight, velocity, copy and copy.values, (momentum, weight_decay * lr, lr), skip)
            torch.autograd.graph.increment_version([weight, velocity])
            if copy and fresh:
                copy.version = weight._version
            return
        assert weight.grad is not None
        change = momentum * velocity - weight_decay * lr * weight - lr * weight.grad.to(weight.dtype)
        velocity.copy_(change if skip is None else torch.where(skip != 0, velocity, change))
        weight.add_(change if skip is None else change.masked_fill_(skip != 0, 0))

    def velocity(self, weight: Tensor) -> Tensor:
        """The velocity of ``weight``, zero before its first update."""
        state = self.state[weight]
        if "velocity" not in state:
            state["velocity"] = torch.zeros_like(weight)
        return state["velocity"]


@functools.cache
def fused_update(device_type: str) -> Callable[..., None] | None:
    """What updates a tensor on the device in one pass; None where torch's operations do it in several."""
    if device_type == "cpu" and optimizer_native.library():
        return optimizer_native.update
    if device_type == "cuda" and importlib.util.find_spec("triton"):
        from alexnet2012.training import optimizer_triton

        return optimizer_triton.update
    return None


def update_kernel(optimizer: Optimizer, device: torch.device) -> str:
    """The name of what updates float32 weights on ``device``."""
    own = isinstance(optimizer, PaperSGD) and fused_update(device.type)
    return {"cpu": "inline C++", "cuda": "Triton"}[device.type] if own else "torch"


def suits(weight: Tensor, velocity: Tensor) -> bool:
    """Whether weight and velocity are float32 and the gradient that or bfloat16, dense, in memory in the same order."""
    gradient = weight.grad
    return (
        gradient is not None
        and weight.dtype == velocity.dtype == torch.float32
        and gradient.dtype in (torch.float32, torch.bfloat16)
        and weight.stride() == velocity.stride() == gradient.stride()
        and (weight.is_contiguous() or weight.is_contiguous(memory_format=torch.channels_last))
    )


OPTIMIZERS: dict[str, Callable[..., Optimizer]] = {
    "paper": PaperSGD,
    "sgd": functools.partial(torch.optim.SGD, fused=True),  # what is fused heeds ``found_inf``
}


def make_optimizer(net: nn.Module, recipe: Recipe) -> Optimizer:
    """The rule that ``recipe.optimizer`` names."""
    return OPTIMIZERS[recipe.optimizer](parameter_groups(net, recipe), lr=recipe.lr)


def in_bfloat16(net: nn.Module, optimizer: Optimizer, replicas: int = 1) -> InBfloat16:
    """``net``, compiled or not, in bfloat16, and ``optimizer`` updating its float32 parameters.

    The paper's rule takes gradients in bfloat16, unless replicas add theirs in float32; for other rules torch converts.
    """
    computing = InBfloat16(net)
    if isinstance(optimizer, PaperSGD):
        optimizer.copies = computing.copies
        for weight in computing.copies if replicas == 1 else ():
            weight.grad_dtype = torch.bfloat16
    else:  # torch's fused rules do not count their changes, by which a copy knows that it is old
        optimizer.register_step_post_hook(lambda *_: torch.autograd.graph.increment_version(list(computing.copies)))
    return computing


def own_state(optimizer: Optimizer, weight: Tensor) -> dict[str, Tensor]:
    """State of ``weight`` that has its shape, in float32, by kind: "velocity", or Adam's "exp_avg" and "exp_avg_sq"."""
    return {
        kind: value
        for kind, value in optimizer.state.get(weight, {}).items()
        if isinstance(value, Tensor) and value.shape == weight.shape and value.dtype == torch.float32
    }


def parameter_groups(net: nn.Module, recipe: Recipe) -> list[dict[str, Any]]:
    """Groups of the recipe's rates and decays: weights before biases, conv1 apart from the layers behind it.

    Biases have no weight decay (S layer-params-145). Group names: ``conv1 weights``, ``conv1 biases``, ``weights``,
    ``biases``; several groups have the same name where layers have decays of their own.
    """
    decays = dict(zip(cast(Any, net).layers, recipe.weight_decays, strict=True)) if recipe.weight_decays else {}
    groups: dict[tuple[str, float], dict[str, Any]] = {}
    for name, parameter in net.named_parameters():
        bias = name.endswith(".bias")
        label = ("conv1 " if ".conv1." in name else "") + ("biases" if bias else "weights")
        layer = name.rpartition(".")[0].rpartition(".")[2]
        decay = 0.0 if bias else decays.get(layer, recipe.weight_decay)
        lr = recipe.bias_lr if bias else recipe.lr
        settings = {"lr": lr, "initial_lr": lr, "weight_decay": decay, "momentum": recipe.momentum}
        group = groups.setdefault((label, decay), {"name": label, "params": [], **settings})
        group["params"].append(parameter)
    return list(groups.values())
