"""Figure 1 from finished runs: which of them is drawn, what it says, what is refused."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from running import ROOT, assert_refused, here

from alexnet2012.core.errors import InputError
from alexnet2012.reporting.figures.figure1 import (
    LearningCurve,
    best_learning_rates,
    claims,
    draw_figure1,
    read_learning_curves,
    read_settings,
    summary,
)

DRAW = ROOT / "launch" / "draw_figures.py"
FALLING = {  # errors of each epoch, by activation, learning rate and seed
    ("relu", 0.001, 0): [60, 45, 35, 30, 20],
    ("relu", 0.002, 0): [50, 30, 20, 10, 5],
    ("relu", 0.002, 1): [50, 35, 15, 10, 5],
    ("tanh", 0.001, 0): [70, 60, 50, 40, 35],
    ("tanh", 0.002, 0): [70, 55, 40, 30, 20],
}


def write_run(path: Path, activation: str, lr: float, seed: int, errors: list[float], **others: object) -> Path:
    path.mkdir(parents=True)
    settings = {
        "data": "/somewhere/cifar", "recipe": "19pct", "seed": seed, "recipe.activation": activation, "recipe.lr": lr,
        "recipe.weight_decay": 0.0, "recipe.weight_decays": [], "recipe.reflect": 0.0, "recipe.crop_offsets": 1,
    }  # fmt: skip
    (path / "config.json").write_text(json.dumps({"settings": settings | others}))
    lines = [{"step": 1, "epoch": 1, "loss": 2.3, "batch_top1_error": 90.0, "lr": lr}]
    for epoch, error in enumerate(errors, start=1):
        rates = {"train_top1_error": error, "val_top1_error": error, "val_top5_error": error / 5}
        lines.append({"step": 10 * epoch, "epoch": epoch, **rates})
    (path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


@pytest.fixture
def runs(tmp_path: Path) -> list[Path]:
    return [write_run(tmp_path / "-".join(map(str, run)), *run, errors) for run, errors in FALLING.items()]


def test_the_epoch_of_25_percent_lies_on_a_line_between_two_epochs() -> None:
    assert LearningCurve("relu", 0.1, 0, [60.0, 30.0, 20.0]).reached == 2.5
    assert LearningCurve("relu", 0.1, 0, [60.0, 25.0]).reached == 2.0
    assert LearningCurve("relu", 0.1, 0, [20.0]).reached == 1.0
    assert LearningCurve("relu", 0.1, 0, [60.0, 26.0]).reached == math.inf


def test_each_activation_gets_its_best_rate_over_all_seeds(runs: list[Path]) -> None:
    best = best_learning_rates(read_learning_curves(runs))
    assert [[run.lr for run in rate.runs] for rate in best.values()] == [[0.002, 0.002], [0.002]]
    assert best["relu"].reached == pytest.approx((2.5 + 2.5) / 2)
    assert best["tanh"].reached == pytest.approx(4.5)
    assert claims(best)[-1] == "ReLU is 1.8 times as fast (2012: 6)"


def test_a_run_that_diverged_at_once_is_not_the_best(runs: list[Path], tmp_path: Path) -> None:
    diverged = write_run(tmp_path / "diverged", "tanh", 0.1, 0, [])
    assert best_learning_rates(read_learning_curves([*runs, diverged]))["tanh"].runs[0].lr == 0.002


def test_the_longer_of_two_runs_is_taken(runs: list[Path], tmp_path: Path) -> None:
    longer = write_run(tmp_path / "longer", "tanh", 0.001, 0, [70, 60, 50, 40, 35, 20], **{"recipe.epochs": 6})
    best = best_learning_rates(read_learning_curves([longer, *runs]))
    assert best["tanh"].reached == pytest.approx(4.5)  # of the other rate
    alone = best_learning_rates(read_learning_curves([longer, *runs[:4]]))
    assert [len(run.errors) for run in alone["tanh"].runs] == [6]


def test_what_was_not_reached_is_said() -> None:
    relu, tanh = (
        LearningCurve(kind, 0.1, 0, errors) for kind, errors in (("relu", [50.0, 20.0]), ("tanh", [80.0, 70.0]))
    )
    slow = LearningCurve("tanh", 0.2, 0, [80.0, 60.0])
    lines = claims(best_learning_rates([relu, tanh, slow]))
    assert "not reached in 2 epochs (learning rate 0.2" in lines[1]
    assert lines[2] == f"ReLU is more than {2 / (1 + 25 / 30):.1f} times as fast (2012: 6)"


def test_where_relu_alone_falls_short_there_is_no_ratio() -> None:
    best = best_learning_rates(
        [LearningCurve("relu", 0.1, 0, [50.0, 40.0]), LearningCurve("tanh", 0.1, 0, [50.0, 20.0])]
    )
    assert len(claims(best)) == 2 and summary(best, [])["ratio"] is None


def test_the_figure_shows_every_seed_the_goal_and_the_claim(runs: list[Path]) -> None:
    best, settings = best_learning_rates(read_learning_curves(runs)), read_settings(runs[0])
    figure = draw_figure1(best, settings)
    lines = figure.axes[0].lines
    assert len(lines) == 2 + 1 + 2 + 1  # seeds, the mean of each activation, the goal
    assert sum(set(line.get_ydata()) == {25.0} for line in lines) == 1
    assert figure.axes[0].get_title() == "19pct on cifar, no regularization; thin: each seed"
    assert all(claim in figure.get_supxlabel() for claim in claims(best))
    assert "no regularization" not in draw_figure1(best, settings | {"recipe.reflect": 0.5}).axes[0].get_title()


def test_the_command_draws_it_and_keeps_its_numbers(runs: list[Path], tmp_path: Path) -> None:
    out = tmp_path / "figures"
    ended = here(DRAW, "--figure", 1, *runs, "--out", out)
    assert (ended.code, ended.err) == (0, "")
    assert sorted(path.name for path in out.iterdir()) == ["figure1.json", "figure1.pdf", "figure1.png"]
    found = json.loads((out / "figure1.json").read_text())
    assert found["ratio"] == pytest.approx(4.5 / 2.5)
    assert found["relu"]["grid"] == [0.001, 0.002] and found["relu"]["epochs_by_seed"] == {"0": 2.5, "1": 2.5}


def test_runs_that_cannot_be_compared_are_refused(runs: list[Path], tmp_path: Path) -> None:
    decayed = write_run(tmp_path / "decayed", "tanh", 0.1, 0, [50.0], **{"recipe.weight_decay": 0.004})
    old = write_run(tmp_path / "old", "tanh", 0.1, 0, [50.0])
    rows = (old / "metrics.jsonl").read_text()
    (old / "metrics.jsonl").write_text(rows.replace('"train_top1_error": 50.0, ', ""))
    for given, reason in (
        ([*runs, decayed], f"{decayed}: its recipe.weight_decay is 0.004, in {runs[0]} 0.0"),
        ([*runs, old], f"{old}: has epochs without a training error"),
        (runs[:3], "no run of tanh has completed an epoch"),
    ):
        assert_refused(here(DRAW, "--figure", 1, *given, "--out", tmp_path / "figures"), reason)
    (runs[0] / "config.json").write_text("[]")
    with pytest.raises(InputError, match="not a run with an activation in its config"):
        read_learning_curves(runs)
