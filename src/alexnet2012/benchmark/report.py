"""Speed, for a person to read."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator, Sequence
from datetime import date
from pathlib import Path

import torch

from alexnet2012.benchmark.compare import Figure
from alexnet2012.core.threads import cores


def machine(device: torch.device) -> dict[str, str]:
    """What the figures were measured on."""
    named = [line.partition(":")[2].strip() for line in cpu_lines() if line.startswith("model name")]
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


def cpu_lines() -> list[str]:
    path = Path("/proc/cpuinfo")
    return path.read_text().splitlines() if path.exists() else []


def speed_lines(figures: Sequence[Figure]) -> Iterator[str]:
    """What was measured, and below it a line for each peer or limit."""
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
