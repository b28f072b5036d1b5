"""Crops on the CPU in C++: cut and reflected in one pass over their bytes, normalized in another."""

from __future__ import annotations

import ctypes
import functools
import warnings

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from alexnet2012.core.native import BuildError, compiled

SOURCE = r"""
#include <cstdint>
#include <cstring>
#include <vector>

typedef uint8_t Block __attribute__((vector_size(16)));  // five pixels and a byte

// The crop of `size` pixels that begins at `image`, whose rows lie `stride` bytes apart; `reflect`ed left to right.
extern "C" void cut(const uint8_t* image, int64_t stride, int64_t size, int reflect, uint8_t* out) {
  for (int64_t y = 0; y < size; ++y, image += stride, out += 3 * size) {
    if (!reflect) {
      std::memcpy(out, image, 3 * size);
      continue;
    }
    int64_t x = 0;
    for (; x + 6 <= size; x += 5) {  // the sixteenth byte is that of another pixel, written anew by the next block
      Block block;
      std::memcpy(&block, image + 3 * x, 16);
#if defined(__clang__) || __GNUC__ >= 12
      block = __builtin_shufflevector(block, block, 15, 12, 13, 14, 9, 10, 11, 6, 7, 8, 3, 4, 5, 0, 1, 2);
#else
      block = __builtin_shuffle(block, Block{15, 12, 13, 14, 9, 10, 11, 6, 7, 8, 3, 4, 5, 0, 1, 2});
#endif
      std::memcpy(out + 3 * (size - 5 - x) - 1, &block, 16);
    }
    for (; x < size; ++x) std::memcpy(out + 3 * (size - 1 - x), image + 3 * x, 3);
  }
}

// crops -> out = (crop + noise - mean) / divisor, both (n, size, size, 3); mean: rows of `side` pixels, of which crop i
// covers what begins at its value places[i].
extern "C" void normalize(const uint8_t* crops, const float* noise, const float* mean, const int64_t* places,
                          float divisor, float* out, int64_t n, int64_t side, int64_t size) {
  const int64_t length = 3 * size;
  std::vector<float> shift(length);
  for (int64_t i = 0; i < n; ++i) {
    for (int64_t x = 0; x < length; ++x) shift[x] = noise[3 * i + x % 3];
    for (int64_t y = 0; y < size; ++y) {
      const uint8_t* __restrict row = crops + (i * size + y) * length;
      const float* __restrict less = mean + places[i] + y * 3 * side;
      const float* __restrict more = shift.data();
      float* __restrict to = out + (i * size + y) * length;
      for (int64_t x = 0; x < length; ++x) to[x] = ((float(row[x]) + more[x]) - less[x]) / divisor;
    }
  }
}
"""


@functools.cache
def library() -> ctypes.CDLL | None:
    """The compiled functions; None without a compiler, or, with a warning, where they cannot be built."""
    long, pointer = ctypes.c_int64, ctypes.c_void_p
    cut_types = [pointer, long, long, ctypes.c_int, pointer]
    normalize_types = [*[pointer] * 4, ctypes.c_float, pointer, *[long] * 3]
    try:
        return compiled("pixels", SOURCE, cut=cut_types, normalize=normalize_types)
    except BuildError as error:
        warnings.warn(f"numpy cuts the crops, as the C++ for it was not built: {error}", stacklevel=2)
        return None


def cut(built: ctypes.CDLL, image: NDArray[np.uint8], first: int, reflect: bool, out: NDArray[np.uint8]) -> None:
    """Write the crop of ``image`` (side, side, 3) that begins at its byte ``first`` into ``out`` (size, size, 3)."""
    built.cut(image.ctypes.data + first, image.strides[0], len(out), bool(reflect), out.ctypes.data)


def normalize(
    built: ctypes.CDLL,
    crops: Tensor,
    noise: NDArray[np.float32],
    mean: Tensor,
    places: NDArray[np.int64],
    divisor: float,
    out: Tensor,
) -> None:
    """``(crops + noise - mean) / divisor``: uint8 to float32, both (n, size, size, 3).

    ``places`` (n,): at which value of ``mean`` (2, side, side, 3) each crop begins.
    """
    arrays = crops.data_ptr(), noise.ctypes.data, mean.data_ptr(), places.ctypes.data
    built.normalize(*arrays, divisor, out.data_ptr(), len(crops), mean.shape[1], crops.shape[1])
