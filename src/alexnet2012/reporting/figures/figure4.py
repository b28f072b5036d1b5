"""Paper figure 4: images with their most probable classes (left), and their nearest training images (right)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from alexnet2012.reporting.figures.style import (
    COLORS,
    COLUMN,
    OTHER,
    RIGHT,
    SMALL,
    lines_that_fit,
    new_figure,
    place,
    styled,
)  # fmt: skip

ACROSS = 4  # images in a row
CELL, IMAGE, BARS, ROW = COLUMN / ACROSS, 0.8, 0.6, 1.64  # inches: column width, image side, five bars, row height
GAP, NEAREST_ROW = 0.04, 0.86  # inches, for neighbours: between images, row height


@styled
def draw_guesses(
    images: NDArray[np.uint8],
    labels: Sequence[int | None],
    probabilities: NDArray[np.float32],
    class_names: list[str],
    crops: int = 10,
) -> Figure:
    """Draw images (n, 256, 256, 3), each with its correct class, if known, and bars for the five most probable ones.

    ``probabilities`` is (n, classes), averaged over ``crops``.
    """
    title = f"Most probable classes, %{', ten crops' * (crops == 10)}{' (orange: correct)' * (None not in labels)}"
    figure = new_figure(0.3 + ROW * -(-len(images) // ACROSS), title=title)
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
    """Draw the five most probable classes, the most probable on top, with their percentages on the right."""
    best = np.argsort(-probabilities, kind="stable")[:5]
    colors = [RIGHT if index == label else OTHER for index in best]
    axes.barh(range(len(best)), probabilities[best], color=colors, height=0.9)
    axes.set(xlim=(0, 1.25), ylim=(4.5, -0.5))
    for rank, index in enumerate(best):
        (name,) = lines_that_fit(class_names[index], 0.78 * IMAGE)
        axes.text(0.02, rank, name, fontsize=SMALL, va="center_baseline")
        percent = f"{100 * probabilities[index]:.0f}"
        axes.text(1.25, rank, percent, fontsize=SMALL, va="center_baseline", ha="right")


@dataclass(frozen=True)
class Neighbours:
    """A query image and its nearest training images."""

    query: NDArray[np.uint8]  # (256, 256, 3)
    query_class: str
    images: list[NDArray[np.uint8]]  # the nearest first
    classes: list[str]
    distances: list[float]  # Euclidean, of fc7


@styled
def draw_neighbours(rows: list[Neighbours], values: int, candidates: int, layer: str = "fc7") -> Figure:
    """Draw one row per query: the query, then its nearest images with class and distance; a frame marks the same class.

    ``values`` is the length of ``layer``, ``candidates`` the number of training images compared.
    """
    title = f"Queries (left) and the nearest of {candidates:,} training images\nby Euclidean distance of {layer}"
    figure = new_figure(0.45 + NEAREST_ROW * len(rows), title=f"{title} ({values} values); frame: same class")
    cell = COLUMN / (1 + len(rows[0].images))
    for index, row in enumerate(rows):
        draw_one(figure, 0.0, 0.45 + NEAREST_ROW * index, cell, row.query, row.query_class, "", COLORS[0])
        for rank, (image, name, distance) in enumerate(zip(row.images, row.classes, row.distances, strict=True)):
            frame = RIGHT if name == row.query_class else None
            draw_one(figure, cell * (1 + rank), 0.45 + NEAREST_ROW * index, cell, image, name, f"{distance:.2f}", frame)
    return figure


def draw_one(
    figure: Figure,
    left: float,
    top: float,
    cell: float,
    image: NDArray[np.uint8],
    name: str,
    below: str,
    frame: str | None,
) -> None:
    """Draw an image in a cell, with a line of text and its class in at most two lines below, and an optional frame."""
    side = cell - GAP
    axes = place(figure, left + GAP / 2, top, side, side)
    axes.imshow(image, interpolation="nearest")
    text = "\n".join([*([below] if below else []), *lines_that_fit(name, side, 2)])
    axes.text(0.5, -0.03, text, transform=axes.transAxes, fontsize=SMALL, ha="center", va="top", linespacing=1.0)
    if frame:
        axes.add_patch(Rectangle((0, 0), 1, 1, transform=axes.transAxes, fill=False, edgecolor=frame, linewidth=2))
