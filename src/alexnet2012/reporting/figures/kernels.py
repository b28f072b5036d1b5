"""P figure 3: the kernels of conv1."""

from __future__ import annotations

from collections.abc import Mapping

from matplotlib.figure import Figure
from torch import Tensor

from alexnet2012.evaluation.features import colour_share, kernels_by_tower, scaled_alike, sheet
from alexnet2012.reporting.figures.style import COLUMN, new_figure, styled


@styled
def draw_kernels(weights: Mapping[str, Tensor]) -> Figure:
    """conv1's kernels, tower 0 above tower 1, all scaled alike; beside each tower the share of colour in its weights.

    ``weights`` are the whole net's by name.
    """
    towers = kernels_by_tower(weights)
    sheets = [sheet(kernels) for kernels in scaled_alike(towers)]
    height = sum(COLUMN * pixels.shape[1] / pixels.shape[2] for pixels in sheets)
    figure = new_figure(height + 0.25 * len(towers) + 0.25, "constrained")
    count, _, size, _ = towers[0].shape
    figure.suptitle(f"conv1: {count * len(towers)} kernels of {size}x{size}x3 pixels, scaled alike")
    panels = figure.subplots(len(towers), 1, squeeze=False)[:, 0]
    for tower, (axes, kernels, pixels) in enumerate(zip(panels, towers, sheets, strict=True)):
        axes.imshow(pixels.permute(1, 2, 0).numpy(), interpolation="nearest")
        axes.set_axis_off()
        axes.set_title(f"tower {tower}", loc="left")
        axes.set_title(f"colour: {100 * colour_share(kernels):.1f} % of the squared weights", loc="right")
    return figure
