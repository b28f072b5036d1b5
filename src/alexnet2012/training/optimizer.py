"""The paper's stochastic gradient descent (P §5)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, cast

import torch
from torch import Tensor, nn

from alexnet2012.recipe import Recipe
from alexnet2012.training import optimizer_native


class PaperSGD(torch.optim.Optimizer):
    """v <- momentum * v - weight_decay * lr * w - lr * gradient;  w <- w + v (P §5).

    The rate sits inside the velocity, so a drop of the rate reaches the step only as the velocity turns over;
    ``torch.optim.SGD`` multiplies the whole velocity by the new rate at once. A group whose rate is 0 is frozen:
    no update at all, its velocity untouched (S layer-params-145).

    Each parameter's state is its ``velocity``. Raises ValueError for negative settings.
    """

    found_inf: Tensor | None = None  # (), float32: where it is not 0, a step changes nothing

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[dict[str, Any]],
        lr: float,
        momentum: float = 0.9,
        weight_decay: float = 5e-4,
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

    def last_change(self, weight: Tensor) -> Tensor:
        """What the last step added to ``weight``."""
        return self.velocity(weight)


class TorchSGD(torch.optim.SGD):
    """``torch.optim.SGD``, with its momentum buffers by the name that checkpoints use."""

    found_inf: Tensor | None = None  # as above: what is fused heeds it

    def __init__(self, params: Iterable[dict[str, Any]], lr: float, momentum: float) -> None:
        super().__init__(params, lr, momentum, fused=True)

    def velocity(self, weight: Tensor) -> Tensor:
        """The momentum buffer of ``weight``: a sum of gradients, without the rate."""
        state = self.state[weight]
        if state.get("momentum_buffer") is None:
            state["momentum_buffer"] = torch.zeros_like(weight)
        return state["momentum_buffer"]

    def last_change(self, weight: Tensor) -> Tensor:
        """What the last step added to ``weight``, but for weight decay without momentum, which no reference net has."""
        group = next(group for group in self.param_groups if any(weight is one for one in group["params"]))
        return -group["lr"] * (self.velocity(weight) if group["momentum"] else weight.grad)


def make_optimizer(net: nn.Module, recipe: Recipe) -> PaperSGD:
    """The rule that ``recipe.optimizer`` names."""
    rule = PaperSGD if recipe.optimizer == "paper" else TorchSGD
    return cast(PaperSGD, rule(parameter_groups(net, recipe), recipe.lr, recipe.momentum))


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
