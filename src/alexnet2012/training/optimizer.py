"""The paper's stochastic gradient descent (P §5)."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

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
            weights = [w for w in group["params"] if w.grad is not None]
            if group["lr"] != 0 and weights:
                self.update(weights, group["lr"], group["momentum"], group["weight_decay"])
        return loss

    def update(self, weights: list[Tensor], lr: float, momentum: float, weight_decay: float) -> None:
        """One pass over the tensors that the compiled update takes, four for all others together."""
        others = []
        for weight in weights:
            if optimizer_native.takes(weight, self.velocity(weight)):
                optimizer_native.update(weight, self.velocity(weight), lr, momentum, weight_decay, self.found_inf)
            else:
                others.append(weight)
        if not others:
            return
        velocities = [self.velocity(w) for w in others]
        before = [] if self.found_inf is None else [velocity.clone() for velocity in velocities]
        torch._foreach_mul_(velocities, momentum)
        if weight_decay:
            torch._foreach_add_(velocities, others, alpha=-weight_decay * lr)
        gradients = [w.grad for w in others if w.grad is not None]
        torch._foreach_add_(velocities, gradients, alpha=-lr)
        torch._foreach_add_(others, self.changes(velocities, before))

    def changes(self, velocities: list[Tensor], before: list[Tensor]) -> list[Tensor]:
        """What to add to the weights: the new ``velocities``.

        Where ``found_inf`` is not 0, zeros, and the velocities are as ``before`` again. The device decides by itself.
        """
        if self.found_inf is None:
            return velocities
        changes = []
        for velocity, old in zip(velocities, before, strict=True):
            skip = self.found_inf.to(velocity.device, non_blocking=True) != 0
            changes.append(velocity.masked_fill(skip, 0))
            torch.where(skip, old, velocity, out=velocity)
        return changes

    def velocity(self, weight: Tensor) -> Tensor:
        """The velocity of ``weight``, zero before its first update."""
        state = self.state[weight]
        if "velocity" not in state:
            state["velocity"] = torch.zeros_like(weight)
        return state["velocity"]


OPTIMIZERS: dict[str, Callable[..., Optimizer]] = {
    "paper": PaperSGD,
    "sgd": functools.partial(torch.optim.SGD, fused=True),  # what is fused heeds ``found_inf``
}


def make_optimizer(net: nn.Module, recipe: Recipe) -> Optimizer:
    """The rule that ``recipe.optimizer`` names."""
    return OPTIMIZERS[recipe.optimizer](parameter_groups(net, recipe), lr=recipe.lr)


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
