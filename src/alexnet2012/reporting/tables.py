"""Tables of errors beside those of 2012, as text and as JSON, and of a net's layers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table

from alexnet2012.data.prepare.source import OFFICIAL
from alexnet2012.evaluation.errors import ErrorRates
from alexnet2012.evaluation.evaluate import Assessment
from alexnet2012.network.summary import InitialWeights, LayerNumbers
from alexnet2012.recipe import Result2012, result_2012, whose

COLUMNS = ("layer", "output of a tower", "parameters", "multiply-\nadds", "kept", "crosses")
COUNTS = ("parameters", "multiply_adds", "kept", "exchanged")


def error_table(members: Sequence[Path], assessment: Assessment) -> list[str]:
    """Lines with accuracy and errors in percent and loss in nats; for ILSVRC-2012, beside the results of 2012."""
    together, crops = assessment.average, assessment.crops
    both = f"{len(members)} averaged, " if len(members) > 1 else ""
    rows: list[tuple[str, int, int, ErrorRates]] = []
    if both:
        rows += [
            (f"{path}, {crops_name(crops)}", 1, crops, r) for path, r in zip(members, assessment.each, strict=True)
        ]
    rows += [(both + crops_name(of), len(members), of, together[of]) for of in sorted(together)]
    width = max(len(name) for name, *_ in rows)
    beside = (together[crops].images, assessment.classes) == (OFFICIAL["val"], OFFICIAL["classes"])
    lines = [f"{'':{width}}  accuracy %  error: top-1 %  top-5 %    nats{'   2012: top-1, top-5, nats' * beside}"]
    for name, nets, of, rates in rows:
        in_2012 = f"   {format_result(result_2012(nets, of))}" * beside
        errors = f"{100 - rates.top1_error:10.2f}  {rates.top1_error:14.2f}  {rates.top5_error:7.2f}"
        lines.append(f"{name:{width}}  {errors}  {rates.loss:6.4f}{in_2012}")
    lines.append(f"{together[crops].images} images")
    lines += ["#145 is the authors' own net, which --recipe source follows"] * beside
    shown = [result_2012(nets, of) for _, nets, of, _ in rows]
    return lines + list(dict.fromkeys(f"{whose(one)}: {one.note}" for one in shown if one and one.note)) * beside


def crops_name(crops: int) -> str:
    return "centre crop" if crops == 1 else "ten crops"


def format_result(result: Result2012 | None) -> str:
    """Errors and loss, with their source."""
    if result is None:
        return "not measured"
    loss = "" if result.loss is None else f", {result.loss:.4f}"
    return f"{result.top1_error}, {result.top5_error}{loss} ({whose(result)})"


def error_summary(members: Sequence[Path], assessment: Assessment) -> dict[str, Any]:
    """Errors (percent) and loss (nats) of the average, of its centre crop, and of each member if there are several."""
    average, crops = assessment.average, assessment.crops
    result: dict[str, Any] = {**vars(average[crops]), "crops": crops}
    if crops > 1 and 1 in average:
        result["centre_crop"] = vars(average[1])
    if len(members) > 1:
        result["each"] = [
            {"file": str(path), **vars(rates)} for path, rates in zip(members, assessment.each, strict=True)
        ]
    return result


def layer_table(title: str, layers: Sequence[LayerNumbers]) -> Table:
    """One row per layer, and the sums; 80 columns wide for the paper's net."""
    caption = (
        "Forward pass of one image. Kept: for the gradient, in float32, both towers on one device. "
        "Crosses: values that each tower sends to the other before the layer."
    )
    table = Table(title=title, caption=caption, show_footer=True, box=SIMPLE_HEAD, pad_edge=False)
    sums = [sum(getattr(layer, name) for layer in layers) for name in COUNTS]
    for column, footer in zip(COLUMNS, ["sum", "", *format_counts(*sums)], strict=True):
        table.add_column(column, footer, justify="left" if column in COLUMNS[:2] else "right", no_wrap=True)
    for layer in layers:
        shapes = " > ".join("x".join(map(str, shape)) for shape in layer.shapes)
        table.add_row(layer.layer, shapes, *format_counts(*(getattr(layer, name) for name in COUNTS)))
    return table


def format_counts(parameters: int, multiply_adds: int, kept: int, exchanged: int) -> list[str]:
    return [f"{parameters:,}", f"{multiply_adds / 1e6:,.1f} M", f"{kept / 1000:,.1f} KB", f"{exchanged:,}"]


def weights_table(title: str, layers: Sequence[InitialWeights]) -> Table:
    """One row per layer: the shape of a tower's weights; mean and standard deviation over all towers."""
    table = Table(title=title, box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("layer")
    table.add_column("weights", no_wrap=True)
    for name in ("mean", "deviation", "bias mean", "bias deviation"):
        table.add_column(name, justify="right", no_wrap=True)
    for one in layers:
        numbers = (one.mean, one.deviation, one.bias_mean, one.bias_deviation)
        table.add_row(one.layer, "x".join(map(str, one.shape)), *(f"{number:.3g}" for number in numbers))
    return table
