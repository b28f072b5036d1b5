"""Error rates for a person, beside those of 2012, and for a program."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from alexnet2012.data.imagenet_source import OFFICIAL
from alexnet2012.evaluation.ensemble import Assessment
from alexnet2012.evaluation.errors import ErrorRates
from alexnet2012.recipe import RESULTS_2012


def table(members: Sequence[Path], assessment: Assessment) -> list[str]:
    """The errors in percent; beside them those of 2012 where the data are ILSVRC-2012's."""
    crops = assessment.predictions.crops
    both = f"{len(members)} averaged, " if len(members) > 1 else ""
    rows: list[tuple[str, int, int, ErrorRates]] = []
    if both:
        rows += [(f"{path}, {views(crops)}", 1, crops, r) for path, r in zip(members, assessment.each, strict=True)]
    if assessment.centre and crops > 1:
        rows.append((both + views(1), len(members), 1, assessment.centre))
    rows.append((both + views(crops), len(members), crops, assessment.average))
    width = max(len(name) for name, *_ in rows)
    then = "   2012: top-1, top-5" if is_ilsvrc_2012(assessment) else ""
    lines = [f"{'error in percent':{width}}   top-1   top-5{then}"]
    for name, nets, of_crops, rates in rows:
        in_2012 = f"   {results_2012(nets, of_crops)}" if then else ""
        lines.append(f"{name:{width}}  {rates.top1_error:6.2f}  {rates.top5_error:6.2f}{in_2012}")
    return [*lines, f"{assessment.average.images} images"]


def views(crops: int) -> str:
    return "centre crop" if crops == 1 else "ten crops"


def is_ilsvrc_2012(assessment: Assessment) -> bool:
    """Whether the images are as many, of as many classes, as its validation set."""
    return assessment.predictions.probabilities.shape == (OFFICIAL["val"], OFFICIAL["classes"])


def results_2012(nets: int, crops: int) -> str:
    """What 2012 measured with as many nets and crops, on ILSVRC-2012 or else on the data of the year it did."""
    found = [result for result in RESULTS_2012 if (result.nets, result.crops) == (nets, crops)]
    if not found:
        return "not measured"
    one = found[0]
    where = "" if one.data == "ILSVRC-2012 validation" else f" on {one.data}"
    return f"{one.top1_error}, {one.top5_error}{where}"


def summary(members: Sequence[Path], assessment: Assessment) -> dict[str, Any]:
    """The errors in percent: of the average, of its centre crops, and with several members of each of them."""
    crops = assessment.predictions.crops
    result: dict[str, Any] = {**vars(assessment.average), "crops": crops}
    if assessment.centre and crops > 1:
        result["centre_crop"] = vars(assessment.centre)
    if len(members) > 1:
        result["each"] = [
            {"file": str(path), **vars(rates)} for path, rates in zip(members, assessment.each, strict=True)
        ]
    return result
