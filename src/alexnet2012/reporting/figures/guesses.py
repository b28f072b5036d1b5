"""P figure 4, left: images and the five classes the net thinks most probable."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from alexnet2012.reporting.figures.style import COLUMN, OTHER, RIGHT, SMALL, lines_that_fit, new_figure, place, styled

ACROSS = 4  # images in a row
CELL, IMAGE, BARS, ROW = COLUMN / ACROSS, 0.8, 0.6, 1.64  # inches: a column; an image's side; five bars; a row


@styled
def draw_guesses(
    images: NDArray[np.uint8], labels: Sequence[int | None], probabilities: NDArray[np.float32], class_names: list[str]
) -> Figure:
    """Images (n, 256, 256, 3), each with its correct class if known and, as bars, the five most probable ones.

    ``probabilities`` is (n, classes), of ten crops.
    """
    figure = new_figure(0.3 + ROW * -(-len(images) // ACROSS))
    correct = "" if None in labels else " (orange: correct)"
    figure.suptitle(f"Most probable classes, %, ten crops{correct}", y=1 - 0.05 / figure.get_figheight(), va="top")
    for index, (image, label, row) in enumerate(zip(images, labels, probabilities, strict=True)):
        left, top = CELL * (index % ACROSS) + (CELL - IMAGE) / 2, 0.35 + ROW * (index // ACROSS)
        above = place(figure, left, top, IMAGE, IMAGE)
        above.imshow(image, interpolation="nearest")
        if label is not None:
            (name,) = lines_that_fit(class_names[label], IMAGE, bold=True)
            above.set_title(name, fontsize=SMALL, fontweight="bold", pad=2)
        draw_bars(place(figure, left, top + IMAGE + 0.04, IMAGE, BARS), row, label, class_names)
    return figure


def draw_bars(axes: Axes, probabilities: NDArray[np.float32], label: int | None, class_names: list[str]) -> None:
    """The five most probable classes, the most probable on top; the last fifth of the width is for the numbers."""
    best = np.argsort(-probabilities, kind="stable")[:5]
    colors = [RIGHT if index == label else OTHER for index in best]
    axes.barh(range(len(best)), probabilities[best], color=colors, height=0.9)
    axes.set(xlim=(0, 1.25), ylim=(4.5, -0.5))
    for rank, index in enumerate(best):
        (name,) = lines_that_fit(class_names[index], 0.78 * IMAGE)
        axes.text(0.02, rank, name, fontsize=SMALL, va="center_baseline")
        percent = f"{100 * probabilities[index]:.0f}"
        axes.text(1.25, rank, percent, fontsize=SMALL, va="center_baseline", ha="right")
