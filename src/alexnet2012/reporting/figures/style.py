"""Style of all figures: one column wide, small type, colours that colour-blind readers can distinguish."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import TextPath

from alexnet2012.core.errors import InputError

COLUMN = 3.5  # inches
SMALL = 6  # points, the smallest type
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")  # Okabe and Ito
RIGHT, OTHER = "#E69F00", "#A6CEE8"  # the correct class, other classes
STYLE: Any = {
    "font.family": "DejaVu Sans",
    "font.size": 7,
    "axes.titlesize": 7,
    "axes.labelsize": 7,
    "xtick.labelsize": SMALL,
    "ytick.labelsize": SMALL,
    "legend.fontsize": SMALL,
    "figure.titlesize": 8,
    "axes.linewidth": 0.5,
    "xtick.major.width": 0.5,
    "ytick.major.width": 0.5,
    "savefig.dpi": 300,
    "pdf.fonttype": 42,  # TrueType: text stays text
}


def styled(draw: Callable[..., Any]) -> Callable[..., Any]:
    """A decorator that draws in this style."""

    @functools.wraps(draw)
    def drawn(*args: Any, **options: Any) -> Any:
        with matplotlib.rc_context(STYLE):
            return draw(*args, **options)

    return drawn


def new_figure(height: float, layout: str | None = None, title: str = "") -> Figure:
    """A figure one column wide and ``height`` inches high, without a window or global state."""
    figure = Figure((COLUMN, height), dpi=200, layout=layout)  # type: ignore[arg-type]
    if title:
        figure.suptitle(title, y=1 - 0.05 / height, va="top")
    return figure


def place(figure: Figure, left: float, top: float, width: float, height: float) -> Axes:
    """Add axes without ticks or frame, positioned in inches from the left and top edge."""
    across, down = figure.get_size_inches()
    axes = figure.add_axes((left / across, 1 - (top + height) / down, width / across, height / down))
    axes.set_axis_off()
    return axes


@styled
def save(figures: dict[str, Figure], directory: Path) -> list[Path]:
    """Write each figure as NAME.png and NAME.pdf. Returns the paths. Raises InputError if they cannot be written."""
    paths = [directory / f"{name}{suffix}" for name in figures for suffix in (".png", ".pdf")]
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for path in paths:
            figures[path.stem].savefig(path)
    except OSError as error:
        raise InputError(f"{directory}: figures cannot be written there ({error.strerror})") from error
    return paths


def lines_that_fit(name: str, inches: float, count: int = 1, bold: bool = False) -> list[str]:
    """A class name's first synonym in at most ``count`` lines of small type, the last one cut if necessary."""
    words = name.split(",")[0].split() or [""]
    lines = words[:1]
    for word in words[1:]:
        joined = f"{lines[-1]} {word}"
        if len(lines) < count and width_of(joined, bold) > inches:
            lines.append(word)
        else:
            lines[-1] = joined
    return [cut(line, inches, bold) for line in lines]


def cut(text: str, inches: float, bold: bool) -> str:
    """``text``, cut and with an ellipsis if it does not fit."""
    if width_of(text, bold) <= inches:
        return text
    text = text[: 1 + int(len(text) * inches / width_of(text, bold))]
    while text and width_of(text + "…", bold) > inches:
        text = text[:-1].rstrip()
    return text + "…"


@functools.cache
def width_of(text: str, bold: bool) -> float:
    """Width of ``text`` in inches, in small type."""
    font = FontProperties(family="DejaVu Sans", weight="bold" if bold else "normal")
    return TextPath((0, 0), text, size=SMALL, prop=font, usetex=False).get_extents().width / 72 if text else 0.0
