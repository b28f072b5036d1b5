"""Timing on a machine that is never quite quiet, and the report of it.

Candidates take turns, and ratios are of the same round.
"""

from __future__ import annotations

import contextlib
import gc
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import torch

from alexnet2012.core.threads import cores

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
    rounds: int = 7,
    seconds: float = 0.1,
    before: Mapping[str, Callable[[], object]] | None = None,
) -> dict[str, Seconds]:
    """The candidates in turn, A B A B ..., after a round to warm up.

    A turn repeats its candidate for about ``seconds``, or calls it once; ``before`` a turn is not timed.
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


def beside_goal(section: str, what: str, unit: str, ours: float, goal: float) -> Figure:
    """A figure beside what is wanted: at most ``goal`` of it, or at least where the unit is images/s."""
    ratio = ours / goal if unit == "images/s" else goal / max(ours, 1e-9)
    return Figure(section, what, "what is wanted", unit, ours, goal, ratio, ratio, ratio, 1.0)


@contextlib.contextmanager
def on_one_core() -> Iterator[None]:
    """Threads begun within stay on one core, all on the same."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(before)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def timed(call: Callable[[], object], calls: int, device: torch.device) -> float:
    """Seconds until the device is done with ``calls`` calls."""
    wait = torch.cuda.synchronize if device.type == "cuda" else torch.cpu.synchronize
    wait(device)
    start = time.perf_counter()
    for _ in range(calls):
        call()
    wait(device)
    return time.perf_counter() - start


def compared(
    section: str,
    what: str,
    results: Mapping[str, Seconds],
    goals: Mapping[str, float] | None = None,
    images: int | None = None,
) -> Iterator[Figure]:
    """The first of ``results`` beside each other one; in images/s where a call passes ``images``, else in ms."""
    (_, ours), *others = results.items()
    for name, theirs in others:
        ratios = [b / a for a, b in zip(ours, theirs, strict=True)]
        mine, other = statistics.median(ours), statistics.median(theirs)
        unit, values = ("images/s", (images / mine, images / other)) if images else ("ms", (1000 * mine, 1000 * other))
        ratio, goal = statistics.median(ratios), (goals or {}).get(name)
        yield Figure(section, what, name, unit, *values, ratio, min(ratios), max(ratios), goal)


def machine(device: torch.device) -> dict[str, str]:
    """A description of the machine, by name."""
    described = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    named = [line.partition(":")[2].strip() for line in described if line.startswith("model name")]
    found = {
        "date": date.today().isoformat(),
        "processor": f"{cores()} cores of {named[0] if named else platform.processor()}",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "load": f"{os.getloadavg()[0]:.1f}",
    }
    if device.type == "cuda":
        found["device"] = torch.cuda.get_device_name(device)
    return found


def speed_lines(figures: Sequence[Figure]) -> Iterator[str]:
    """A line for each thing measured, and below it one for each peer or limit."""
    shown = ""
    for figure in figures:
        title = f"{figure.section}: {figure.what}: {number(figure.ours)} {figure.unit}"
        if title != shown:
            yield title
        shown = title
        goal = "" if figure.goal is None else f"; goal {figure.goal:g}" + " MISSED" * (figure.ratio < figure.goal)
        spread = f"({number(figure.low)} to {number(figure.high)})"
        theirs = f"{figure.beside}, {number(figure.theirs)} {figure.unit}"
        yield f"  {number(figure.ratio)} times {spread} as fast as {theirs}{goal}"


def number(value: float) -> str:
    """Three digits, or all before the point."""
    return f"{value:,.0f}" if value >= 100 else f"{value:#.3g}"


def forget_peak(device: torch.device) -> int:
    """Bytes in use now, from where the peak is counted anew."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return torch.cuda.memory_allocated(device)
    Path("/proc/self/clear_refs").write_text("5")  # Linux: the peak of the resident memory is that of now
    return peak(device)


def peak(device: torch.device) -> int:
    """The largest number of bytes in use by this process since ``forget_peak``, or since it began."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    # Not getrusage, which gives the parent's where that held more.
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return 1024 * int(line.split()[1])
