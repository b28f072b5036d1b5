"""Top-1 and top-5 error, counted so that ties do not flatter."""

from __future__ import annotations

import torch
from torch import Tensor


def credit(scores: Tensor, labels: Tensor, top: int) -> Tensor:
    """How right each row is at ``top``, 0 to 1: (n,) float64, for scores (n, classes) and labels (n,).

    clip((top - higher) / tied, 0, 1), where ``higher`` classes score above the true one and ``tied`` score as it
    does, itself included (the 2012 code's rule). A row with a score that is not finite is wrong.
    """
    true = scores.gather(1, labels[:, None])
    higher = (scores > true).sum(1)
    tied = (scores == true).sum(1)
    right = ((top - higher).double() / tied).clamp(0, 1)
    return torch.where(scores.isfinite().all(1), right, torch.zeros_like(right))
