"""Local response normalisation, the paper's formula."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def local_response_norm(x: Tensor, size: int = 5, alpha: float = 1e-4, beta: float = 0.75, k: float = 2.0) -> Tensor:
    """``b_i = a_i / (k + alpha * sum_j a_j^2)^beta`` over ``size`` adjacent channels (P §3.3): the sum, not the mean."""
    if size < 1 or size % 2 == 0:
        raise ValueError(f"size {size}: the window is centred on a channel, so its size must be odd")
    a = x if x.dtype == torch.float64 else x.float()
    squares = F.pad(a.square().movedim(1, -1), (size // 2, size // 2))
    sums = squares.unfold(-1, size, 1).sum(-1).movedim(-1, 1)
    return torch.empty_like(x).copy_(a * (k + alpha * sums) ** -beta)


class LocalResponseNorm(nn.Module):
    def __init__(self, size: int = 5, alpha: float = 1e-4, beta: float = 0.75, k: float = 2.0) -> None:
        super().__init__()
        if size < 1 or size % 2 == 0:
            raise ValueError(f"size {size}: the window is centred on a channel, so its size must be odd")
        self.size, self.alpha, self.beta, self.k = size, alpha, beta, k

    def forward(self, x: Tensor) -> Tensor:
        return local_response_norm(x, self.size, self.alpha, self.beta, self.k)


class InMapResponseNorm(nn.Module):
    """S layers-145: the same formula, the sum over a ``size`` x ``size`` pixel window inside each map."""

    def __init__(self, size: int = 5, alpha: float = 0.001 / 25, beta: float = 0.75, k: float = 1.0) -> None:
        super().__init__()
        if size < 1 or size % 2 == 0:
            raise ValueError(f"size {size}: the window is centred on a pixel, so its size must be odd")
        self.size, self.alpha, self.beta, self.k = size, alpha, beta, k

    def forward(self, x: Tensor) -> Tensor:
        a = x if x.dtype == torch.float64 else x.float()
        sums = F.avg_pool2d(a.square(), self.size, 1, self.size // 2, divisor_override=1)
        return (a * (self.k + self.alpha * sums) ** -self.beta).to(x.dtype)
