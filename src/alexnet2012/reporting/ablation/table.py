"""Differences from the base net beside those of 2012: as JSON, as Markdown tables, as a plot."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from alexnet2012.recipe import VARIANTS, Difference2012, Result2012, result_2012, whose
from alexnet2012.reporting.ablation import ALL, BASE
from alexnet2012.reporting.ablation.differences import RESAMPLES, Estimate, Row, compare
from alexnet2012.reporting.ablation.study import CROPS, Run, measured
from alexnet2012.reporting.figures.style import COLORS, new_figure, styled

NOT_MEASURED = "not measured"
SHOWN = ("batch_size", "epochs", "lr", "width")  # fields of the recipe named in the title
MEASURES = {"top1": "top-1 error, %", "top5": "top-5 error, %", "loss": "loss, nats"}
DECIMALS, DECIMALS_2012 = (2, 2, 4), (1, 1, 4)  # of the measures
Tables = dict[int, list[Row]]  # by number of crops


def tables_of(runs: Sequence[Run]) -> Tables:
    """The rows for ten crops and for the centre crop. Raises InputError for predictions that cannot be compared."""
    return {crops: make_rows(measured(runs, crops)) for crops in (CROPS, 1)}


def make_rows(found: Mapping[str, Any]) -> list[Row]:
    """One row each for the base net and every variant, measured or not, from the result of ``study.measured``."""
    base = found.get(BASE, {})
    return [compare(variant, found.get(variant, {}), base) for variant in ALL]


def summary(runs: Sequence[Run], tables: Tables, command: Sequence[str]) -> dict[str, Any]:
    """The contents of ``ablation.json``."""
    settings = runs[0].config()["settings"]  # others differ by variant and seed
    return {
        "command": list(command),
        "crops": CROPS,
        "settings": settings,
        "runs": [
            {"variant": run.variant, "seed": run.seed, **vars(run.rates()), "training_seconds": run.seconds()}
            for run in runs
        ],
        "variants": [
            in_json(row)
            | (figures_2012(row.variant, settings["recipe.name"]) if is_2012(settings) else {})
            | {"centre_crop": in_json(centre)}
            for row, centre in zip(tables[CROPS], tables[1], strict=True)
        ],
    }


def in_json(row: Row) -> dict[str, Any]:
    """A row's estimates, null if nothing was run."""
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


def of_2012(variant: str) -> Result2012 | Difference2012:
    """The differences of 2012 for a variant; the results of 2012 for the base net."""
    base = result_2012(1, CROPS)
    return base if variant == BASE and base else VARIANTS[variant].in_2012


def figures_2012(variant: str, recipe: str) -> dict[str, Any]:
    """The differences of 2012 for a variant, as numbers (null if not given) and as text, with their source."""
    found: dict[str, Any] = {"2012": about_2012(variant, recipe)}
    for measure, name in enumerate(MEASURES):
        found[f"{name}_difference_2012"] = None if variant == BASE else of_2012(variant).figures[measure]
        found[f"{name}_in_2012"] = in_2012(variant, measure)
    return found


def markdown(runs: Sequence[Run], tables: Tables) -> str:
    """A title line, the table for ten crops, beside 2012 for the 2012 net, and the table for the centre crop."""
    settings = runs[0].config()["settings"]
    head, plain = ["variant", "runs"], ["variant", "runs"]
    for name in MEASURES.values():
        head += [name, "difference to base", "in 2012"]
        plain += [name, "difference to base"]
    ten_crops, centre_crop = (
        table(plain, [cells(row, beside_2012=False) for row in tables[crops] if row.errors]) for crops in (CROPS, 1)
    )
    if is_2012(settings):
        rows = [[*cells(row), about_2012(row.variant, settings["recipe.name"])] for row in tables[CROPS]]
        ten_crops = table([*head, "2012's figures"], rows)
    return "\n".join([title(runs), "", "Ten crops:", "", *ten_crops, "", "Centre crop:", "", *centre_crop, ""])


def is_2012(settings: Mapping[str, Any]) -> bool:
    """True if a run trains the 2012 net; reference nets are not compared with its results."""
    return bool(settings["recipe.net"] == "2012")


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
        "beyond two standard errors."
        + " 2012's nets are of ImageNet at full width, trained as recipe source." * is_2012(settings)
        + " A net trained without crops and reflections has one view." * (not is_2012(settings))
    )


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return [f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows)]


def cells(row: Row, beside_2012: bool = True) -> list[str]:
    found = [row.variant, str(len(row.errors)) if row.errors else NOT_MEASURED]
    for measure in range(len(MEASURES)):
        error, difference = row.error(measure), row.difference(measure)
        star = " *" if difference and difference.beyond else ""
        of_difference = "" if row.variant == BASE else format_estimate(difference, DECIMALS[measure], "+") + star
        found += [format_estimate(error, DECIMALS[measure]), of_difference]
        found += [in_2012(row.variant, measure)] * beside_2012
    return found


def format_estimate(estimate: Estimate | None, decimals: int, sign: str = "") -> str:
    if estimate is None:
        return NOT_MEASURED
    spread = "" if estimate.standard_error is None else f" ± {estimate.standard_error:.{decimals}f}"
    return f"{estimate.mean:{sign}.{decimals}f}{spread}"


def in_2012(variant: str, measure: int) -> str:
    """The error or loss of the base net of 2012, or a variant's difference from it."""
    given = of_2012(variant)
    figure, sign = given.figures[measure], "" if variant == BASE else "+"
    said = given.said if isinstance(given, Difference2012) and (figure is not None or measure == 0) else ""
    number = "" if figure is None else f"{figure:{sign}.{DECIMALS_2012[measure]}f}"
    return f"{said} {number}".strip() or "not given"


def about_2012(variant: str, recipe: str) -> str:
    """The source of the figures of 2012, their data, and how their net differs from the variant of ``recipe``."""
    given = of_2012(variant)
    unlike = given.unlike_in(recipe) if isinstance(given, Difference2012) else ""
    data = given.data or ("data not said" if whose(given) else "")
    return "; ".join(part for part in (whose(given), data, unlike and f"unlike: {unlike}") if part)


@styled
def draw(rows: Sequence[Row], settings: Mapping[str, Any]) -> Figure:
    """Plot top-1 differences from the base net: each seed, mean and standard error; for the 2012 net also 2012's."""
    beside_2012, recipe = is_2012(settings), settings["recipe.name"]
    rows = [row for row in rows if row.variant != BASE and (beside_2012 or row.errors)]
    figure = new_figure(0.9 + 0.22 * len(rows), "constrained")
    axes = figure.subplots()
    for place, row in enumerate(rows):
        if difference := row.difference(0):
            seeds = [of_seed[0] for of_seed in row.differences.values()]
            axes.plot(seeds, [place] * len(seeds), ".", color=COLORS[0], markersize=2, alpha=0.5)
            spread = difference.standard_error
            axes.errorbar(difference.mean, place, xerr=spread, fmt="o", color=COLORS[0], markersize=3)
        given = VARIANTS[row.variant].in_2012
        if beside_2012 and given.top1 is not None:
            marker = "X" if given.unlike_in(recipe) else "D"
            axes.plot(given.top1, place, marker, color=COLORS[1], markersize=3, fillstyle="none")
    axes.axvline(0, color="black", linewidth=0.5)
    axes.set_yticks(range(len(rows)), [row.variant + ("" if row.differences else f"\n{NOT_MEASURED}") for row in rows])
    axes.set_ylim(max(len(rows), 1) - 0.5, -0.5)
    axes.set(xlabel="top-1 error above the base net's, percentage points")
    ours = Line2D([], [], color=COLORS[0], marker="o", markersize=3, linewidth=0.8, label="here, ± standard error")
    theirs = [
        Line2D([], [], color=COLORS[1], marker=marker, markersize=3, linewidth=0, fillstyle="none", label=label)
        for marker, label in (("D", "2012"), ("X", "2012, of unlike nets"))
    ]
    figure.legend(handles=[ours, *theirs * beside_2012], loc="outside lower center", ncols=3, frameon=False)
    return figure
