"""Top-1 and top-5 error and the loss of softmax outputs."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

SMALLEST = torch.finfo(torch.float32).tiny  # 2^-126, a loss of 87.3 nats


@dataclass(frozen=True)
class ErrorRates:
    """Means over ``images`` images."""

    top1_error: float  # percent
    top5_error: float  # percent
    loss: float  # nats: the negative log probability of the true class
    images: int


def credit(scores: Tensor, labels: Tensor, top: int) -> Tensor:
    """Top-``top`` credit of each row, 0 to 1: (n,) float64, for scores (n, classes) and labels (n,).

    A tie earns fractional credit, as in the 2012 code: clip((top - higher) / tied, 0, 1), where ``higher`` classes
    score above the true class and ``tied`` classes, itself included, score the same. A row with a score that is not
    finite earns none.
    """
    true = scores.gather(1, labels[:, None])
    higher = (scores > true).sum(1)
    tied = (scores == true).sum(1)
    right = ((top - higher).double() / tied).clamp(0, 1)
    return torch.where(scores.isfinite().all(1), right, torch.zeros_like(right))


def negative_log_likelihood(probabilities: Tensor, labels: Tensor) -> Tensor:
    """The loss of each row in nats: (n,) float64, for probabilities (n, classes) and labels (n,).

    Probabilities are clamped to at least ``SMALLEST``, so that no single image makes a mean infinite. In a row with a
    value that is not finite the true class has probability 0.
    """
    true = probabilities.gather(1, labels[:, None])[:, 0].double()
    true = torch.where(probabilities.isfinite().all(1), true, torch.zeros_like(true))
    return -true.clamp(min=SMALLEST).log()


def error_measures(probabilities: Tensor, labels: Tensor) -> Tensor:
    """Top-1 error, top-5 error (0 to 1) and loss (nats) of each image: (3, n) float64."""
    wrong = [1 - credit(probabilities, labels, top) for top in (1, 5)]
    return torch.stack([*wrong, negative_log_likelihood(probabilities, labels)])


class ErrorCount:
    """Accumulates errors over batches."""

    def __init__(self) -> None:
        self.sums: Tensor | float = 0.0  # (3,) of error_measures, on the outputs' device
        self.images = 0

    def add(self, probabilities: Tensor, labels: Tensor) -> None:
        """Add softmax outputs (n, classes) of images with ``labels`` (n,)."""
        self.sums = self.sums + error_measures(probabilities, labels).sum(1)
        self.images += len(labels)

    def rates(self) -> ErrorRates:
        """The error rates so far. At least one image must have been added."""
        assert isinstance(self.sums, Tensor), "no image was counted"
        top1, top5, loss = (total / self.images for total in self.sums.tolist())
        return ErrorRates(100 * top1, 100 * top5, loss, self.images)
