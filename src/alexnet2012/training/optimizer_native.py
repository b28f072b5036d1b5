"""The paper's update of one tensor on the CPU in C++: five passes over memory instead of eleven."""

from __future__ import annotations

import ctypes
import functools

import torch
from torch import Tensor

from alexnet2012.core.native import BuildError, compiled

SOURCE = r"""
#include <cstdint>

extern "C" void paper_sgd(float* __restrict weight, float* __restrict velocity, const float* __restrict gradient,
                          int64_t n, float momentum, float shrink, float rate, const float* skip, int threads) {
  if (skip && *skip) return;
#pragma omp parallel for simd schedule(static) num_threads(threads)
  for (int64_t i = 0; i < n; ++i) {
    velocity[i] = momentum * velocity[i] - shrink * weight[i] - rate * gradient[i];
    weight[i] += velocity[i];
  }
}
"""


@functools.cache
def library() -> ctypes.CDLL | None:
    """The compiled update; None where it cannot be built, of which LRN's kernel warns."""
    try:
        built = compiled("paper_sgd", SOURCE)
    except BuildError:
        return None
    if built:
        long, number, pointer = ctypes.c_int64, ctypes.c_float, ctypes.c_void_p
        built.paper_sgd.argtypes = [*[pointer] * 3, long, *[number] * 3, pointer, ctypes.c_int]
        built.paper_sgd.restype = None
    return built


def update_kernel(device: torch.device) -> str:
    """What updates float32 weights on ``device``."""
    return "inline C++" if device.type == "cpu" and library() else "foreach"


def takes(weight: Tensor, velocity: Tensor) -> bool:
    """Whether the three are float32 on the CPU, dense, and in memory in the same order."""
    gradient = weight.grad
    return (
        gradient is not None
        and weight.device.type == "cpu"
        and weight.dtype == velocity.dtype == gradient.dtype == torch.float32
        and weight.stride() == velocity.stride() == gradient.stride()
        and (weight.is_contiguous() or weight.is_contiguous(memory_format=torch.channels_last))
        and library() is not None
    )


def update(
    weight: Tensor, velocity: Tensor, lr: float, momentum: float, weight_decay: float, skip: Tensor | None
) -> None:
    """``velocity <- momentum * velocity - weight_decay * lr * weight - lr * gradient; weight <- weight + velocity``.

    Nothing where ``skip``, float32 on the CPU, is not 0.
    """
    gradient, built = weight.grad, library()
    assert gradient is not None and built is not None
    pointers = weight.data_ptr(), velocity.data_ptr(), gradient.data_ptr()
    flag = None if skip is None else skip.data_ptr()
    built.paper_sgd(*pointers, weight.numel(), momentum, weight_decay * lr, lr, flag, torch.get_num_threads())
    torch.autograd.graph.increment_version([weight, velocity])
