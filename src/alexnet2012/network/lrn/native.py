"""Local response normalisation on the CPU in C++, in one pass over memory each way."""

from __future__ import annotations

import ctypes
import functools

import torch
from torch import Tensor

from alexnet2012.core.native import compiled
from alexnet2012.network.lrn.eager import Formula, Kernel
from alexnet2012.recipe import Recipe

LARGEST = 17  # window: it reaches no further than the vectors beside a value's own, on any processor

SOURCE = r"""
#include <algorithm>
#include <cstdint>
#include <cstring>
#include <limits>
#include <utility>
#include <vector>
#ifdef __AVX512BF16__
#include <immintrin.h>
#endif

#ifdef __AVX512F__
constexpr int BYTES = 64;
#elif defined(__AVX__)
constexpr int BYTES = 32;
#else
constexpr int BYTES = 16;
#endif
constexpr int LANES = BYTES / 4, WIDTH = 2 * LANES;

typedef float Vector __attribute__((vector_size(BYTES)));
typedef uint32_t Bits __attribute__((vector_size(BYTES)));
typedef uint16_t Halves __attribute__((vector_size(BYTES)));
struct bfloat16 { uint16_t bits; };

// WIDTH adjacent values: those at even places and those at odd ones. In bfloat16 these are the halves of words, and a
// window over adjacent values shifts half as often.
struct Block { Vector even, odd; };

template <typename F, typename... B> inline Block map(F f, const B&... x) { return {f(x.even...), f(x.odd...)}; }

// Of two vectors in a row, every STEP-th lane from FIRST on; of two in turn, lanes from FIRST and SECOND on.
template <int FIRST, int STEP, int... I> inline Vector lanes(Vector a, Vector b, std::integer_sequence<int, I...>) {
  return Vector{(FIRST + STEP * I < LANES ? a[(FIRST + STEP * I) % LANES] : b[(FIRST + STEP * I) % LANES])...};
}
template <int FIRST, int SECOND, typename V, int... I> inline V in_turn(V a, V b, std::integer_sequence<int, I...>) {
  return V{(I % 2 ? b[SECOND + I / 2] : a[FIRST + I / 2])...};
}
constexpr std::make_integer_sequence<int, LANES> ALL;

inline Block load(const float* p) {
  Vector a, b;
  memcpy(&a, p, BYTES);
  memcpy(&b, p + LANES, BYTES);
  return {lanes<0, 2>(a, b, ALL), lanes<1, 2>(a, b, ALL)};
}
inline void store(float* p, Block x) {
  const Vector a = in_turn<0, 0>(x.even, x.odd, ALL), b = in_turn<LANES / 2, LANES / 2>(x.even, x.odd, ALL);
  memcpy(p, &a, BYTES);
  memcpy(p + LANES, &b, BYTES);
}
inline Block load(const bfloat16* p) {
  Bits x;
  memcpy(&x, p, BYTES);
  return {(Vector)(x << 16), (Vector)(x & 0xffff0000)};
}
inline Bits rounded(Vector x) { return (Bits)x + 0x7fff + ((Bits)x >> 16 & 1); }  // to nearest, ties to even
inline void store(bfloat16* p, Block x) {
#ifdef __AVX512BF16__
  const Halves y = (Halves)_mm512_cvtne2ps_pbh((__m512)x.odd, (__m512)x.even);
  const Halves words = in_turn<0, LANES>(y, y, std::make_integer_sequence<int, WIDTH>{});
#else
  const Bits words = rounded(x.even) >> 16 | (rounded(x.odd) & 0xffff0000);
#endif
  memcpy(p, &words, BYTES);
}

// The first n values, and no byte more
template <typename T> inline Block load(const T* p, int64_t n) {
  if (n >= WIDTH) return load(p);
  T part[WIDTH] = {};
  std::copy(p, p + n, part);
  return load(part);
}
template <typename T> inline void store(T* p, Block x, int64_t n) {
  if (n >= WIDTH) return store(p, x);
  T part[WIDTH];
  store(part, x);
  std::copy(part, part + n, p);
}

// Which pairs of values have their pixel's channels in the pair `shift` pairs on, for every block in turn
struct Masks {
  static constexpr int REACH = HALF / 2 + 1, SHIFTS = 2 * REACH + 1;
  std::vector<Bits> table;
  explicit Masks(int64_t channels) {
    for (int64_t first = 0; table.empty() || first % channels; first += WIDTH)
      for (int64_t shift = -REACH; shift <= REACH; ++shift) {
        Bits mask;
        for (int i = 0; i < LANES; ++i) {
          const int64_t channel = (first + 2 * i) % channels + 2 * shift;
          mask[i] = channel >= 0 && channel < channels ? ~0u : 0;
        }
        table.push_back(mask);
      }
  }
  int64_t blocks() const { return table.size() / SHIFTS; }
  const Bits* of(int64_t block) const { return &table[block * SHIFTS + REACH]; }
};

// The values FROM to TO channels on from the even ones of x[1], summed; 0 where there is no channel
template <int FROM, int TO> inline Vector sum(const Block* x, const Bits* masks) {
  if constexpr (FROM < TO) return sum<FROM, TO - 1>(x, masks) + sum<TO, TO>(x, masks);
  constexpr int SHIFT = (TO - (TO & 1)) / 2, FIRST = SHIFT < 0 ? 0 : 1;
  const Vector a = TO & 1 ? x[FIRST].odd : x[FIRST].even, b = TO & 1 ? x[FIRST + 1].odd : x[FIRST + 1].even;
  if constexpr (SHIFT == 0) return a;
  return (Vector)((Bits)lanes<SHIFT < 0 ? LANES + SHIFT : SHIFT, 1>(a, b, ALL) & masks[SHIFT]);
}

// Sums over the window of each value of the middle block: across planes, or along channels
template <bool PLANES> inline Block window(const Block* x, const Bits* masks) {
  Block total = x[PLANES ? HALF : 1];
  if constexpr (PLANES)
    for (int i = 1; i <= HALF; ++i)
      total = map([](Vector a, Vector b, Vector c) { return a + (b + c); }, total, x[HALF - i], x[HALF + i]);
  else if constexpr (HALF > 0) {
    const Vector shared = sum<1 - HALF, HALF>(x, masks);
    total = {shared + sum<-HALF, -HALF>(x, masks), shared + sum<HALF + 1, HALF + 1>(x, masks)};
  }
  return total;
}

// s^-3/4 from an estimate whose fourth power is 1/s to e: a series in e
inline Vector power(Vector s) {
  const Vector r = (Vector)(0x4f581890 - ((Bits)s >> 2)), r2 = r * r, e = 1 - s * (r2 * r2), e2 = e * e;
  return r2 * r * ((1 + 0.75f * e) + e2 * ((0.65618f + 0.6015f * e) + e2 * (0.57592f + 0.5473f * e)));
}

template <int N> inline void push(Block (&x)[N], Block next) {
  for (int i = 0; i + 1 < N; ++i) x[i] = x[i + 1];
  x[N - 1] = next;
}

// floor: 0 for ReLU's, nan, below nothing, for none
struct Formula { float alpha, k, floor; };

// `blocks`, `step` values apart: the planes of some pixels, or all that a thread has of channels-last memory
struct Line { int64_t blocks, step, values; };

// a / s^beta, or backward g_i s_i^-beta - 2 alpha beta a_i sum_j g_j a_j s_j^(-beta-1). Blocks pass through registers:
// one is read, the one before it, whose window is complete then, divided by s, the one before that given its slope.
template <bool PLANES, bool BACKWARD, typename T>
void normalise(const T* a, const T* grad, T* out, const Line line, const Formula f, const Masks& masks) {
  constexpr int REACH = PLANES ? HALF : 1;  // blocks that a window reaches
  const auto values = [&](int64_t i) { return PLANES ? line.values : line.values - i * WIDTH; };
  const auto product = [](Vector u, Vector v) { return u * v; };
  Block x[2 * REACH + 1] = {}, squares[2 * REACH + 1] = {}, scaled[REACH + 1] = {}, terms[2 * REACH + 1] = {};
  const Bits *mask = nullptr, *mask_before = nullptr;
  int64_t in_turn = 0;
  for (int64_t i = 0; i < line.blocks + (BACKWARD ? 2 : 1) * REACH; ++i) {
    Block next = {}, y = {}, term = {};
    if (i < line.blocks) {
      for (int64_t ahead = 256; PLANES && ahead < 256 + WIDTH * int64_t(sizeof(T)); ahead += 64) {
        __builtin_prefetch((const char*)(a + i * line.step) + ahead);  // processors do not foresee such strides
        __builtin_prefetch((const char*)(out + i * line.step) + ahead, 1);
        if (BACKWARD) __builtin_prefetch((const char*)(grad + i * line.step) + ahead);
      }
      next = map([&](Vector v) { return v < f.floor ? f.floor - Vector{} : v; }, load(a + i * line.step, values(i)));
    }
    push(x, next);
    push(squares, map(product, next, next));
    const int64_t j = i - REACH, l = i - 2 * REACH;
    if (j >= 0 && j < line.blocks) {
      mask_before = mask, mask = masks.of(in_turn);
      in_turn = in_turn + 1 < masks.blocks() ? in_turn + 1 : 0;
      const Block s = map([&](Vector v) { return f.k + f.alpha * v; }, window<PLANES>(squares, mask));
      const Block p = map(power, s);
      if (!BACKWARD) store(out + j * line.step, map(product, x[REACH], p), values(j));
      else {
        const auto inverse = [](Vector s, Vector p) { return (p * s * p) * (p * s * p); };
        y = map(product, load(grad + j * line.step, values(j)), p);
        term = map(product, map(product, y, x[REACH]), map(inverse, s, p));
      }
    } else mask_before = mask;
    if (!BACKWARD) continue;
    push(scaled, y);
    push(terms, term);
    const auto slope = [&](Vector v, Vector y, Vector sum) {
      return v <= f.floor ? Vector{} : y - 1.5f * f.alpha * v * sum;
    };
    if (l >= 0) store(out + l * line.step, map(slope, x[0], scaled[0], window<PLANES>(terms, mask_before)), values(l));
  }
}

template <typename T>
void run(const void* a, const void* grad, void* out, int64_t rows, int64_t channels, int64_t inner, Formula f,
         int threads) {
  const bool planes = inner > 1;
  const auto normalised = planes ? grad ? normalise<true, true, T> : normalise<true, false, T>
                                 : grad ? normalise<false, true, T> : normalise<false, false, T>;
  const Masks masks(planes ? 1 : channels);
  const auto work = [&](int64_t at, Line line) {
    normalised((const T*)a + at, (const T*)grad + (grad ? at : 0), (T*)out + at, line, f, masks);
  };
  const int64_t width = std::min<int64_t>(inner, WIDTH), across = (inner + width - 1) / width, lines = rows * across;
  const int64_t slices = std::min<int64_t>(threads, lines);
#pragma omp parallel for num_threads(int(slices)) schedule(static, 1)
  for (int64_t slice = 0; slice < slices; ++slice) {
    const int64_t from = lines * slice / slices, to = lines * (slice + 1) / slices, values = (to - from) * channels;
    if (!planes) work(from * channels, {(values + WIDTH - 1) / WIDTH, WIDTH, values});
    for (int64_t i = from; planes && i < to; ++i)  // the last of a row overlaps the one before it
      work(i / across * channels * inner + std::min(i % across * width, inner - width), {channels, inner, width});
  }
}

extern "C" void local_response_norm(const void* a, const void* grad, void* out, int is_bfloat16, int64_t rows,
                                    int64_t channels, int64_t inner, float alpha, float k, int relu, int threads) {
  const Formula formula{alpha, k, relu ? 0 : std::numeric_limits<float>::quiet_NaN()};
  (is_bfloat16 ? run<bfloat16> : run<float>)(a, grad, out, rows, channels, inner, formula, threads);
}
"""


@functools.cache
def library(half: int) -> ctypes.CDLL | None:
    """Compiled for windows of ``half`` channels on either side; None without a compiler. Raises BuildError."""
    whole, long, number, pointer = ctypes.c_int, ctypes.c_int64, ctypes.c_float, ctypes.c_void_p
    types = [*[pointer] * 3, whole, *[long] * 3, *[number] * 2, *[whole] * 2]
    return compiled("response_norm", f"#define HALF {half}\n{SOURCE}", local_response_norm=types)


def takes(x: Tensor, formula: Formula) -> bool:
    """Whether it computes ``formula`` of ``x`` (N, C, ...)."""
    return (
        x.dtype in (torch.float32, torch.bfloat16)
        and formula.beta == 0.75
        and formula.size <= LARGEST
        and x.shape[1] % 2 == 0
    )


def forward(a: Tensor, out: Tensor, formula: Formula) -> None:
    """``out = a / s^beta``, both contiguous (rows, C, inner)."""
    _run(a, None, out, formula)


def backward(a: Tensor, grad: Tensor, out: Tensor, formula: Formula) -> None:
    """``out_i = g_i s_i^-beta - 2 alpha beta a_i sum_j g_j a_j s_j^(-beta-1)``, all contiguous (rows, C, inner)."""
    _run(a, grad.data_ptr(), out, formula)


def _run(a: Tensor, grad: int | None, out: Tensor, formula: Formula) -> None:
    size, alpha, _, k, relu = formula
    built, is_bfloat16 = library(size // 2), a.dtype == torch.bfloat16
    assert built is not None
    pointers = a.data_ptr(), grad, out.data_ptr()
    built.local_response_norm(*pointers, is_bfloat16, *a.shape, alpha, k, relu, torch.get_num_threads())


def build() -> Kernel | None:
    """The kernel, built for the paper's window; None if this machine has no C++ compiler. Raises BuildError."""
    return Kernel("inline C++", forward, backward, takes) if library(Recipe.lrn_size // 2) else None
