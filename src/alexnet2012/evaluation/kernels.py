"""conv1's kernels: as a picture (P figure 3), and how coloured they are."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor


def kernels_by_tower(weights: Mapping[str, Tensor]) -> list[Tensor]:
    """conv1's kernels (n, 3, 11, 11) of each tower, from the whole net's weights by name; grey ones thrice."""
    names = sorted(name for name in weights if name.endswith("conv1.weight"))
    return [weights[name].detach().float().cpu().expand(-1, 3, -1, -1) for name in names]


def scaled_alike(towers: list[Tensor]) -> list[Tensor]:
    """Kernels as pixels in 0..1 about mid-grey, all divided by the same largest weight."""
    largest = max(kernels.abs().max() for kernels in towers).clamp_min(1e-12)
    return [0.5 + kernels / (2 * largest) for kernels in towers]


def sheet(kernels: Tensor) -> Tensor:
    """Kernels in rows of equal length, parted by a white pixel: (3, height, width) in 0..1."""
    count, size = len(kernels), kernels.shape[-1]
    across = columns(count)
    framed = torch.nn.functional.pad(kernels, (0, 1, 0, 1), value=1.0)
    rows = framed.unflatten(0, (count // across, across)).permute(2, 0, 3, 1, 4)
    return rows.reshape(3, count // across * (size + 1), across * (size + 1))[:, :-1, :-1]


def kernel_sheet(weights: Mapping[str, Tensor]) -> Tensor:
    """Tower 0's kernels above tower 1's, (3, height, width) in 0..1; each kernel pixel is 3x3 pixels."""
    sheets = [
        torch.nn.functional.pad(sheet(k), (0, 0, 0, 3), value=1.0) for k in scaled_alike(kernels_by_tower(weights))
    ]
    return torch.cat(sheets, 1)[:, :-3].repeat_interleave(3, 1).repeat_interleave(3, 2)


def columns(kernels: int) -> int:
    """Kernels in a row, so that they fill whole rows where they can: 16 for the paper's 48."""
    return next((n for n in range(16, 1, -1) if kernels % n == 0), kernels)


def colour_share(kernels: Tensor) -> float:
    """How coloured kernels (n, 3, h, w) are, 0 to 1: the share of their squared weights off the grey axis.

    0 when red, green and blue weights are equal, 2/3 for random weights, 1 when they add up to nothing. It puts a
    number on the towers' specialisation, colour-agnostic and colour-specific, in P figure 3.
    """
    off_grey = kernels - kernels.mean(1, keepdim=True)
    return float(off_grey.square().sum() / kernels.square().sum().clamp_min(1e-30))
