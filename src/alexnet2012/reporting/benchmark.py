"""Speed as a table for a person."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from datetime import date
from pathlib import Path

import torch
from rich.box import SIMPLE_HEAD
from rich.table import Table

from alexnet2012.benchmark.contest import Figure
from alexnet2012.distributed import cores


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


def speed_table(figures: Sequence[Figure]) -> Table:
    """A row for what was measured, then one for each peer or limit; 80 columns wide."""
    caption = "Ratio: how many times as fast ours is, the median of the rounds, then the least and the largest."
    table = Table(caption=caption, box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("measured, and beside what")
    for column in ("", "", "ratio", "least", "most", "goal"):
        table.add_column(column, justify="right", no_wrap=True)
    shown = ""
    for figure in figures:
        title = f"{figure.section}: {figure.what}"
        if title != shown:
            table.add_row(title, number(figure.ours), figure.unit)
        shown = title
        goal = "" if figure.goal is None else f"{figure.goal:g}" + " MISSED" * (figure.ratio < figure.goal)
        ratios = (f"{ratio:.2f}" for ratio in (figure.ratio, figure.low, figure.high))
        table.add_row(f"  {figure.beside}", number(figure.theirs), figure.unit, *ratios, goal)
    return table


def number(value: float) -> str:
    """Three digits, or all before the point."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
