"""P figure 4, right: the training images that are nearest in the last hidden layer."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from alexnet2012.reporting.figures.style import COLORS, COLUMN, RIGHT, SMALL, lines_that_fit, new_figure, place, styled

GAP, ROW = 0.04, 0.86  # inches: between images; a row


@dataclass(frozen=True)
class Neighbours:
    """One query image and the training images nearest to it."""

    query: NDArray[np.uint8]  # (256, 256, 3)
    query_class: str
    images: list[NDArray[np.uint8]]  # the nearest first
    classes: list[str]
    distances: list[float]  # Euclidean, of fc7


@styled
def draw_neighbours(rows: list[Neighbours], values: int, candidates: int, layer: str = "fc7") -> Figure:
    """A row a query: the query, then its nearest images, their classes and distances; a frame marks its own class.

    ``values`` is the length of ``layer``, ``candidates`` the number of training images that were compared.
    """
    figure = new_figure(0.45 + ROW * len(rows))
    title = f"Queries (left) and the nearest of {candidates:,} training images\nby Euclidean distance of {layer}"
    figure.suptitle(f"{title} ({values} values); frame: same class", y=1 - 0.05 / figure.get_figheight(), va="top")
    cell = COLUMN / (1 + len(rows[0].images))
    for index, row in enumerate(rows):
        draw_one(figure, 0.0, 0.45 + ROW * index, cell, row.query, row.query_class, "", COLORS[0])
        for rank, (image, name, distance) in enumerate(zip(row.images, row.classes, row.distances, strict=True)):
            frame = RIGHT if name == row.query_class else None
            draw_one(figure, cell * (1 + rank), 0.45 + ROW * index, cell, image, name, f"{distance:.2f}", frame)
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
    """An image in a cell, its class in at most two lines, a text below, perhaps a coloured frame."""
    side = cell - GAP
    axes = place(figure, left + GAP / 2, top, side, side)
    axes.imshow(image, interpolation="nearest")
    text = "\n".join([*([below] if below else []), *lines_that_fit(name, side, 2)])
    axes.text(0.5, -0.03, text, transform=axes.transAxes, fontsize=SMALL, ha="center", va="top", linespacing=1.0)
    if frame:
        axes.add_patch(Rectangle((0, 0), 1, 1, transform=axes.transAxes, fill=False, edgecolor=frame, linewidth=2))
