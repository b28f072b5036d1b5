"""Top-1 and top-5 error, counted so that ties do not flatter."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class ErrorRates:
    """Of ``images`` images, in percent."""

    top1_error: float
    top5_error: float
    images: int


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


class ErrorCount:
    """Errors of images that arrive in batches."""

    def __init__(self) -> None:
        self.right: Tensor | float = 0.0  # (2,) credits for top-1 and top-5, on the scores' device
        self.images = 0

    def add(self, scores: Tensor, labels: Tensor) -> None:
        """Count in scores (n, classes) for images of ``labels`` (n,)."""
        self.right = self.right + torch.stack([credit(scores, labels, top).sum() for top in (1, 5)])
        self.images += len(labels)

    def rates(self) -> ErrorRates:
        """Of the images so far, of which there is at least one."""
        assert isinstance(self.right, Tensor), "no image was counted"
        top1, top5 = (100 * (self.images - right) / self.images for right in self.right.tolist())
        return ErrorRates(top1, top5, self.images)
