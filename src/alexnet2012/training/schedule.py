"""Learning rate schedules. ``SCHEDULES`` at the end names them: a new one is a class here with a line there.

2012 divided the learning rate by 10 three times (paper §5; 2012 source, layer-params-145).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from alexnet2012.recipe import Recipe


class Schedule:
    """A constant learning rate after the warm-up, and what the other schedules share.

    ``factor`` is all that training asks for. A schedule that listens to validation keeps what it remembers in
    ``state``: numbers by name, saved in every checkpoint and loaded on resuming.
    """

    def __init__(self, recipe: Recipe, steps: int, step_of: Callable[[int], int]) -> None:
        """``steps``: of the whole run. ``step_of``: the plan's first step of an epoch of the recipe."""
        self.recipe, self.steps, self.step_of = recipe, steps, step_of
        self.state: dict[str, Any] = {}

    def factor(self, group: str, step: int) -> float:
        """Factor on the initial learning rate of ``group`` in ``step`` (from 0); 0 freezes the group.

        Groups are those of ``parameter_groups``: "conv1 weights", "conv1 biases", "weights", "biases".
        """
        steps = self.steps * self.recipe.warmup_epochs / self.recipe.epochs
        warm_up = min(1.0, (step + 1) / steps) if steps else 1.0
        return warm_up * max(self.recipe.drop_factor ** -self.drops(group, step), self.least(group))

    def least(self, group: str) -> float:
        """The factor that makes the recipe's ``min_lr`` of the initial learning rate of ``group``."""
        initial = self.recipe.bias_lr if group.endswith("biases") else self.recipe.lr
        return self.recipe.min_lr / max(initial, self.recipe.min_lr) if initial else 0.0

    def drops(self, group: str, step: int) -> int:
        """How often the learning rate of ``group`` has dropped by ``step``; a checkpoint is kept before each drop."""
        return 0

    def observe(self, value: float) -> None:
        """Take note of what the recipe monitors, after an epoch: error in percent, or loss."""

    def holds(self, group: str) -> bool:
        """Whether the learning rate of ``group`` stays while that of the weights falls."""
        return self.recipe.bias_lr_held and group.endswith("biases")


class Steps(Schedule):
    """Drops at the recipe's ``drop_epochs``; conv1 also at ``conv1_drop_epochs``, until it is frozen."""

    def factor(self, group: str, step: int) -> float:
        frozen = self.recipe.conv1_frozen_epoch
        if frozen is not None and group.startswith("conv1") and self.passed(frozen, step):
            return 0.0
        return super().factor(group, step)

    def drops(self, group: str, step: int) -> int:
        conv1 = self.recipe.conv1_drop_epochs if group.startswith("conv1") else ()
        epochs = conv1 if self.holds(group) else self.recipe.drop_epochs + conv1  # 2012 source, layer-params-149
        return sum(self.passed(epoch, step) for epoch in epochs)

    def passed(self, epoch: int, step: int) -> bool:
        """Whether ``step`` lies in ``epoch`` of the recipe or after it."""
        return step >= self.step_of(epoch - self.recipe.first_epoch)


class Plateau(Schedule):
    """Drops when the validation error has not improved for some epochs, three times at most (paper §5)."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.state = waiting() | {"plateau_drops": 0}

    def drops(self, group: str, step: int) -> int:
        return 0 if self.holds(group) else self.state["plateau_drops"]

    def observe(self, value: float) -> None:
        state, recipe = self.state, self.recipe
        wait(state, value, recipe.min_delta)
        drops = state["plateau_drops"]
        lowest = drops >= recipe.plateau_drops or recipe.drop_factor**-drops <= self.least("weights")
        if state["epochs_since_best"] >= recipe.plateau_patience and not lowest:
            state.update(plateau_drops=drops + 1, epochs_since_best=0)


def waiting() -> dict[str, Any]:
    """The state of waiting for an improvement, before the first value."""
    return {"best": math.inf, "epochs_since_best": 0}


def wait(state: dict[str, Any], value: float, min_delta: float) -> None:
    """Count the epochs since ``value`` was last below the best by more than ``min_delta``."""
    state["epochs_since_best"] += 1
    if value < state["best"] - min_delta:
        state.update(best=value, epochs_since_best=0)


class Cosine(Schedule):
    """Falls along half a cosine, from the whole learning rate at the first step almost to 0 at the last.

    2012 had none (Loshchilov and Hutter, "SGDR", 2016).
    """

    def factor(self, group: str, step: int) -> float:
        cosine = 1.0 if self.holds(group) else (1 + math.cos(math.pi * step / self.steps)) / 2
        return max(cosine, self.least(group)) * super().factor(group, step)


SCHEDULES: dict[str, type[Schedule]] = {
    "steps": Steps,
    "plateau": Plateau,
    "constant": Schedule,
    "cosine": Cosine,
}
