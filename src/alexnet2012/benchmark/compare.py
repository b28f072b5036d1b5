"""Timing on a machine that is never quite quiet: candidates take turns, and ratios are of the same round."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch

ROUNDS = 7
SECONDS = 0.1  # that a turn lasts at least
Seconds = tuple[float, ...]  # that a call took, a value a round


@dataclass(frozen=True)
class Figure:
    """One line of the table: ours beside a peer or a limit."""

    section: str
    what: str
    beside: str
    unit: str  # "ms", of which less is better, or "images/s", of which more is
    ours: float  # median over the rounds
    theirs: float
    ratio: float  # how many times as fast ours is: median over the rounds
    low: float  # the least ratio of a round
    high: float  # the largest
    goal: float | None = None  # the ratio that is wanted


def compare(
    candidates: Mapping[str, Callable[[], object]],
    device: torch.device,
    rounds: int = ROUNDS,
    seconds: float = SECONDS,
    before: Mapping[str, Callable[[], object]] | None = None,
) -> dict[str, Seconds]:
    """The candidates in turn, A B A B ..., after a round to warm up.

    A turn repeats its candidate for about ``seconds``; ``before`` has what is to be done, untimed, before a turn.
    """
    calls = {}
    for name, call in candidates.items():
        timed(call, 1, device)
        calls[name] = max(1, round(seconds / timed(call, 1, device))) if seconds else 1
    taken: dict[str, list[float]] = {name: [] for name in candidates}
    for _ in range(rounds):
        for name, call in candidates.items():
            (before or {}).get(name, gc.collect)()
            taken[name].append(timed(call, calls[name], device) / calls[name])
    return {name: tuple(each) for name, each in taken.items()}


def timed(call: Callable[[], object], calls: int, device: torch.device) -> float:
    """Seconds until the device is done with ``calls`` calls."""
    wait_for(device)
    start = time.perf_counter()
    for _ in range(calls):
        call()
    wait_for(device)
    return time.perf_counter() - start


def wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def compared(
    section: str,
    what: str,
    results: Mapping[str, Seconds],
    goals: Mapping[str, float] | None = None,
    images: int | None = None,
) -> list[Figure]:
    """The first of ``results`` beside each other one; in images/s where a call passes ``images``, else in ms."""
    (_, ours), *others = results.items()
    return [beside(section, what, ours, name, theirs, (goals or {}).get(name), images) for name, theirs in others]


def beside(
    section: str, what: str, ours: Seconds, name: str, theirs: Seconds, goal: float | None, images: int | None
) -> Figure:
    ratios = [b / a for a, b in zip(ours, theirs, strict=True)]
    mine, other = (statistics.median(each) for each in (ours, theirs))
    unit, values = ("images/s", (images / mine, images / other)) if images else ("ms", (1000 * mine, 1000 * other))
    ratio, low, high = statistics.median(ratios), min(ratios), max(ratios)
    return Figure(section, what, name, unit, values[0], values[1], ratio, low, high, goal)
