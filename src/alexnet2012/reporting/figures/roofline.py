"""The roofline: operations per byte of each layer, and the peak of devices."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from alexnet2012.network.costs import Cost, Device
from alexnet2012.reporting.figures.style import COLORS, new_figure, styled


@styled
def draw_roofline(phases: Mapping[str, Sequence[Cost]], devices: Sequence[Device]) -> Figure:
    """Draw the rooflines of ``devices``, and the layers of each phase on that of the fastest device.

    Layers are labelled in the last phase only; the order is the same in all.
    """
    figure = new_figure(2.6, layout="constrained")
    axes = figure.subplots()
    most = max(cost.operations / cost.moved for costs in phases.values() for cost in costs)
    across = np.geomspace(1, 2 * most, 200)
    for device, color in zip(devices, COLORS, strict=False):
        axes.plot(across, np.minimum(device.flops, across * device.bandwidth) / 1e12, color=color, lw=1)
        place = (across[-1], device.flops / 1e12)
        axes.annotate(device.name, place, (0, 2), textcoords="offset points", ha="right", color=color)
    fastest = max(devices, key=lambda device: device.flops)
    for (phase, costs), marker in zip(phases.items(), "xo", strict=True):
        x = [cost.operations / cost.moved for cost in costs]
        y = [cost.operations / cost.seconds(fastest) / 1e12 for cost in costs]
        axes.plot(x, y, marker, ms=3, color="black", mfc="none", mew=0.5, label=phase)
    for cost, place in zip(costs, zip(x, y, strict=True), strict=True):
        axes.annotate(
            cost.layer, place, (0, -4), textcoords="offset points", fontsize=5, rotation=90, ha="center", va="top"
        )
    axes.set(xscale="log", yscale="log", xlabel="operations per byte moved", ylabel="TFLOP/s, at most")
    axes.margins(y=0.15)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter("{x:g}")
        axis.set_minor_formatter("")
    axes.legend(frameon=False, loc="upper left")
    return figure


@styled
def draw_parts(title: str, steps: Mapping[str, Mapping[str, float]]) -> Figure:
    """The milliseconds of training ``steps`` by part, as bars with their shares."""
    rows = sum(map(len, steps.values()))
    figure = new_figure(0.6 + 0.35 * len(steps) + 0.16 * rows, layout="constrained")
    figure.suptitle(title)
    heights = [len(parts) + 2 for parts in steps.values()]
    for axes, (step, parts) in zip(
        figure.subplots(len(steps), height_ratios=heights, squeeze=False).flat, steps.items(), strict=True
    ):
        whole = sum(parts.values())
        bars = axes.barh(list(parts), list(parts.values()), color=COLORS[0], height=0.7)
        axes.bar_label(bars, [f"{ms:.1f} ms, {100 * ms / whole:.1f} %" for ms in parts.values()], padding=2)
        axes.invert_yaxis()
        axes.set_title(f"{step}: {whole:.0f} ms a step", loc="left")
        axes.set_xlim(right=1.6 * max(parts.values()))
        axes.xaxis.set_visible(False)
    return figure
