"""Our error rates beside those of 2012."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from alexnet2012.evaluation.ensemble import Assessment
from alexnet2012.evaluation.errors import ErrorRates
from alexnet2012.evaluation.predictions import Predictions
from alexnet2012.reporting.error_table import table


def test_errors_of_ilsvrc_2012_stand_beside_those_of_2012() -> None:
    kept = Predictions(np.zeros((50_000, 1_000), np.float32), np.zeros(50_000, np.int64), [""] * 1_000, 10, "")
    rates = ErrorRates(41.04, 18.35, 1.75, 50_000)
    one = table([Path("a.pt")], Assessment([rates], ErrorRates(43.2, 20.1, 1.85, 50_000), kept, rates))
    assert [line.split() for line in one[1:3]] == [
        ["centre", "crop", "43.20", "20.10", "39.0,", "18.3", "on", "ILSVRC-2010", "test"],
        ["ten", "crops", "41.04", "18.35", "40.7,", "18.2"],
    ]
    five = table([Path(f"{n}.pt") for n in range(5)], Assessment([rates] * 5, rates, kept, rates))
    assert five[7].split()[-2:] == ["38.1,", "16.4"] and "not measured" in five[6]
    fewer = Predictions(kept.probabilities[:9], kept.labels[:9], kept.class_names, 10, "")
    assert "2012" not in "\n".join(table([Path("a.pt")], Assessment([rates], rates, fewer, rates)))
