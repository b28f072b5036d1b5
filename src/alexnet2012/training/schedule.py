"""When the rates drop (P §5, S layer-params-145)."""

from __future__ import annotations

from functools import partial
from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, ReduceLROnPlateau

from alexnet2012.recipe import Recipe

SCHEDULES = ("steps", "plateau", "constant")


class Schedule:
    """The rates of ``optimizer``'s groups over a run of ``steps`` steps.

    ``steps``: divided by 10 after floor(25/90, 51/90, 79/90 of all steps), and what the recipe adds for conv1.
    ``plateau``: divided by 10 when the validation error stops improving, three times at most (P §5).
    ``constant``: never.
    """

    def __init__(self, kind: str, optimizer: Optimizer, recipe: Recipe, steps: int) -> None:
        self.kind = kind
        if kind == "plateau":
            floor = recipe.drop_factor**-recipe.plateau_drops
            self.torch: Any = ReduceLROnPlateau(
                optimizer,
                factor=1 / recipe.drop_factor,
                patience=recipe.plateau_patience,
                threshold=0.0,
                threshold_mode="abs",
                min_lr=[g["lr"] * (1 if held(g["name"], recipe) else floor) for g in optimizer.param_groups],
                eps=0.0,
            )
        else:
            self.torch = LambdaLR(
                optimizer,
                [partial(rate_factor, g["name"], recipe, steps, kind == "constant") for g in optimizer.param_groups],
            )

    def after_step(self) -> None:
        if self.kind != "plateau":
            self.torch.step()

    def after_epoch(self, top1_error: float) -> None:
        if self.kind == "plateau":
            self.torch.step(top1_error)

    def state_dict(self) -> dict[str, Any]:
        """All that decides the next rates."""
        return self.torch.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from ``state``, with the rates it left the optimizer at."""
        self.torch.load_state_dict(state)
        for group, rate in zip(self.torch.optimizer.param_groups, self.torch.get_last_lr(), strict=True):
            group["lr"] = rate


def held(group: str, recipe: Recipe) -> bool:
    """Whether the group's rate stays while the weights' falls."""
    return recipe.bias_lr_held and group.endswith("biases")


def rate_factor(group: str, recipe: Recipe, steps: int, constant: bool, step: int) -> float:
    """The factor on ``group``'s rate at ``step`` of ``steps``; epochs of the recipe are shares of all steps."""

    def passed(epoch: int) -> bool:
        return step >= steps * epoch // recipe.epochs

    if constant:
        return 1.0
    conv1 = group.startswith("conv1")
    if conv1 and recipe.conv1_frozen_epoch is not None and passed(recipe.conv1_frozen_epoch):
        return 0.0
    if held(group, recipe):
        return 1.0
    drops = recipe.drop_epochs + (recipe.conv1_drop_epochs if conv1 else ())
    return recipe.drop_factor ** -sum(map(passed, drops))
