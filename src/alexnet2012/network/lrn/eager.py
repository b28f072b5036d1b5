"""Local response normalisation in torch operations, for any device.

On a CPU few rows are taken at a time, so that every operation but the first and the last works in the cache.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

CACHED_VALUES = 128 * 1024  # of a tensor at a time: 512 KiB in float32, and at most five scratch tensors of that size


class Formula(NamedTuple):
    """``b_i = a_i / s_i^beta`` with ``s_i = k + alpha * sum_j a_j^2`` over ``size`` adjacent channels (P §3.3).

    With ``relu`` what is given is x, and a = max(x, 0).
    """

    size: int
    alpha: float
    beta: float
    k: float
    relu: bool = False


class Kernel(NamedTuple):
    """One way to compute the formula on contiguous (rows, C, inner) tensors of one shape and type."""

    name: str
    forward: Callable[[Tensor, Tensor, Formula], None]  # (a, out, formula)
    backward: Callable[[Tensor, Tensor, Tensor, Formula], None]  # (a, gradient of b, out, formula)
    takes: Callable[[Tensor, Formula], bool]  # whether it computes a formula of (N, C, ...); else the eager kernel does


class Window:
    """Sums over ``size`` adjacent channels of (rows, C, inner), as a sum of shifted copies of one flat buffer.

    ``size - 1`` channels of ``edge`` part the rows, so a shift by one channel is a shift of flat memory by ``inner``.
    """

    def __init__(self, a: Tensor, size: int, edge: float = 0.0) -> None:
        rows, self.channels, self.inner = a.shape
        self.size, self.padded = size, self.channels + size - 1
        self.buffer = a.new_full(((rows * self.padded + size - 1) * self.inner,), edge)
        self.scratch = a.new_empty(rows, self.padded, self.inner)

    def values(self, rows: int) -> Tensor:
        """Where to put what is to be summed, (rows, C, inner)."""
        padded = self.buffer[: rows * self.padded * self.inner].view(rows, self.padded, self.inner)
        return padded[:, self.size // 2 :][:, : self.channels]

    def sums(self, rows: int) -> Tensor:
        """(rows, C + size - 1, inner), of which the first C channels are window sums. Overwrites ``scratch``."""
        sums = self.scratch[:rows]
        shifted = self.buffer.as_strided((self.size, sums.numel()), (self.inner, 1))
        torch.sum(shifted, 0, out=sums.view(-1))
        return sums


def _chunks(a: Tensor) -> int:
    """Rows of (rows, C, inner) to take at a time."""
    return max(1, min(len(a), CACHED_VALUES // a[0].numel())) if a.device.type == "cpu" else len(a)


def _divide(a: Tensor, s: Tensor, beta: float, power: Tensor, out: Tensor) -> None:
    """``out = a / s^beta``; ``s`` and ``power`` (scratch, may be ``s``) have further channels behind those of ``a``."""
    if beta == 0.75:  # s^-0.75 as 1/sqrt(s) * sqrt(1/sqrt(s)): square roots are cheap, powers are not
        torch.rsqrt(s, out=power)
        torch.mul(a, power[:, : a.shape[1]], out=out)
        torch.sqrt(power, out=power)
        out.mul_(power[:, : a.shape[1]])
    else:
        torch.pow(s, -beta, out=power)
        torch.mul(a, power[:, : a.shape[1]], out=out)


def forward(a: Tensor, out: Tensor, formula: Formula) -> None:
    """``out = a / s^beta``, both contiguous (rows, C, inner)."""
    size, alpha, beta, k, relu = formula
    rows = _chunks(a)
    share = a.new_tensor(k / size)  # of every term of a window, so that the sum is s
    window = Window(a[:rows], size, k / size)
    for x, y in zip(a.split(rows), out.split(rows), strict=True):
        x = x.relu() if relu else x
        torch.addcmul(share, x, x, value=alpha, out=window.values(len(x)))
        s = window.sums(len(x))
        _divide(x, s, beta, s, y)


def backward(a: Tensor, grad: Tensor, out: Tensor, formula: Formula) -> None:
    """``out_i = g_i s_i^-beta - 2 alpha beta a_i sum_j g_j a_j s_j^(-beta-1)``, all contiguous (rows, C, inner)."""
    size, alpha, beta, k, relu = formula
    rows = _chunks(a)
    share = a.new_tensor(k / size)
    window, terms = Window(a[:rows], size, k / size), Window(a[:rows], size)
    for x, g, y in zip(a.split(rows), grad.split(rows), out.split(rows), strict=True):
        x = x.relu() if relu else x
        torch.addcmul(share, x, x, value=alpha, out=window.values(len(x)))
        s = window.sums(len(x))
        _divide(g, s, beta, terms.scratch[: len(x)], y)
        term = terms.values(len(x))
        torch.mul(y, x, out=term)
        term.div_(s[:, : x.shape[1]])
        y.addcmul_(x, terms.sums(len(x))[:, : x.shape[1]], value=-2 * alpha * beta)
        if relu:
            y.masked_fill_(x == 0, 0)


KERNEL = Kernel("eager", forward, backward, lambda x, formula: x.dtype in (torch.float32, torch.float64))
