"""The paper's differences beside ours: as JSON, as Markdown tables, as a plot."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from alexnet2012.ablation.differences import RESAMPLES, Estimate, Row, compare
from alexnet2012.ablation.study import ALL, BASE, CROPS, Run, measured
from alexnet2012.recipe import DIFFERENCES_2012, Difference2012, Result2012, result_2012, whose
from alexnet2012.reporting.figures.style import COLORS, new_figure, styled

NOT_MEASURED = "not measured"
SHOWN = ("batch_size", "epochs", "lr", "width")  # fields of the recipe named in the title
MEASURES = {"top1": "top-1 error, %", "top5": "top-5 error, %", "loss": "loss, nats"}
DECIMALS = (2, 2, 4)  # of the measures
BASE_2012 = result_2012(1, CROPS)
Tables = dict[int, list[Row]]  # by number of crops


def tables_of(runs: Sequence[Run]) -> Tables:
    """The rows of ten crops and of the centre crop. Raises InputError for predictions that cannot be compared."""
    return {crops: make_rows(measured(runs, crops)) for crops in (CROPS, 1)}


def make_rows(found: Mapping[str, Any]) -> list[Row]:
    """A row for the base net and every variant, measured or not, from what ``study.measured`` gives."""
    base = found.get(BASE, {})
    return [compare(variant, found.get(variant, {}), base) for variant in ALL]


def summary(runs: Sequence[Run], tables: Tables, command: Sequence[str]) -> dict[str, Any]:
    """All of it for a program."""
    return {
        "command": list(command),
        "crops": CROPS,
        "settings": runs[0].config()["settings"],  # of the first run; others differ by variant and seed
        "runs": [
            {"variant": run.variant, "seed": run.seed, **vars(run.rates()), "training_seconds": run.seconds()}
            for run in runs
        ],
        "variants": [
            in_json(row) | figures_2012(row.variant) | {"centre_crop": in_json(centre)}
            for row, centre in zip(tables[CROPS], tables[1], strict=True)
        ],
    }


def in_json(row: Row) -> dict[str, Any]:
    """A row's estimates, null where nothing was run."""
    found: dict[str, Any] = {"variant": row.variant, "runs": len(row.errors)}
    for measure, name in enumerate(("top1_error", "top5_error", "loss")):
        error, difference = row.error(measure), row.difference(measure)
        found[name] = vars(error) if error else None
        found[f"{name.removesuffix('_error')}_difference"] = difference and {
            **vars(difference),
            "beyond_two_standard_errors": difference.beyond,
            "by_seed": {str(seed): of_seed[measure] for seed, of_seed in row.differences.items()},
        }
    return found


def figures_2012(variant: str) -> dict[str, Any]:
    """What 2012 says of a variant: its differences, null where it gave none, and in words; whose they are."""
    given = DIFFERENCES_2012.get(variant, Difference2012())
    values = {"top1": given.top1, "top5": given.top5, "loss": given.loss_difference}
    found: dict[str, Any] = {f"{name}_difference_2012": value for name, value in values.items()}
    found |= {f"{name}_in_2012": in_2012(variant, measure) for measure, name in enumerate(MEASURES)}
    return found | {"2012": about_2012(variant)}


def markdown(runs: Sequence[Run], tables: Tables) -> str:
    """A title line, the table of ten crops beside 2012, and that of the centre crop."""
    head, centre = ["variant", "runs"], ["variant", "runs"]
    for name in MEASURES.values():
        head += [name, "difference to base", "in 2012"]
        centre += [name, "difference to base"]
    head.append("2012's figures")
    lines = [title(runs), "", "Ten crops:", "", *table(head, [cells(row) for row in tables[CROPS]])]
    measured_rows = [cells_of_centre(row) for row in tables[1] if row.errors]
    return "\n".join([*lines, "", "Centre crop:", "", *table(centre, measured_rows)]) + "\n"


def title(runs: Sequence[Run]) -> str:
    settings, rates = runs[0].config()["settings"], runs[0].rates()
    fields = ", ".join(f"{name.replace('_', ' ')} {settings['recipe.' + name]:g}" for name in SHOWN)
    data = Path(settings["data"]).name
    minutes = sum(run.seconds() for run in runs) / 60
    return (
        f"Data {data}, recipe {settings['recipe.name']}, {fields}, schedule {settings['schedule']}; "
        f"{rates.images if rates else 0} validation images; {len(runs)} runs, {minutes:.0f} min of training. "
        "Mean ± standard error over seeds; a difference is to the base net of the same seed on the same images, in "
        f"percentage points or nats, ± its standard error by {RESAMPLES} bootstrap resamples of seeds and images; * is "
        "beyond two standard errors. 2012's nets are of ImageNet at full width, trained as recipe source."
    )


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return [f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows)]


def cells(row: Row) -> list[str]:
    found = [row.variant, str(len(row.errors)) if row.errors else NOT_MEASURED]
    for measure in range(len(MEASURES)):
        found += [*ours(row, measure), in_2012(row.variant, measure)]
    return [*found, about_2012(row.variant)]


def cells_of_centre(row: Row) -> list[str]:
    return [
        row.variant,
        str(len(row.errors)),
        *(text for measure in range(len(MEASURES)) for text in ours(row, measure)),
    ]


def ours(row: Row, measure: int) -> list[str]:
    """A row's mean and its difference to the base net."""
    error, difference = row.error(measure), row.difference(measure)
    form = f".{DECIMALS[measure]}f"
    star = " *" if difference and difference.beyond else ""
    of_difference = "" if row.variant == BASE else in_words(difference, "+" + form, form) + star
    return [in_words(error, form, form), of_difference]


def in_words(estimate: Estimate | None, form: str, of_spread: str) -> str:
    if estimate is None:
        return NOT_MEASURED
    spread = "" if estimate.standard_error is None else f" ± {estimate.standard_error:{of_spread}}"
    return f"{estimate.mean:{form}}{spread}"


def in_2012(variant: str, measure: int) -> str:
    """The error or loss of 2012's base net, or a variant's difference to it."""
    if variant == BASE:
        assert BASE_2012
        return f"{(BASE_2012.top1_error, BASE_2012.top5_error, BASE_2012.loss)[measure]:.{(1, 1, 4)[measure]}f}"
    given = DIFFERENCES_2012.get(variant, Difference2012())
    figure = (given.top1, given.top5, given.loss_difference)[measure]
    words = [given.said if measure == 0 or figure is not None else ""]
    words += [] if figure is None else [f"{figure:+.{(1, 1, 4)[measure]}f}"]
    return " ".join(word for word in words if word) or "not given"


def about_2012(variant: str) -> str:
    """Whose 2012's figures are, on what data, and how they compare unlike things."""
    given: Result2012 | Difference2012 | None = BASE_2012 if variant == BASE else DIFFERENCES_2012.get(variant)
    if given is None:
        return ""
    unlike = f"unlike: {given.unlike}" if isinstance(given, Difference2012) and given.unlike else ""
    return "; ".join(part for part in (whose(given), given.data, unlike) if part)


@styled
def draw(rows: Sequence[Row]) -> Figure:
    """Top-1 differences to base: each seed, their mean with its standard error, and that of 2012."""
    rows = [row for row in rows if row.variant != BASE]
    figure = new_figure(0.9 + 0.22 * len(rows), "constrained")
    axes = figure.subplots()
    for place, row in enumerate(rows):
        draw_row(axes, place, row)
    axes.axvline(0, color="black", linewidth=0.5)
    axes.set_yticks(range(len(rows)), [row.variant + ("" if row.differences else f"\n{NOT_MEASURED}") for row in rows])
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set(xlabel="top-1 error above the base net's, percentage points")
    ours = Line2D([], [], color=COLORS[0], marker="o", markersize=3, linewidth=0.8, label="here, ± standard error")
    theirs = [
        Line2D([], [], color=COLORS[1], marker=marker, markersize=3, linewidth=0, fillstyle="none", label=label)
        for marker, label in (("D", "2012"), ("X", "2012, of unlike nets"))
    ]
    figure.legend(handles=[ours, *theirs], loc="outside lower center", ncols=3, frameon=False)
    return figure


def draw_row(axes: Axes, place: int, row: Row) -> None:
    if difference := row.difference(0):
        seeds = [of_seed[0] for of_seed in row.differences.values()]
        axes.plot(seeds, [place] * len(seeds), ".", color=COLORS[0], markersize=2, alpha=0.5)
        axes.errorbar(difference.mean, place, xerr=difference.standard_error, fmt="o", color=COLORS[0], markersize=3)
    given = DIFFERENCES_2012.get(row.variant, Difference2012())
    if given.top1 is not None:
        axes.plot(given.top1, place, "X" if given.unlike else "D", color=COLORS[1], markersize=3, fillstyle="none")
