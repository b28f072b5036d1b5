"""Errors of the pair, and how much LRN changes them: python results/lrn-cifar10/lrn_difference.py RUNS

RUNS is what train.sh wrote. Writes measured.json beside this file: means over seeds, and differences paired by seed and
test image with their standard errors.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from alexnet2012.evaluation.predictions import load_comparable
from alexnet2012.reporting.ablation.differences import compare

NETS, SEEDS = ("conv-local-13pct", "conv-local-13pct-lrn"), (0, 1)
MEASURES = ("top1_error", "top5_error", "loss")


def main(runs: Path) -> None:
    found: dict[str, Any] = {}
    for crops in ("centre_crop", "ten_crops"):
        kept = load_comparable([runs / f"{net}-seed{seed}" / f"{crops}.npz" for net in NETS for seed in SEEDS])
        measured = [one.measures() for one in kept]
        plain, lrn = dict(zip(SEEDS, measured[:2], strict=True)), dict(zip(SEEDS, measured[2:], strict=True))
        rows = {NETS[0]: compare(NETS[0], plain, {}), NETS[1]: compare(NETS[1], lrn, plain)}
        found[crops] = {
            net: {name: vars(estimate) for index, name in enumerate(MEASURES) if (estimate := row.error(index))}
            for net, row in rows.items()
        }
        found[crops]["difference"] = {
            name: {**vars(difference), "by_seed": {str(seed): rows[NETS[1]].differences[seed][index] for seed in SEEDS}}
            for index, name in enumerate(MEASURES)
            if (difference := rows[NETS[1]].difference(index))
        }
    Path(__file__).with_name("measured.json").write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
