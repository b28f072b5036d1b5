"""Ten crops against one, and averages of several nets: python results/imagenette-crops-and-ensembles/measure.py RUNS

RUNS is the directory of the ablation study (results/imagenette-ablations): RUNS/<variant>-seed<n>/centre_crop.npz and
ten_crops.npz. Writes measured.json beside this file.
"""

from __future__ import annotations

import json
import sys
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from alexnet2012.evaluation.predictions import average, load_comparable
from alexnet2012.reporting.ablation.differences import Measured, compare

VARIANTS = ("base", "no-lrn", "no-overlap", "one-tower", "no-exchange")
SEEDS = (0, 1, 2)


def main(runs: Path) -> None:
    nets = [(variant, seed) for variant in VARIANTS for seed in SEEDS]
    kept = {
        crops: dict(zip(nets, load_comparable([runs / f"{v}-seed{s}" / f"{crops}.npz" for v, s in nets]), strict=True))
        for crops in ("centre_crop", "ten_crops")
    }

    def mean_of_averages(members: list[tuple[str, int]], size: int) -> Measured:
        """The measures of each image, over all averages of ``size`` of the nets, on ten crops: (3, images)."""
        chosen = [[kept["ten_crops"][net] for net in some] for some in combinations(members, size)]
        return np.mean([average(some, [1] * size).measures() for some in chosen], axis=0)

    centre, ten = ({net: one.measures() for net, one in kept[crops].items()} for crops in kept)
    of_kind = {variant: [(variant, seed) for seed in SEEDS] for variant in VARIANTS}
    of_seed = {seed: [(variant, seed) for variant in VARIANTS] for seed in SEEDS}
    by_size = {size: {kind: mean_of_averages(nets, size) for kind, nets in of_kind.items()} for size in (1, 2, 3)}
    one_of_each, five = ({seed: mean_of_averages(nets, size) for seed, nets in of_seed.items()} for size in (1, 5))
    measured = {
        "centre crop of base": row({s: centre["base", s] for s in SEEDS}),
        "ten crops of base": row({s: ten["base", s] for s in SEEDS}, {s: centre["base", s] for s in SEEDS}),
        "centre crop": row(centre),
        "ten crops": row(ten, centre),
        **{f"{size} of base": row({0: by_size[size]["base"]}) for size in by_size},
        "1 alike": row(by_size[1]),
        **{f"{size} alike": row(by_size[size], by_size[1]) for size in (2, 3)},
        "5 kinds": row(five, one_of_each),
    }
    Path(__file__).with_name("measured.json").write_text(json.dumps(measured, indent=1) + "\n")


def row(nets: dict[Any, Measured], reference: dict[Any, Measured] | None = None) -> dict[str, Any]:
    """Means over nets and images, and their differences to those of ``reference``, paired by net and image."""
    found = compare("", nets, reference or {})
    measures = dict(enumerate(("top1_error", "top5_error", "loss")))
    errors = {name: float(np.mean([of_one[i] for of_one in found.errors.values()])) for i, name in measures.items()}
    if reference is None:
        return {"nets": len(nets)} | errors
    differences = {name: vars(difference) for i, name in measures.items() if (difference := found.difference(i))}
    return {"nets": len(nets)} | errors | {"difference": differences}


if __name__ == "__main__":
    main(Path(sys.argv[1]))
