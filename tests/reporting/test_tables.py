"""Our error rates beside those of 2012."""

from __future__ import annotations

from pathlib import Path

from alexnet2012.evaluation.errors import ErrorRates
from alexnet2012.evaluation.evaluate import Assessment
from alexnet2012.reporting.tables import error_table


def test_errors_of_ilsvrc_2012_stand_beside_those_of_2012() -> None:
    rates = {1: ErrorRates(43.2, 20.1, 1.85, 50_000), 10: ErrorRates(41.04, 18.35, 1.75, 50_000)}
    one = error_table([Path("a.pt")], Assessment(10, [rates[10]], rates, 1000))
    assert one == [
        "             accuracy %  error: top-1 %  top-5 %    nats   2012: top-1, top-5, nats",
        "centre crop       56.80           43.20    20.10  1.8500   42.7, 20.0, 1.8619 (authors' #155)",
        "ten crops         58.96           41.04    18.35  1.7500   40.7, 18.2, 1.7415 (paper table 2, authors' #145)",
        "50000 images",
        "#145 is the authors' own net, which --recipe source follows",
        "authors' #155: #145's net with a schedule that falls exponentially",
    ]
    five = error_table([Path(f"{n}.pt") for n in range(5)], Assessment(10, [rates[10]] * 5, rates, 1000))
    assert five[7].endswith("   38.1, 16.4 (paper table 2)") and "not measured" in five[6]
    seven = error_table([Path(f"{n}.pt") for n in range(7)], Assessment(10, [rates[10]] * 7, rates, 1000))
    assert "paper table 2: two of them pre-trained on ImageNet 2011" in seven
    for other in (Assessment(10, [rates[10]], rates, 100), Assessment(1, [], {1: ErrorRates(40, 20, 1.8, 9)}, 1000)):
        assert "2012" not in "\n".join(error_table([Path("a.pt")], other))
