"""The paper's update of one tensor on CUDA: one Triton kernel, which reads and writes each value once."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from alexnet2012.training.optimizer_native import Scales

BLOCK = 1024  # values of a program: 8 a lane, one or two vector loads of 128 bits


@triton.jit
def _update(weight, velocity, copy, gradient, skip, n, momentum, shrink, rate, BLOCK: tl.constexpr):
    i = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    wanted = i < n
    if skip is not None:
        wanted = tl.where(tl.load(skip) == 0, wanted, False)
    w = tl.load(weight + i, mask=wanted)
    g = tl.load(gradient + i, mask=wanted).to(tl.float32)
    v = momentum * tl.load(velocity + i, mask=wanted) - shrink * w - rate * g
    tl.store(velocity + i, v, mask=wanted)
    tl.store(weight + i, w + v, mask=wanted)
    if copy is not None:
        tl.store(copy + i, (w + v).to(tl.bfloat16), mask=wanted)


def update(weight: Tensor, velocity: Tensor, copy: Tensor | None, scales: Scales, skip: Tensor | None) -> None:
    """As ``optimizer_native.update``, with ``skip`` on the device of ``weight``."""
    n = weight.numel()
    with torch.cuda.device_of(weight):
        _update[(triton.cdiv(n, BLOCK),)](weight, velocity, copy, weight.grad, skip, n, *scales, BLOCK)
