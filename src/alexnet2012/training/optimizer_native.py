"""The paper's update of one tensor on the CPU in C++: each value is read once and written once."""

from __future__ import annotations

import contextlib
import ctypes
import functools

import torch
from torch import Tensor

from alexnet2012.core.native import BuildError, compiled

Scales = tuple[float, float, float]
SOURCE = r"""
#include <cstdint>
#include <cstring>

struct bfloat16 { uint16_t bits; };

inline float widened(float x) { return x; }
inline float widened(bfloat16 x) {
  const uint32_t bits = uint32_t(x.bits) << 16;
  float y;
  memcpy(&y, &bits, 4);
  return y;
}
inline uint16_t rounded(float x) {  // to nearest, ties to even
  uint32_t bits;
  memcpy(&bits, &x, 4);
  return (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
}

template <bool COPY, typename G>
void update(float* __restrict weight, float* __restrict velocity, uint16_t* __restrict copy,
            const G* __restrict gradient, int64_t n, float momentum, float shrink, float rate, int threads) {
#pragma omp parallel for simd schedule(static) num_threads(threads)
  for (int64_t i = 0; i < n; ++i) {
    velocity[i] = momentum * velocity[i] - shrink * weight[i] - rate * widened(gradient[i]);
    weight[i] += velocity[i];
    if (COPY) copy[i] = rounded(weight[i]);
  }
}

extern "C" void paper_sgd(float* weight, float* velocity, uint16_t* copy, const void* gradient, int is_bfloat16,
                          int64_t n, float momentum, float shrink, float rate, const float* skip, int threads) {
  if (skip && *skip) return;
  const auto run = [&](const auto* g) {
    if (copy) update<true>(weight, velocity, copy, g, n, momentum, shrink, rate, threads);
    else update<false>(weight, velocity, copy, g, n, momentum, shrink, rate, threads);
  };
  if (is_bfloat16) run((const bfloat16*)gradient);
  else run((const float*)gradient);
}
"""


@functools.cache
def library() -> ctypes.CDLL | None:
    """The compiled update; None where it cannot be built, of which LRN's kernel warns."""
    whole, number, pointer = ctypes.c_int, ctypes.c_float, ctypes.c_void_p
    types = [*[pointer] * 4, whole, ctypes.c_int64, *[number] * 3, pointer, whole]
    with contextlib.suppress(BuildError):
        return compiled("paper_sgd", SOURCE, paper_sgd=types)
    return None


def update(weight: Tensor, velocity: Tensor, copy: Tensor | None, scales: Scales, skip: Tensor | None) -> None:
    """``velocity <- momentum * velocity - shrink * weight - rate * gradient; weight <- weight + velocity``.

    ``scales`` are momentum, shrink (weight decay times learning rate) and rate (the learning rate). ``copy`` becomes
    the new weight in bfloat16. Nothing changes where ``skip``, float32 on the CPU, is not 0.
    """
    gradient, built = weight.grad, library()
    assert gradient is not None and built is not None
    pointers = [None if x is None else x.data_ptr() for x in (weight, velocity, copy, gradient, skip)]
    is_bfloat16 = gradient.dtype == torch.bfloat16
    built.paper_sgd(*pointers[:4], is_bfloat16, weight.numel(), *scales, pointers[4], torch.get_num_threads())
