"""Local response normalisation on the CPU in C++."""

from __future__ import annotations

import ctypes

import torch
from torch import Tensor

from alexnet2012.core.native import compiled
from alexnet2012.network.lrn.eager import Formula, Kernel

SOURCE = r"""
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

struct Formula { int64_t size; double alpha, beta, k, floor; };  // floor: 0 for ReLU's, nan, below nothing, for none

// max(x, floor) that keeps nan
template <typename T> inline T rectified(T x, T floor) { return x < floor ? floor : x; }

// Part of a (rows, channels, inner) tensor: `runs` contiguous runs of `length` values, `stride` apart; one run is the
// pixels of a channel or, if inner is 1, the channels of a pixel. In scratch memory runs lie `padded` apart, the first
// value at `first`, between zeros where there is no channel, so that a shift by `step` is a shift by one channel.
struct Tile { int64_t runs, length, stride, padded, first, step; };

// sum over the window that begins at q
template <int SIZE, typename T> inline T window(const T* q, int64_t size, int64_t step) {
  T sum = 0;
  for (int64_t j = 0; j < (SIZE ? SIZE : size); ++j) sum += q[j * step];  // SIZE known: unrolled, hence vectorised
  return sum;
}

// power = s^-beta, inverse = 1/s with s = k + alpha * window sum
template <int SIZE, typename T>
void scales(const T* __restrict squares, T* __restrict power, T* __restrict inverse, int64_t n, int64_t step,
            const Formula& f) {
  const T alpha = f.alpha, beta = f.beta, k = f.k;
  if (f.beta == 0.75)
    for (int64_t i = 0; i < n; ++i) {
      const T root = 1 / std::sqrt(k + alpha * window<SIZE>(squares + i, f.size, step));
      power[i] = root * std::sqrt(root);
      inverse[i] = root * root;
    }
  else
    for (int64_t i = 0; i < n; ++i) {
      inverse[i] = 1 / (k + alpha * window<SIZE>(squares + i, f.size, step));
      power[i] = std::pow(inverse[i], beta);
    }
}

// a / s^beta, or with grad: g_i s_i^-beta - 2 alpha beta a_i sum_j g_j a_j s_j^(-beta-1)
template <int SIZE, typename T>
void normalise(const T* a, const T* grad, T* out, T* buffer, T* power, T* inverse, const Tile& t, const Formula& f) {
  const T floor = f.floor;
  for (int64_t r = 0; r < t.runs; ++r) {
    const T* __restrict x = a + r * t.stride;
    T* __restrict square = buffer + t.first + r * t.padded;
    for (int64_t i = 0; i < t.length; ++i) square[i] = rectified(x[i], floor) * rectified(x[i], floor);
  }
  scales<SIZE>(buffer, power, inverse, (t.runs - 1) * t.padded + t.length, t.step, f);
  for (int64_t r = 0; r < t.runs; ++r) {
    const T* __restrict x = a + r * t.stride;
    const T* __restrict g = grad + r * t.stride;
    const T* __restrict p = power + r * t.padded;
    const T* __restrict q = inverse + r * t.padded;
    T* __restrict y = out + r * t.stride;
    T* __restrict term = buffer + t.first + r * t.padded;
    if (!grad)
      for (int64_t i = 0; i < t.length; ++i) y[i] = rectified(x[i], floor) * p[i];
    else {
      for (int64_t i = 0; i < t.length; ++i) y[i] = g[i] * p[i];
      for (int64_t i = 0; i < t.length; ++i) term[i] = y[i] * rectified(x[i], floor) * q[i];
    }
  }
  const T slope = 2 * f.alpha * f.beta;
  for (int64_t r = 0; grad && r < t.runs; ++r) {
    const T* __restrict x = a + r * t.stride;
    const T* __restrict terms = buffer + r * t.padded;
    T* __restrict y = out + r * t.stride;
    for (int64_t i = 0; i < t.length; ++i) {
      const T slopes = y[i] - slope * rectified(x[i], floor) * window<SIZE>(terms + i, f.size, t.step);
      y[i] = x[i] <= floor ? 0 : slopes;
    }
  }
}

template <int SIZE, typename T>
void run(const T* a, const T* grad, T* out, int64_t rows, int64_t channels, int64_t inner, Formula f, int threads) {
  const bool channels_last = inner == 1;
  const int64_t half = f.size / 2, padded = channels + 2 * half;
  const int64_t block = channels_last ? 64 : 256;  // pixels; their scratch stays in the L2 cache
  const int64_t pixels = channels_last ? rows : inner, blocks = (pixels + block - 1) / block;
  const int64_t tasks = channels_last ? blocks : blocks * rows;
#pragma omp parallel num_threads(int(std::min<int64_t>(threads, tasks)))
  {
    std::vector<T> buffer(padded * block), power(padded * block), inverse(padded * block);
#pragma omp for schedule(static)
    for (int64_t i = 0; i < tasks; ++i) {
      const int64_t start = i % blocks * block, width = std::min(block, pixels - start);
      const int64_t at = channels_last ? start * channels : i / blocks * channels * inner + start;
      const Tile tile = channels_last ? Tile{width, channels, channels, padded, half, 1}
                                      : Tile{channels, width, inner, block, half * block, block};
      normalise<SIZE>(a + at, grad ? grad + at : nullptr, out + at, buffer.data(), power.data(), inverse.data(), tile,
                      f);
    }
  }
}

template <typename T>
void run(const void* a, const void* grad, void* out, int64_t rows, int64_t channels, int64_t inner, Formula f,
         int threads) {
  auto sized = f.size == 5 ? run<5, T> : run<0, T>;
  sized((const T*)a, (const T*)grad, (T*)out, rows, channels, inner, f, threads);
}

extern "C" void local_response_norm(const void* a, const void* grad, void* out, int is_double, int64_t rows,
                                    int64_t channels, int64_t inner, int64_t size, double alpha, double beta, double k,
                                    int relu, int threads) {
  const Formula formula{size, alpha, beta, k, relu ? 0 : std::numeric_limits<double>::quiet_NaN()};
  (is_double ? run<double> : run<float>)(a, grad, out, rows, channels, inner, formula, threads);
}
"""


class Library:
    """The compiled kernel. Tensors are float32 or float64, contiguous (rows, C, inner), on the CPU."""

    def __init__(self, library: ctypes.CDLL) -> None:
        long, double, pointer = ctypes.c_int64, ctypes.c_double, ctypes.c_void_p
        self.call = library.local_response_norm
        self.call.argtypes = [*[pointer] * 3, ctypes.c_int, *[long] * 4, *[double] * 3, *[ctypes.c_int] * 2]
        self.call.restype = None

    def forward(self, a: Tensor, out: Tensor, formula: Formula) -> None:
        self._run(a, None, out, formula)

    def backward(self, a: Tensor, grad: Tensor, out: Tensor, formula: Formula) -> None:
        self._run(a, grad.data_ptr(), out, formula)

    def _run(self, a: Tensor, grad: int | None, out: Tensor, formula: Formula) -> None:
        is_double = a.dtype == torch.float64
        self.call(a.data_ptr(), grad, out.data_ptr(), is_double, *a.shape, *formula, torch.get_num_threads())


def build() -> Kernel | None:
    """The kernel; None if this machine has no C++ compiler. Raises BuildError."""
    if (library := compiled("response_norm", SOURCE)) is None:
        return None
    kernel = Library(library)
    return Kernel("inline C++", kernel.forward, kernel.backward)
