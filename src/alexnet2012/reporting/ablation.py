"""The paper's differences beside ours: as JSON, as a Markdown table, as a plot."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from alexnet2012.ablation.study import ALL, BASE, CROPS, Run
from alexnet2012.recipe import DIFFERENCES_2012, RESULTS_2012
from alexnet2012.reporting.figures.style import COLORS, new_figure, styled

NOT_MEASURED = "not measured"
SHOWN = ("batch_size", "epochs", "lr", "width")  # fields of the recipe named in the title
Errors = dict[int, tuple[float, float]]  # by seed: top-1 and top-5 error, percent


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds and its standard error; None where one seed cannot tell."""

    mean: float
    standard_error: float | None

    @classmethod
    def of(cls, values: Sequence[float]) -> Estimate:
        count = len(values)
        return cls(statistics.mean(values), statistics.stdev(values) / math.sqrt(count) if count > 1 else None)

    def text(self, form: str) -> str:
        spread = "" if self.standard_error is None else f" ± {self.standard_error:.2f}"
        return f"{self.mean:{form}}{spread}"


@dataclass(frozen=True)
class Row:
    """A variant: its errors, and how much they are above those of the base net of the same seed, in points."""

    variant: str
    errors: Errors
    differences: Errors

    def error(self, top: int) -> Estimate | None:
        """``top`` 0 is top-1 error, 1 is top-5."""
        return estimate(self.errors, top)

    def difference(self, top: int) -> Estimate | None:
        return estimate(self.differences, top)


def estimate(errors: Errors, top: int) -> Estimate | None:
    return Estimate.of([of_seed[top] for of_seed in errors.values()]) if errors else None


def make_rows(errors: dict[str, Errors]) -> list[Row]:
    """A row for the base net and every variant, measured or not."""
    base = errors.get(BASE, {})
    rows = []
    for variant in ALL:
        own = errors.get(variant, {})
        paired = sorted(own.keys() & base.keys()) if variant != BASE else []
        differences = {seed: (own[seed][0] - base[seed][0], own[seed][1] - base[seed][1]) for seed in paired}
        rows.append(Row(variant, own, differences))
    return rows


def rows_of(runs: Sequence[Run]) -> list[Row]:
    errors: dict[str, Errors] = {}
    for run in runs:
        if rates := run.rates():
            errors.setdefault(run.variant, {})[run.seed] = (rates.top1_error, rates.top5_error)
    return make_rows(errors)


def summary(runs: Sequence[Run], rows: Sequence[Row], command: Sequence[str]) -> dict[str, Any]:
    """All of it for a program."""
    return {
        "command": list(command),
        "crops": CROPS,
        "settings": runs[0].config()["settings"],  # of the first run; others differ by variant and seed
        "runs": [
            {"variant": run.variant, "seed": run.seed, **vars(run.rates()), "training_seconds": run.seconds()}
            for run in runs
        ],
        "variants": [in_json(row) for row in rows],
    }


def in_json(row: Row) -> dict[str, Any]:
    """A row's estimates, null where nothing was run; the differences of 2012, null where it gave none."""
    found: dict[str, Any] = {"variant": row.variant, "runs": len(row.errors)}
    given = DIFFERENCES_2012.get(row.variant)
    for top, name in enumerate(("top1", "top5")):
        for kind, value in (("error", row.error(top)), ("difference", row.difference(top))):
            found[f"{name}_{kind}"] = vars(value) if value else None
        found[f"{name}_difference_2012"] = getattr(given, name, None)
        found[f"{name}_in_2012"] = in_2012(row.variant, top)  # as 2012 said it: "about", "over", or no figure
    return found


def markdown(runs: Sequence[Run], rows: Sequence[Row]) -> str:
    """A title line and the table."""
    head = ["variant", "runs"]
    for top in ("top-1", "top-5"):
        head += [f"{top} error, %", "difference to base", "in 2012"]
    lines = [title(runs), "", table_line(head), table_line(["---"] * len(head))]
    return "\n".join(lines + [table_line(cells(row)) for row in rows]) + "\n"


def title(runs: Sequence[Run]) -> str:
    settings, rates = runs[0].config()["settings"], runs[0].rates()
    fields = ", ".join(f"{name.replace('_', ' ')} {settings['recipe.' + name]:g}" for name in SHOWN)
    minutes = sum(run.seconds() for run in runs) / 60
    return (
        f"Data {settings['data']}, recipe {settings['recipe.name']}, {fields}, schedule {settings['schedule']}; "
        f"ten crops of {rates.images if rates else 0} validation images; {len(runs)} runs, {minutes:.0f} min of "
        "training. Mean ± standard error over seeds; a difference is to the base net of the same seed, in percentage "
        "points; 2012's are of ImageNet."
    )


def table_line(row: Sequence[str]) -> str:
    return f"| {' | '.join(row)} |"


def cells(row: Row) -> list[str]:
    found = [row.variant, str(len(row.errors)) if row.errors else NOT_MEASURED]
    for top in (0, 1):
        error, difference = row.error(top), row.difference(top)
        ours = "" if row.variant == BASE else difference.text("+.2f") if difference else NOT_MEASURED
        found += [error.text(".2f") if error else NOT_MEASURED, ours, in_2012(row.variant, top)]
    return found


def in_2012(variant: str, top: int) -> str:
    """The error of 2012's base net, or a variant's difference to it."""
    if variant == BASE:
        base = next(result for result in RESULTS_2012 if (result.nets, result.crops) == (1, CROPS))
        return f"{(base.top1_error, base.top5_error)[top]} %"
    given = DIFFERENCES_2012[variant]
    figure = (given.top1, given.top5)[top]
    words = [given.said if top == 0 or figure is not None else "", "" if figure is None else f"+{figure}"]
    return " ".join(word for word in words if word) or "not given"


@styled
def draw(rows: Sequence[Row]) -> Figure:
    """Top-1 differences to base: each seed, their mean with its standard error, and that of 2012."""
    rows = [row for row in rows if row.variant != BASE]
    figure = new_figure(0.8 + 0.22 * len(rows), "constrained")
    axes = figure.subplots()
    for place, row in enumerate(rows):
        draw_row(axes, place, row)
    axes.axvline(0, color="black", linewidth=0.5)
    axes.set_yticks(range(len(rows)), [row.variant + ("" if row.differences else f"\n{NOT_MEASURED}") for row in rows])
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set(xlabel="top-1 error above the base net's, percentage points")
    ours = Line2D([], [], color=COLORS[0], marker="o", markersize=3, linewidth=0.8, label="here, ± standard error")
    theirs = Line2D([], [], color=COLORS[1], marker="D", markersize=3, linewidth=0, fillstyle="none", label="2012")
    figure.legend(handles=[ours, theirs], loc="outside lower center", ncols=2, frameon=False)
    return figure


def draw_row(axes: Axes, place: int, row: Row) -> None:
    if difference := row.difference(0):
        seeds = [of_seed[0] for of_seed in row.differences.values()]
        axes.plot(seeds, [place] * len(seeds), ".", color=COLORS[0], markersize=2, alpha=0.5)
        axes.errorbar(difference.mean, place, xerr=difference.standard_error, fmt="o", color=COLORS[0], markersize=3)
    top1 = DIFFERENCES_2012[row.variant].top1
    if top1 is not None:
        axes.plot(top1, place, "D", color=COLORS[1], markersize=3, fillstyle="none")
