"""Paper figure 1: the training error of a four-layer net on CIFAR-10, with ReLUs and with tanh."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from alexnet2012.core.errors import InputError
from alexnet2012.core.guarded_files import Damaged, read_json
from alexnet2012.recipe import FIGURE_1_ERROR as GOAL
from alexnet2012.recipe import FIGURE_1_RATIO
from alexnet2012.reporting.figures.curves import read_curves
from alexnet2012.reporting.figures.style import COLORS, SMALL, new_figure, styled
from alexnet2012.training.run_directory import current_settings

NAMES = {"relu": "ReLU", "tanh": "tanh"}
MAY_DIFFER = {"seed", "recipe.activation", "recipe.lr", "recipe.bias_lr", "recipe.epochs"}


@dataclass(frozen=True)
class LearningCurve:
    """The training errors of one run."""

    activation: str
    lr: float
    seed: int
    errors: list[float]  # percent of the training images, in each epoch while training

    @property
    def reached(self) -> float:
        """Epochs until the training error reached ``GOAL``, interpolated between epochs; inf if it never did."""
        after = next((epoch for epoch, error in enumerate(self.errors, start=1) if error <= GOAL), None)
        if after is None:
            return math.inf
        if after == 1:
            return 1.0
        before, then = self.errors[after - 2 : after]
        return after - (GOAL - then) / (before - then)


@dataclass(frozen=True)
class Best:
    """The runs of an activation, one per seed, at the learning rate that reaches ``GOAL`` first."""

    runs: list[LearningCurve]

    @property
    def reached(self) -> float:
        """Epochs until ``GOAL``, the mean over the seeds."""
        return mean(run.reached for run in self.runs)

    @property
    def epochs(self) -> int:
        """Number of epochs of the shortest run."""
        return min(len(run.errors) for run in self.runs)

    @property
    def curve(self) -> NDArray[np.float64]:
        """Errors (epochs,), the mean over the seeds."""
        return np.mean([run.errors[: self.epochs] for run in self.runs], 0)

    @property
    def error_at_end(self) -> float:
        """Percent; inf if a run diverged in its first epoch."""
        return float(self.curve[-1]) if self.epochs else math.inf


def read_learning_curves(runs: Sequence[Path]) -> list[LearningCurve]:
    """The training errors of runs of one net on the same data.

    Raises InputError, naming the directory, if it is not a run, if it was written by a version that recorded no
    training errors, or if it differs in more than activation, learning rate, seed and number of epochs.
    """
    first, learnings = read_settings(runs[0]), []
    for run in runs:
        own = read_settings(run)
        for name in sorted((own.keys() | first.keys()) - MAY_DIFFER):
            if own.get(name) != first.get(name):
                raise InputError(f"{run}: its {name} is {own.get(name)}, in {runs[0]} {first.get(name)}")
        epochs = read_curves(run / "metrics.jsonl").validation
        errors = [row["train_top1_error"] for row in epochs if "train_top1_error" in row]
        if len(errors) < len(epochs):
            raise InputError(f"{run}: has epochs without a training error; train it again with this version")
        learnings.append(LearningCurve(own["recipe.activation"], own["recipe.lr"], own["seed"], errors))
    return learnings


def read_settings(run: Path) -> dict[str, Any]:
    """A run's settings, with valid activation, learning rate and seed."""
    try:
        settings = current_settings(read_json(run / "config.json", {"settings": dict})["settings"])
        if settings["recipe.activation"] not in NAMES or settings["recipe.lr"] <= 0 or settings["seed"] < 0:
            raise ValueError("impossible settings")
    except (Damaged, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{run}: not a run with an activation in its config.json ({error})") from error
    return settings


def best_learning_rates(learnings: Sequence[LearningCurve]) -> dict[str, Best]:
    """The best learning rate of each activation: the first to reach ``GOAL``, or the nearest to it at the end.

    Of two runs that differ only in their number of epochs the longer is used: the learning rate is constant. Raises
    InputError for an activation without a completed epoch.
    """
    best, longest = {}, {}
    for one in sorted(learnings, key=lambda one: len(one.errors)):
        longest[one.activation, one.lr, one.seed] = one
    for activation in NAMES:
        own = [one for one in longest.values() if one.activation == activation]
        if not any(one.errors for one in own):
            raise InputError(
                f"--figure 1: no run of {activation} has completed an epoch; give runs of both activations"
            )
        of_rates = [Best([one for one in own if one.lr == lr]) for lr in sorted({one.lr for one in own})]
        best[activation] = min(of_rates, key=lambda rate: (rate.reached, rate.error_at_end))
    return best


def summary(best: dict[str, Best], learnings: Sequence[LearningCurve]) -> dict[str, Any]:
    """The contents of ``figure1.json``, None for what was not reached."""
    found: dict[str, Any] = {"goal_percent": GOAL, "ratio": finite(ratio(best)), "ratio_2012": FIGURE_1_RATIO}
    for activation, rate in best.items():
        found[activation] = {
            "lr": rate.runs[0].lr,
            "epochs": finite(rate.reached),
            "epochs_by_seed": {str(run.seed): finite(run.reached) for run in rate.runs},
            "error_at_end": rate.error_at_end,
            "grid": sorted({one.lr for one in learnings if one.activation == activation}),
        }
    return found


def ratio(best: dict[str, Best]) -> float:
    """Epochs of tanh over epochs of ReLU: NaN if ReLU did not reach the goal, inf if only tanh did not."""
    relu, tanh = best["relu"].reached, best["tanh"].reached
    return tanh / relu if math.isfinite(relu) else math.nan


def finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def claims(best: dict[str, Best]) -> list[str]:
    """The result in words."""
    lines = [f"{NAMES[activation]}: {GOAL:g} % {describe_best(rate)}" for activation, rate in best.items()]
    relu, tanh = best["relu"], best["tanh"]
    if math.isfinite(ratio(best)):
        lines.append(f"ReLU is {ratio(best):.1f} times as fast (2012: {FIGURE_1_RATIO})")
    elif math.isfinite(relu.reached):
        lines.append(f"ReLU is more than {tanh.epochs / relu.reached:.1f} times as fast (2012: {FIGURE_1_RATIO})")
    return lines


def describe_best(rate: Best) -> str:
    seeds = f"learning rate {rate.runs[0].lr:g}, n = {len(rate.runs)} seed{'s' * (len(rate.runs) > 1)}"
    if not math.isfinite(rate.reached):
        return f"not reached in {rate.epochs} epochs ({seeds})"
    each = [run.reached for run in rate.runs]
    spread = f", {min(each):.2f} to {max(each):.2f}" if len(each) > 1 else ""
    return f"after {rate.reached:.2f} epochs ({seeds}{spread})"


@styled
def draw_figure1(best: dict[str, Best], settings: dict[str, Any]) -> Figure:
    """Draw training error against epochs, with a thin line per seed, a dotted goal, and the result in words below.

    ``settings`` are those that the runs have in common.
    """
    figure = new_figure(3.0, "constrained")
    axes = figure.subplots()
    for (activation, rate), color, line in zip(best.items(), COLORS, ("-", "--"), strict=False):
        style: dict[str, Any] = {"color": color, "linestyle": line}
        for run in rate.runs:
            axes.plot(range(1, len(run.errors) + 1), run.errors, **style, linewidth=0.4, alpha=0.6)
        label = f"{NAMES[activation]}, learning rate {rate.runs[0].lr:g}"
        axes.plot(range(1, rate.epochs + 1), rate.curve, **style, linewidth=1.1, label=label)
    axes.axhline(GOAL, color="black", linestyle=":", linewidth=0.6)
    axes.set(xlabel="epochs", ylabel="training error, %", ylim=(0, None), xlim=(0, None))
    regularized = settings["recipe.weight_decay"] or settings["recipe.weight_decays"] or settings["recipe.reflect"]
    without = "" if regularized or settings["recipe.crop_offsets"] > 1 else ", no regularization"  # as in 2012
    axes.set_title(f"{settings['recipe']} on {Path(settings['data']).name}{without}; thin: each seed")
    axes.legend(frameon=False)
    figure.supxlabel("\n".join(claims(best)), fontsize=SMALL)
    return figure
