"""When the rates drop (P §5, S layer-params-145)."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from torch.optim import Optimizer

from alexnet2012.recipe import Recipe

SCHEDULES = ("steps", "plateau", "constant")


class Schedule:
    """Sets the rates of ``optimizer``'s groups over a run of ``steps`` steps, from what the groups start with.

    ``steps``: divided by 10 after floor(25/90, 51/90, 79/90 of all steps) in recipe ``paper``, in ``source`` after
    24/91, 50/91, 78/91, and what the recipe adds for conv1.
    ``plateau``: divided by 10 when the validation error has not improved for some epochs, three times at most (P §5).
    ``constant``: never.
    """

    def __init__(
        self,
        kind: str,
        optimizer: Optimizer,
        recipe: Recipe,
        steps: int,
        step_of: Callable[[int], int] | None = None,
    ) -> None:
        """``step_of`` is the plan's; without it all epochs are of equal length."""
        self.kind, self.optimizer, self.recipe, self.steps = kind, optimizer, recipe, steps
        self.step_of = step_of or (lambda epoch: steps * epoch // recipe.schedule_epochs)
        self.base = [group["lr"] for group in optimizer.param_groups]
        self.best, self.epochs_since_best, self.plateau_drops = math.inf, 0, 0

    def before_step(self, step: int) -> None:
        """Set the rates of step ``step`` (from 0)."""
        for group, base in zip(self.optimizer.param_groups, self.base, strict=True):
            group["lr"] = base * self.warm_up(step) * self.recipe.drop_factor ** -self.drops(group["name"], step)
            if self.frozen(group["name"], step):
                group["lr"] = 0.0

    def after_epoch(self, top1_error: float) -> None:
        """Count an epoch that ended with this validation error, in percent."""
        self.epochs_since_best += 1
        if top1_error < self.best:
            self.best, self.epochs_since_best = top1_error, 0
        elif self.epochs_since_best >= self.recipe.plateau_patience and self.plateau_drops < self.recipe.plateau_drops:
            self.plateau_drops, self.epochs_since_best = self.plateau_drops + 1, 0

    def drops(self, group: str, step: int) -> int:
        """How often the rate of ``group`` has dropped by ``step``."""
        if self.kind == "constant" or (self.recipe.bias_lr_held and group.endswith("biases")):
            return 0
        if self.kind == "plateau":
            return self.plateau_drops
        conv1 = self.recipe.conv1_drop_epochs if group.startswith("conv1") else ()
        return sum(self.passed(epoch, step) for epoch in self.recipe.drop_epochs + conv1)

    def frozen(self, group: str, step: int) -> bool:
        """Whether ``group`` is no longer updated: conv1 at the end of the authors' run (S layer-params-145)."""
        epoch = self.recipe.conv1_frozen_epoch
        return self.kind == "steps" and group.startswith("conv1") and epoch is not None and self.passed(epoch, step)

    def passed(self, epoch: int, step: int) -> bool:
        """Whether ``step`` lies in ``epoch`` of the recipe or after it."""
        return step >= self.step_of(epoch - self.recipe.first_epoch)

    def warm_up(self, step: int) -> float:
        """Factor on the rates: from 0 to 1 over the warm-up, which 2012 did without."""
        steps = self.steps * self.recipe.warmup_epochs / self.recipe.epochs
        return min(1.0, (step + 1) / steps) if steps else 1.0

    def state_dict(self) -> dict[str, Any]:
        """What the next rates depend on beside the step."""
        return {"best": self.best, "epochs_since_best": self.epochs_since_best, "plateau_drops": self.plateau_drops}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.best, self.epochs_since_best, self.plateau_drops = (
            state["best"], state["epochs_since_best"], state["plateau_drops"]
        )  # fmt: skip
