"""When the rates drop, in both recipes and all schedules."""

from __future__ import annotations

from math import inf, nan

import pytest

from alexnet2012 import paper_recipe, source_recipe
from alexnet2012.core.errors import InputError
from alexnet2012.recipe import Recipe
from alexnet2012.training import Settings
from alexnet2012.training.schedule import SCHEDULES, Schedule

GROUPS = ("conv1 weights", "conv1 biases", "weights", "biases")


def make(kind: str, recipe: Recipe, steps: int) -> Schedule:
    return SCHEDULES[kind](recipe, steps, lambda epoch: steps * epoch // recipe.schedule_epochs)


def rates(schedule: Schedule, step: int) -> dict[str, float]:
    lr = {name: schedule.recipe.bias_lr if name.endswith("biases") else schedule.recipe.lr for name in GROUPS}
    return {name: pytest.approx(lr[name] * schedule.factor(name, step), rel=1e-12) for name in GROUPS}


@pytest.mark.parametrize("epochs", [90, 4, 1])
@pytest.mark.parametrize("steps", [1, 2, 7, 89, 90, 91, 1001])
def test_the_papers_rates_drop_after_these_shares_of_all_steps(steps: int, epochs: int) -> None:
    schedule = make("steps", paper_recipe(epochs=epochs), steps)
    for step in range(steps):
        drops = sum(step >= steps * epoch // 90 for epoch in (25, 51, 79))  # in whole numbers: floor
        assert rates(schedule, step) == dict.fromkeys(GROUPS, 0.01 / 10**drops)


@pytest.mark.parametrize(
    ("epoch", "weights", "conv1"),
    [(1, 0.01, 0.01), (24, 0.01, 0.01), (25, 0.001, 0.001), (51, 1e-4, 1e-4), (66, 1e-4, 1e-4), (67, 1e-4, 1e-5),
     (71, 1e-4, 1e-5), (72, 1e-4, 0), (78, 1e-4, 0), (79, 1e-5, 0), (91, 1e-5, 0)],
)  # fmt: skip
def test_the_sources_rates(epoch: int, weights: float, conv1: float) -> None:
    """91 epochs of 10 steps, counted from 1; conv1 has one more drop and freezes at last, other biases keep theirs."""
    schedule = make("steps", source_recipe(), 910)
    for step in (10 * (epoch - 1), 10 * (epoch - 1) + 9):
        assert rates(schedule, step) == {
            "conv1 weights": conv1,
            "conv1 biases": (0.002 if epoch >= 67 else 0.02) if conv1 else 0,
            "weights": weights,
            "biases": 0.02,
        }


def test_a_constant_rate() -> None:
    schedule = make("constant", source_recipe(), 91)
    for step in range(91):
        assert rates(schedule, step) == {"conv1 weights": 0.01, "conv1 biases": 0.02, "weights": 0.01, "biases": 0.02}


def follow(schedule: Schedule, errors: list[float]) -> list[float]:
    """The weights' rate in the epoch after each validation error."""
    seen = []
    for error in errors:
        schedule.observe(error)
        seen.append(round(schedule.recipe.lr * schedule.factor("weights", 0), 12))
    return seen


def test_plateau_drops_when_the_error_has_not_improved_for_as_many_epochs_as_its_patience() -> None:
    schedule = make("plateau", paper_recipe(plateau_patience=3), 90)
    assert follow(schedule, [50, 40, 41, 40, 42]) == [0.01] * 4 + [0.001]
    assert follow(schedule, [39.9, 40, 39.9, 39.8, 50, 50]) == [0.001] * 6
    assert follow(schedule, [nan]) == [0.0001]


def test_plateau_drops_three_times_at_most() -> None:
    schedule = make("plateau", paper_recipe(plateau_patience=1), 90)
    assert follow(schedule, [50.0] * 8) == [0.01, 0.001, 0.0001, 0.00001] + [0.00001] * 4


def test_an_improvement_below_min_delta_counts_as_none() -> None:
    schedule = make("plateau", paper_recipe(plateau_patience=2, min_delta=1.0), 90)
    assert follow(schedule, [50, 49.5, 48.9, 48.5, 48.0]) == [0.01] * 4 + [0.001]


def test_drops_end_at_min_lr() -> None:
    recipe = paper_recipe(plateau_patience=1, drop_factor=2.0, plateau_drops=50, min_lr=0.003, bias_lr=0.002)
    schedule = make("plateau", recipe, 90)
    assert follow(schedule, [50.0] * 5) == [0.01, 0.005, 0.003, 0.003, 0.003]
    assert schedule.state["plateau_drops"] == 2  # no further ones: a checkpoint is kept before each
    assert rates(schedule, 0)["biases"] == 0.002  # less than min_lr from the start
    assert rates(make("steps", paper_recipe(min_lr=0.002), 90), 80)["weights"] == 0.002
    assert rates(make("cosine", paper_recipe(min_lr=0.002), 90), 89)["weights"] == 0.002
    with pytest.raises(InputError, match=r"--min-lr 0.1: must not be above --lr 0.01"):
        paper_recipe(min_lr=0.1)


def test_plateau_holds_the_sources_biases() -> None:
    schedule = make("plateau", source_recipe(plateau_patience=1), 91)
    follow(schedule, [50.0, 50.0])
    assert rates(schedule, 90) == {
        "conv1 weights": 0.001,
        "conv1 biases": 0.02,
        "weights": 0.001,
        "biases": 0.02,
    }


@pytest.mark.parametrize("stop", range(1, 9))
def test_plateau_goes_on_from_its_state_as_if_never_stopped(stop: int) -> None:
    errors = [50.0, 49, 49, 49, 48, 48, 48, 47, 47]
    recipe = paper_recipe(plateau_patience=2)
    whole = follow(make("plateau", recipe, 90), errors)
    first, second = make("plateau", recipe, 90), make("plateau", recipe, 90)
    follow(first, errors[:stop])
    second.state.update(first.state)
    assert follow(second, errors[stop:]) == whole[stop:]
    assert len(set(whole)) == 3


def test_a_state_before_the_first_validation() -> None:
    assert make("plateau", paper_recipe(), 90).state["best"] == inf


def test_a_cosine_falls_by_half_at_half_of_all_steps_and_holds_the_sources_biases() -> None:
    schedule = make("cosine", source_recipe(), 91)
    assert rates(schedule, 0)["weights"] == rates(schedule, 0)["conv1 weights"] == 0.01
    assert make("cosine", paper_recipe(), 90).factor("weights", 45) == pytest.approx(0.5)
    factors = [schedule.factor("weights", step) for step in range(91)]
    assert factors == sorted(factors, reverse=True) and 0 < factors[-1] < 0.001
    assert {schedule.factor(group, 90) for group in GROUPS if group.endswith("biases")} == {1.0}


def test_warm_up_raises_the_learning_rate_in_equal_steps() -> None:
    schedule = make("constant", paper_recipe(epochs=10, warmup_epochs=2), 20)
    seen = [rates(schedule, step)["weights"] for step in range(6)]
    assert seen == [0.0025, 0.005, 0.0075, 0.01, 0.01, 0.01]


def test_an_unknown_schedule_is_refused() -> None:
    with pytest.raises(InputError, match="--schedule never: must be one of steps, plateau, constant, cosine"):
        Settings(data="sample", recipe=paper_recipe(), schedule="never")
