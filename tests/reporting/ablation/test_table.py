"""Differences to the base net of the same seed, beside those of 2012."""

from __future__ import annotations

from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest

from alexnet2012.recipe import VARIANTS
from alexnet2012.reporting.ablation.study import Run
from alexnet2012.reporting.ablation.table import (
    NOT_MEASURED,
    about_2012,
    cells,
    draw,
    figures_2012,
    in_2012,
    in_json,
    make_rows,
    markdown,
    summary,
)


def measured(top1: int, top5: int, loss: float) -> np.ndarray:
    """Of 100 images, of which so many are wrong."""
    return np.array([[100.0] * wrong + [0.0] * (100 - wrong) for wrong in (top1, top5)] + [[loss] * 100])


FOUND = {
    "base": {seed: measured(40 + seed, 18, 1.5) for seed in range(3)},
    "no-lrn": {seed: measured(60 + seed, 18 + seed, 1.75) for seed in range(3)},
    "tanh": {0: measured(50, 30, 2)},
}


def row(variant: str):
    return next(row for row in make_rows(FOUND) if row.variant == variant)


def test_a_difference_far_from_chance_has_a_star() -> None:
    found = cells(row("no-lrn"))
    assert found[:3] == ["no-lrn", "3", "61.00 ± 0.58"]
    assert found[3].startswith("+20.00 ± ") and found[3].endswith(" *")
    assert found[6].startswith("+1.00 ± ") and not found[6].endswith("*")
    assert found[8:11] == ["1.7500 ± 0.0000", "+0.2500 ± 0.0000 *", "+0.0809"]
    assert cells(row("no-lrn"), beside_2012=False) == [*found[:4], *found[5:7], *found[8:10]]


def test_one_seed_has_no_standard_error() -> None:
    assert cells(row("tanh"))[2:5] == ["50.00", "+10.00", "slower"]
    assert cells(row("base"))[2:5] == ["41.00 ± 0.58", "", "40.7"]


def test_what_was_not_run_says_so() -> None:
    assert cells(row("one-tower"))[:8] == [
        "one-tower", *[NOT_MEASURED] * 3, "+1.7", *[NOT_MEASURED] * 2, "+1.2"
    ]  # fmt: skip
    found = in_json(row("one-tower"))
    assert (found["runs"], found["top1_error"], found["top1_difference"]) == (0, None, None)


def test_a_program_finds_estimates_seeds_and_2012() -> None:
    found = in_json(row("no-lrn")) | figures_2012("no-lrn", "paper")
    assert found["loss"]["mean"] == 1.75 and found["top1_error"]["mean"] == 61
    difference = found["top1_difference"]
    assert difference["by_seed"] == {"0": 20, "1": 20, "2": 20} and difference["beyond_two_standard_errors"]
    assert found["loss_difference_2012"] == pytest.approx(1.8224 - 1.7415, abs=1e-4)


@pytest.mark.parametrize(
    ("variant", "measure", "text"),
    [
        ("base", 0, "40.7"),  # P table 2
        ("base", 1, "18.2"),
        ("base", 2, "1.7415"),  # S #145
        ("no-lrn", 0, "+1.4"),  # P §3.3
        ("one-tower", 2, "+0.0881"),  # S #145-half, 1.7028, and #145 on the same data, 1.6147
        ("no-color-noise", 0, "over +1.0"),  # P §4.1
        ("no-color-noise", 1, "not given"),
        ("exchange-at-conv4", 0, "worse"),  # S #133
    ],
)
def test_2012_stands_beside(variant: str, measure: int, text: str) -> None:
    assert in_2012(variant, measure) == text


@pytest.mark.parametrize(
    ("variant", "said"),
    [
        ("base", ["paper table 2, authors' #145", "ILSVRC-2012 validation"]),
        ("no-lrn", ["paper §3.3, authors' #148", "ILSVRC-2012 validation", "unlike: #148 lacks the three norm"]),
        ("no-exchange", ["authors' #150", "ILSVRC-2012 validation"]),
        ("exchange-at-conv4", ["authors' #133", "ILSVRC-2012 validation", "unlike: #133 is an older net, stopped"]),
        ("one-tower", ["paper §3.2, authors' #145-half", "ILSVRC-2010 test"]),
        ("without-conv3", ["paper §7", "data not said"]),
    ],
)
def test_2012_s_figures_say_whose_they_are_on_what_and_what_is_unlike(variant: str, said: list[str]) -> None:
    parts = about_2012(variant, "paper").split("; ")
    assert len(parts) == len(said) and all(part.startswith(words) for part, words in zip(parts, said, strict=True))


def test_of_recipe_source_the_variants_are_those_of_the_records() -> None:
    for variant in VARIANTS:
        assert ("unlike" in about_2012(variant, "source")) == (variant in ("exchange-at-conv4", "tanh"))


def test_the_plot_says_what_was_not_measured() -> None:
    axes = draw(make_rows(FOUND), {"recipe.net": "2012", "recipe.name": "paper"}).axes[0]
    names = [label.get_text() for label in axes.get_yticklabels()]
    assert [name for name in names if NOT_MEASURED not in name] == ["no-lrn", "tanh"]
    assert len(names) == len(VARIANTS)


def test_a_reference_net_is_not_held_against_2012(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = {"recipe.net": "lenet-relu", "recipe.name": "lenet-relu"}
    monkeypatch.setattr("alexnet2012.reporting.ablation.table.title", lambda runs: "title")
    rates = SimpleNamespace(top1_error=1.0)
    what = {"variant": "base", "seed": 0, "rates": lambda: rates, "seconds": lambda: 1.0}
    run = cast(Run, SimpleNamespace(config=lambda: {"settings": settings}, **what))
    rows = summary([run], {10: make_rows(FOUND), 1: make_rows(FOUND)}, [])["variants"]
    assert not [name for row in rows for name in row if "2012" in name]
    text = markdown([run], {10: make_rows(FOUND), 1: make_rows(FOUND)})
    assert "2012" not in text and NOT_MEASURED not in text and text.count("| tanh |") == 2
    axes = draw(make_rows(FOUND), settings).axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["no-lrn", "tanh"]
    assert len(axes.figure.legends[0].get_texts()) == 1
