"""Differences to the base net of the same seed, beside those of 2012."""

from __future__ import annotations

import pytest

from alexnet2012.recipe import VARIANTS
from alexnet2012.reporting.ablation import NOT_MEASURED, cells, draw, in_2012, in_json, make_rows

ERRORS = {
    "base": {0: (40.0, 18.0), 1: (42.0, 20.0), 2: (41.0, 19.0)},
    "no-lrn": {0: (41.0, 19.0), 1: (45.0, 21.0), 2: (43.0, 20.0), 9: (99.0, 99.0)},
    "tanh": {0: (50.0, 30.0)},
}


def row(variant: str):
    return next(row for row in make_rows(ERRORS) if row.variant == variant)


def test_a_difference_is_to_the_base_net_of_the_same_seed() -> None:
    difference = row("no-lrn").difference(0)
    assert difference.mean == pytest.approx(2.0)  # of 1, 3 and 2; seed 9 has no base
    assert difference.standard_error == pytest.approx(1 / 3**0.5)
    assert row("base").error(0).standard_error == pytest.approx(1 / 3**0.5)


def test_one_seed_has_no_standard_error() -> None:
    assert cells(row("tanh"))[2:5] == ["50.00", "+10.00", "slower"]


def test_what_was_not_run_says_so() -> None:
    assert cells(row("one-tower")) == [
        "one-tower", *[NOT_MEASURED] * 3, "+1.7", *[NOT_MEASURED] * 2, "+1.2"
    ]  # fmt: skip
    found = in_json(row("one-tower"))
    assert (found["runs"], found["top1_error"], found["top1_difference"]) == (0, None, None)


@pytest.mark.parametrize(
    ("variant", "top", "text"),
    [
        ("base", 0, "40.7 %"),  # P table 2
        ("base", 1, "18.2 %"),
        ("no-lrn", 0, "+1.4"),  # P §3.3
        ("no-color-noise", 0, "over +1.0"),  # P §4.1
        ("no-color-noise", 1, "not given"),
        ("exchange-at-conv4", 0, "worse"),  # S #132
    ],
)
def test_2012_stands_beside(variant: str, top: int, text: str) -> None:
    assert in_2012(variant, top) == text


def test_the_plot_says_what_was_not_measured() -> None:
    axes = draw(make_rows(ERRORS)).axes[0]
    names = [label.get_text() for label in axes.get_yticklabels()]
    assert [name for name in names if NOT_MEASURED not in name] == ["no-lrn", "tanh"]
    assert len(names) == len(VARIANTS)
