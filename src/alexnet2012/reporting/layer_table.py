"""The net in numbers, as a table for a person."""

from __future__ import annotations

from collections.abc import Sequence

from rich.box import SIMPLE_HEAD
from rich.table import Table

from alexnet2012.network.summary import LayerNumbers

COLUMNS = ("layer", "output of a tower", "parameters", "multiply-\nadds", "kept", "crosses")
COUNTS = ("parameters", "multiply_adds", "kept", "crossing")


def layer_table(title: str, layers: Sequence[LayerNumbers]) -> Table:
    """A row a layer, and their sums; 80 columns wide for the paper's net."""
    caption = (
        "One image, forward. Kept: for the gradient, in float32, both towers on one device. "
        "Crosses: values that each tower sends the other before the layer."
    )
    table = Table(title=title, caption=caption, show_footer=True, box=SIMPLE_HEAD, pad_edge=False)
    sums = [sum(getattr(layer, name) for layer in layers) for name in COUNTS]
    for column, footer in zip(COLUMNS, ["sum", "", *counts(*sums)], strict=True):
        table.add_column(column, footer, justify="left" if column in COLUMNS[:2] else "right", no_wrap=True)
    for layer in layers:
        shapes = " > ".join("x".join(map(str, shape)) for shape in layer.shapes)
        table.add_row(layer.layer, shapes, *counts(*(getattr(layer, name) for name in COUNTS)))
    return table


def counts(parameters: int, multiply_adds: int, kept: int, crossing: int) -> list[str]:
    return [f"{parameters:,}", f"{multiply_adds / 1e6:,.1f} M", f"{kept / 1000:,.1f} KB", f"{crossing:,}"]
