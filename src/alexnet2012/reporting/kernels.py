"""conv1's kernels as a picture (P figure 3)."""

from __future__ import annotations

import torch
from torch import Tensor


def kernel_sheet(weights: dict[str, Tensor]) -> Tensor:
    """Tower 0's conv1 kernels above tower 1's, (3, height, width) in 0..1, all scaled alike about mid-grey.

    ``weights`` are the whole net's by name; each kernel pixel is drawn as 3x3 pixels.
    """
    from torchvision.utils import make_grid  # here: importing torchvision takes seconds

    towers = sorted(name for name in weights if name.endswith("conv1.weight"))
    kernels = torch.cat([weights[name].detach().float().cpu() for name in towers])
    scaled = 0.5 + kernels / (2 * kernels.abs().max().clamp_min(1e-12))
    return (
        make_grid(scaled, nrow=columns(len(kernels) // len(towers)), padding=1, pad_value=1.0)
        .repeat_interleave(3, 1)
        .repeat_interleave(3, 2)
    )


def columns(kernels: int) -> int:
    """Kernels in a row, so that a tower fills whole rows where it can: 16 for the paper's 48."""
    return next((n for n in range(16, 1, -1) if kernels % n == 0), kernels)
