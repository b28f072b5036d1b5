"""Turns, medians and ratios; no test asks how long anything takes."""

from __future__ import annotations

import itertools

import pytest
import torch

from alexnet2012.benchmark import compare as timing
from alexnet2012.benchmark.compare import compare, compared

CPU = torch.device("cpu")


class Clock:
    """A clock that moves only when asked."""

    def __init__(self) -> None:
        self.now = 0.0

    def perf_counter(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(timing, "time", clock)
    return clock


def test_candidates_take_turns_and_repeat_to_fill_them(clock: Clock) -> None:
    called: list[tuple[str, float]] = []

    def candidate(name: str, seconds: float) -> None:
        called.append((name, seconds))
        clock.now += seconds

    candidates = {"quick": lambda: candidate("quick", 0.125), "slow": lambda: candidate("slow", 1.0)}
    taken = compare(candidates, CPU, rounds=2, seconds=0.5)
    assert taken == {"quick": (0.125, 0.125), "slow": (1.0, 1.0)}
    turns = [
        (name, sum(seconds for _, seconds in calls)) for name, calls in itertools.groupby(called, lambda call: call[0])
    ]
    assert [name for name, _ in turns[-4:]] == ["quick", "slow", "quick", "slow"]
    assert all(seconds >= 0.5 for _, seconds in turns[-4:])


def test_what_comes_before_a_turn_is_not_timed(clock: Clock) -> None:
    def work(seconds: float) -> None:
        clock.now += seconds

    taken = compare({"one": lambda: work(1)}, CPU, 3, 0, before={"one": lambda: work(100)})
    assert taken == {"one": (1.0, 1.0, 1.0)}


def test_ratios_are_of_the_same_round() -> None:
    """A machine that is twice as slow in the second round changes neither ratio."""
    results = {"ours": (1.0, 2.0, 1.0), "peer": (3.0, 6.0, 2.0), "limit": (0.5, 1.0, 0.5)}
    peer, limit = compared("lrn", "forward", results, {"peer": 8.0})
    assert (peer.beside, peer.ratio, peer.low, peer.high, peer.goal) == ("peer", 3.0, 2.0, 3.0, 8.0)
    assert (limit.beside, limit.ratio, limit.goal) == ("limit", 0.5, None)
    assert (peer.ours, peer.theirs, peer.unit) == (1000.0, 3000.0, "ms")


def test_images_make_rates() -> None:
    (figure,) = compared("step", "training", {"ours": (2.0,), "peer": (4.0,)}, images=32)
    assert (figure.ours, figure.theirs, figure.unit, figure.ratio) == (16.0, 8.0, "images/s", 2.0)
