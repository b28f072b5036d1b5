"""Learning curves of one or several runs, from their ``metrics.jsonl``."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from alexnet2012.core.errors import InputError
from alexnet2012.core.guarded_files import Damaged, is_count, is_file, read_bytes, read_json
from alexnet2012.data.prepare.source import OFFICIAL
from alexnet2012.recipe import result_2012
from alexnet2012.reporting.figures.style import COLORS, SMALL, cut, new_figure, styled
from alexnet2012.training.run_directory import LOG_BYTES, read_row


@dataclass(frozen=True)
class Curves:
    """The measurements of a run, by step."""

    name: str
    classes: int | None  # None if the run's directory does not record it
    training: list[dict[str, float]]  # rows with step, loss, batch_top1_error (percent) and lr
    validation: list[dict[str, float]]  # of each epoch: step, epoch, val_top1_error and val_top5_error (percent); of
    # newer runs also val_loss, train_loss (nats) and train_top1_error

    def has(self, name: str) -> bool:
        """True if every epoch has this value."""
        return bool(self.validation) and all(name in row for row in self.validation)

    def epochs(self, steps: Sequence[float]) -> NDArray[np.float64]:
        """Convert ``steps`` to epochs, whose lengths may differ. The run must have completed an epoch."""
        ends = [(0.0, 0.0), *((row["step"], row["epoch"]) for row in self.validation)]
        (before, first), (last, epoch) = ends[-2:]
        ends.append((2 * last - before, 2 * epoch - first))  # assume that the current epoch is as long as the last
        return np.interp(steps, [step for step, _ in ends], [epoch for _, epoch in ends])

    def drops(self) -> list[tuple[float, float]]:
        """(step, factor) of each drop of a learning rate that was constant before: a cosine schedule has none."""
        rows = self.training
        triples = zip(rows, rows[1:], rows[2:], strict=False)
        return [
            (now["step"], now["lr"] / was["lr"])
            for before, was, now in triples
            if now["lr"] < was["lr"] == before["lr"]
        ]


def read_curves(path: Path) -> Curves:
    """Read a run's ``metrics.jsonl``, and the number of classes from ``config.json`` beside it.

    A truncated last row, left by a killed run, is skipped. Raises InputError for any other damage.
    """
    try:
        lines = read_bytes(path, LOG_BYTES).splitlines()
        rows = []
        for number, line in enumerate(lines, 1):
            try:
                rows.append(row := read_row(line))
            except ValueError:
                if number < len(lines):
                    raise
            else:
                if "loss" in row and "train_top1_error" in row:  # the first version's name of a batch's error
                    row["batch_top1_error"] = row.pop("train_top1_error")
        training = [row for row in rows if {"step", "loss", "batch_top1_error", "lr"} <= row.keys()]
        validation = [row for row in rows if {"step", "epoch", "val_top1_error", "val_top5_error"} <= row.keys()]
    except (Damaged, ValueError) as error:
        raise InputError(f"{path}: not a run's metrics.jsonl ({error})") from error
    if not training:
        raise InputError(f"{path}: has no training rows yet")
    return Curves(path.resolve().parent.name, classes_of(path.parent / "config.json"), training, validation)


def classes_of(config: Path) -> int | None:
    classes = read_json(config, dict, "restore or remove it").get("classes") if is_file(config) else None
    if classes is not None and (not is_count(classes) or classes < 2):
        raise InputError(f"{config}: classes {classes!r} is not a number of classes; restore or remove it")
    return classes


@styled
def draw_curves(runs: Sequence[Curves]) -> Figure:
    """Draw loss above and errors below, one colour per run; marks ln(classes), drops and the results of 2012."""
    in_epochs = all(run.validation for run in runs)
    figure = new_figure(4.5 + 0.12 * len(runs), "constrained")
    figure.suptitle("Learning curves")
    above, below = figure.subplots(2, 1, sharex=True)
    drops: dict[float, float] = {}
    for run, color in zip(runs, itertools.cycle(COLORS), strict=False):
        placed: Callable[[Sequence[float]], NDArray[Any]] = run.epochs if in_epochs else np.array
        draw_run(above, below, run, placed, color)
        fallen = run.drops()
        drops |= dict(zip(placed([step for step, _ in fallen]), (factor for _, factor in fallen), strict=True))
    mark_drops(above, below, drops)
    plateaus = {math.log(run.classes): run.classes for run in runs if run.classes}
    for plateau, classes in plateaus.items():
        above.axhline(plateau, color="black", linewidth=0.6, linestyle="--")
        above.annotate(
            f"ln({classes}) = {plateau:.2f}, guessing", (1, plateau), (-2, 2),
            xycoords=("axes fraction", "data"), textcoords="offset points", ha="right", fontsize=SMALL,
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.5},
        )  # fmt: skip
    above.set(ylabel="loss, nats", ylim=(0, 1.15 * max([above.dataLim.ymax, *plateaus])))
    below.set(ylabel="error, %", ylim=(0, 100), xlabel="epochs" if in_epochs else "steps")
    if OFFICIAL["classes"] in plateaus.values():
        mark_2012(figure, above, below)
    legends(above, below, runs)
    return figure


def draw_run(
    above: Axes, below: Axes, run: Curves, placed: Callable[[Sequence[float]], NDArray[Any]], color: str
) -> None:
    """Draw one run's curves; ``placed`` converts steps to positions on the x axis.

    The training line joins the means of epochs or, in runs without them, smooths the values of batches.
    """
    steps, ends = (placed([row["step"] for row in rows]) for rows in (run.training, run.validation))
    for axes, name, line in (
        (above, "train_loss", "-"),
        (above, "val_loss", "--"),
        (below, "train_top1_error", "-"),
        (below, "val_top1_error", "--"),
        (below, "val_top5_error", ":"),
    ):
        if run.has(name):
            means = [row[name] for row in run.validation]
            axes.plot(ends, means, line, color=color, linewidth=0.8, marker="o" if len(ends) < 20 else "", markersize=2)
    for axes, name in ((above, "loss"), (below, "batch_top1_error")):
        values, alone = np.array([row[name] for row in run.training]), "o" if len(steps) == 1 else ""
        axes.plot(steps, values, color=color, linewidth=0.4, alpha=0.3)
        if not run.has("train_loss"):
            axes.plot(steps, smooth(values), color=color, linewidth=0.8, marker=alone, markersize=2)


def mark_drops(above: Axes, below: Axes, drops: dict[float, float]) -> None:
    """Mark drops of the learning rate; ``drops``: position on the x axis -> factor."""
    for place, factor in drops.items():
        for axes in (above, below):
            axes.axvline(place, color="gray", linewidth=0.5)
        below.annotate(
            f"learning rate x {factor:.2g}", (place, 1), (-2, -2), xycoords=("data", "axes fraction"),
            textcoords="offset points", rotation=90, ha="right", va="top", fontsize=SMALL, color="gray",
        )  # fmt: skip


def mark_2012(figure: Figure, above: Axes, below: Axes) -> None:
    """Mark the final loss and errors of one net in 2012 at the right edge, with a legend that names its record."""
    for crops, marker in ((10, "D"), (1, "s")):
        result = result_2012(1, crops)
        assert result and result.loss
        said = f"2012, {result.record}: {'ten crops' if crops > 1 else 'centre crop'}, {result.data}"
        for axes, values in ((above, [result.loss]), (below, [result.top1_error, result.top5_error])):
            edge: dict[str, Any] = {"transform": axes.get_yaxis_transform(), "clip_on": False, "zorder": 5}
            axes.plot(
                [1] * len(values), values, marker, color="black", fillstyle="none", markersize=4, label=said, **edge
            )
    figure.legend(*below.get_legend_handles_labels(), loc="outside lower center", frameon=False)


def smooth(values: NDArray[Any]) -> NDArray[Any]:
    """Moving average over the last 2 % of the rows, over fewer at the start."""
    window = max(1, len(values) // 50)
    sums = np.cumsum(np.concatenate([[0.0], values]))
    ends = np.arange(1, len(values) + 1)
    starts = np.maximum(ends - window, 0)
    return (sums[ends] - sums[starts]) / (ends - starts)


def legends(above: Axes, below: Axes, runs: Sequence[Curves]) -> None:
    """Add legends above the panels: the colours of the runs, and the line styles."""
    colors = [
        Line2D([], [], color=color, label=cut(run.name, 2.6, False))
        for run, color in zip(runs, itertools.cycle(COLORS), strict=False)
    ]
    lines: list[tuple[str, Any]] = [("training, top-1", "-"), ("validation, top-1", "--"), ("validation, top-5", ":")]
    styles = [Line2D([], [], color="black", linewidth=0.8, linestyle=line, label=name) for name, line in lines]
    for axes, handles, across in ((above, colors, 1), (below, styles, 3)):
        axes.legend(
            handles=handles, ncols=across, loc="lower left", bbox_to_anchor=(-0.02, 1.0), frameon=False,
            borderaxespad=0.0, handlelength=2.2, columnspacing=1.0,
        )  # fmt: skip
