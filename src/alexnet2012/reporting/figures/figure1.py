"""P figure 1: ReLUs learn faster than tanh. And what LRN does to the same net (P §3.3)."""

from __future__ import annotations

from collections.abc import Mapping

from matplotlib.figure import Figure

from alexnet2012.reporting.figures.style import COLORS, SMALL, new_figure, styled
from alexnet2012.training.four_layers import GOAL, Learning

LINES = {"relu": "-", "tanh": "--", "relu with LRN": ":"}
IN_2012 = "2012, CIFAR-10: ReLU six times as fast; test error 13 % without LRN, 11 % with"  # P §3.1, §3.3


@styled
def draw_figure1(learned: Mapping[str, Learning], data: str, images: int) -> Figure:
    """Training error against epochs, the dashed line at 25 %, and the claims in words below."""
    figure = new_figure(3.0, "constrained")
    axes = figure.subplots()
    for (name, learning), color in zip(learned.items(), COLORS, strict=False):
        label = f"{name}, rate {learning.rate:g}"
        axes.plot(learning.epochs, learning.errors, LINES[name], color=color, linewidth=0.9, label=label)
    axes.axhline(GOAL, color="black", linestyle="--", linewidth=0.5)
    axes.set(xlabel="epochs", ylabel="training error, %", ylim=(0, None), xlim=(0, None))
    axes.set_title(f"Four layers on {data}, {images} images")
    axes.legend(frameon=False)
    figure.supxlabel("\n".join([*claims(learned), IN_2012]), fontsize=SMALL)
    return figure


def claims(learned: Mapping[str, Learning]) -> list[str]:
    """The paper's two claims about the small net, as measured here."""
    with_lrn, without = learned["relu with LRN"].test_error, learned["relu"].test_error
    return [f"here: {ratio(learned)}", f"here: test error {without:.1f} % without LRN, {with_lrn:.1f} % with"]


def ratio(learned: Mapping[str, Learning]) -> str:
    """Epochs to reach 25 % training error, and how many times faster ReLU is."""
    relu, tanh = learned["relu"].reached, learned["tanh"].reached
    if relu is None:
        return f"{GOAL:g} % training error not reached"
    if tanh is None:
        last = learned["tanh"].epochs[-1]
        return f"{GOAL:g} % reached by ReLU in {relu:.1f} epochs, by tanh not in {last:.0f}"
    return f"{GOAL:g} % reached by ReLU in {relu:.1f} epochs, by tanh in {tanh:.1f}: {tanh / relu:.1f} times as fast"
