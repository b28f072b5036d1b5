"""When did each run leave the plateau at the initial loss? python results/imagenette-full-width/plateau.py RUN...

Writes RUN/plateau.json: the first step from which the mean loss of 100 steps stays below ln(10) - 0.1, null if none.
"""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path

import numpy as np

WINDOW, BELOW = 100, math.log(10) - 0.1


def left_at(losses: list[float]) -> int | None:
    """The first step (from 1) of the first window from which on no window's mean is ``BELOW`` or above."""
    if len(losses) < WINDOW:
        return None
    means = np.convolve(losses, np.ones(WINDOW) / WINDOW, "valid")
    above = np.flatnonzero(means >= BELOW)
    first = int(above[-1]) + 1 if len(above) else 0
    return first + 1 if first < len(means) else None


for run in map(Path, sys.argv[1:]):
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    losses = [row["loss"] for row in rows if "loss" in row]
    batch_size = json.loads((run / "config.json").read_text())["settings"]["recipe.batch_size"]
    found = {"steps": len(losses), "plateau_left_at_step": left_at(losses), "batch_size": batch_size}
    (run / "plateau.json").write_text(json.dumps(found, indent=1) + "\n")
    print(run.name, found)
