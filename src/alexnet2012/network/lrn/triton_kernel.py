"""Local response normalisation on CUDA: one Triton kernel each way.

A lane holds a few adjacent channels of one pixel in registers, with those around them that their windows reach. So
device memory is read and written once forward, and read twice (input and gradient) and written once backward; what
lanes of neighbouring channels read again comes from the caches.
"""

# mypy: disable-error-code="assignment"
# (in a Triton kernel a tuple grows by +=)

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from alexnet2012.network.lrn.eager import Formula, Kernel

LANES = tl.constexpr(128)  # of a program, four warps
GROUP = 16  # channels of a lane where a channel's pixels are adjacent in memory: lanes are adjacent pixels
QUAD = 4  # channels of a lane where a pixel's channels are adjacent: one vector load, and lanes are adjacent quads
OCTET = 8  # the same of two-byte types


@triton.jit
def _place(size, stride, step, CHANNELS: tl.constexpr, GROUP: tl.constexpr, QUADS: tl.constexpr):
    """Each lane's first channel, where in memory that value is, and whether there is such a lane."""
    program = tl.program_id(0).to(tl.int64)
    groups: tl.constexpr = (CHANNELS + GROUP - 1) // GROUP
    if QUADS:  # ``size`` lanes over quads, then pixels
        lane = program * LANES + tl.arange(0, LANES)
        first, place = lane % groups * GROUP, lane * GROUP
    else:  # programs over groups, then blocks of a row's ``size`` pixels, then rows
        first, block, blocks = program % groups * GROUP, program // groups, tl.cdiv(size, LANES)
        lane = block % blocks * LANES + tl.arange(0, LANES)
        place = block // blocks * size * CHANNELS + first * step + lane * stride
    return tl.broadcast_to(first, (LANES,)), place, lane < size


@triton.jit
def _four(x):
    """The values of (LANES, 2, 2), in order."""
    even, odd = tl.split(x)
    c0, c2 = tl.split(even)
    c1, c3 = tl.split(odd)
    return c0, c1, c2, c3


@triton.jit
def _vector(tensor, first, place, exists, i: tl.constexpr, CHANNELS, WIDTH: tl.constexpr, TYPE):
    """``WIDTH`` channels, 4 or 8, from ``first + i`` on, in one load of a lane."""
    inside = exists & (first + i >= 0) & (first + i < CHANNELS)
    at = tensor + (place + i)[:, None] + tl.arange(0, WIDTH)[None, :]
    x = tl.load(at, mask=inside[:, None], other=0.0).to(TYPE)
    if WIDTH == 4:
        channels = _four(tl.reshape(x, (LANES, 2, 2)))
    else:
        even, odd = tl.split(tl.reshape(x, (LANES, 2, 2, 2)))
        c0, c2, c4, c6 = _four(even)
        c1, c3, c5, c7 = _four(odd)
        channels = (c0, c1, c2, c3, c4, c5, c6, c7)
    return channels


@triton.jit
def _load(tensor, first, place, exists, step, CHANNELS, GROUP, HALO: tl.constexpr, QUADS: tl.constexpr, TYPE):
    """Channels ``first - HALO`` to ``first + GROUP + HALO - 1`` as a tuple of (LANES,), zero where there is none."""
    channels = ()
    if QUADS:
        for i in tl.static_range(-HALO, 0, 4):
            channels += _vector(tensor, first, place, exists, i, CHANNELS, 4, TYPE)
        channels += _vector(tensor, first, place, exists, 0, CHANNELS, GROUP, TYPE)
        for i in tl.static_range(GROUP, GROUP + HALO, 4):
            channels += _vector(tensor, first, place, exists, i, CHANNELS, 4, TYPE)
    else:
        for i in tl.static_range(-HALO, GROUP + HALO):
            inside = exists & (first + i >= 0) & (first + i < CHANNELS)
            channels += (tl.load(tensor + place + i * step, mask=inside, other=0.0).to(TYPE),)
    return channels


@triton.jit
def _joined(c0, c1, c2, c3):
    """(LANES, 2, 2) of four in order."""
    return tl.join(tl.join(c0, c2), tl.join(c1, c3))


@triton.jit
def _store(tensor, values, first, place, exists, step, CHANNELS, GROUP: tl.constexpr, QUADS: tl.constexpr):
    if QUADS:
        if GROUP == 4:
            together = _joined(values[0], values[1], values[2], values[3])
        else:
            even = _joined(values[0], values[2], values[4], values[6])
            together = tl.join(even, _joined(values[1], values[3], values[5], values[7]))
        at = tensor + place[:, None] + tl.arange(0, GROUP)[None, :]
        tl.store(at, tl.reshape(together, (LANES, GROUP)), mask=exists[:, None])
    else:
        for i in tl.static_range(GROUP):
            tl.store(tensor + place + i * step, values[i], mask=exists & (first + i < CHANNELS))


@triton.jit
def _sum(values, FIRST: tl.constexpr, SIZE: tl.constexpr):
    total = values[FIRST]
    for i in tl.static_range(1, SIZE):
        total += values[FIRST + i]
    return total


@triton.jit
def _scales(sum, ALPHA: tl.constexpr, BETA: tl.constexpr, K: tl.constexpr):
    """``s^-beta`` and ``1/s`` of ``s = k + alpha * sum``."""
    s = K + ALPHA * sum
    if BETA == 0.75:
        root = tl.rsqrt(s)
        power, inverse = root * tl.sqrt(root), root * root
    else:
        power, inverse = tl.exp2(-BETA * tl.log2(s)), 1 / s
    return power, inverse


@triton.jit
def _rectified(x, RELU: tl.constexpr):
    """max(x, 0) that keeps nan, if there is a ReLU."""
    rectified = ()
    for i in tl.static_range(len(x)):
        rectified += (tl.where(x[i] < 0, 0.0, x[i]) if RELU else x[i],)
    return rectified


@triton.jit
def _squares(x):
    squares = ()
    for i in tl.static_range(len(x)):
        squares += (x[i] * x[i],)
    return squares


@triton.jit
def _forward(
    a, out, size, stride, step, CHANNELS: tl.constexpr, GROUP: tl.constexpr, QUADS: tl.constexpr, TYPE: tl.constexpr,
    HALO: tl.constexpr,
    SIZE: tl.constexpr, ALPHA: tl.constexpr, BETA: tl.constexpr, K: tl.constexpr, RELU: tl.constexpr,
):  # fmt: skip
    first, place, exists = _place(size, stride, step, CHANNELS, GROUP, QUADS)
    x = _rectified(_load(a, first, place, exists, step, CHANNELS, GROUP, HALO, QUADS, TYPE), RELU)
    squares, results = _squares(x), ()
    for i in tl.static_range(GROUP):
        power, _ = _scales(_sum(squares, HALO + i - SIZE // 2, SIZE), ALPHA, BETA, K)
        results += (x[HALO + i] * power,)
    _store(out, results, first, place, exists, step, CHANNELS, GROUP, QUADS)


@triton.jit
def _backward(
    a, grad, out, size, stride, step, CHANNELS: tl.constexpr, GROUP: tl.constexpr, QUADS: tl.constexpr,
    TYPE: tl.constexpr, HALO: tl.constexpr, FAR: tl.constexpr,
    SIZE: tl.constexpr, ALPHA: tl.constexpr, BETA: tl.constexpr, K: tl.constexpr, RELU: tl.constexpr,
):  # fmt: skip
    first, place, exists = _place(size, stride, step, CHANNELS, GROUP, QUADS)
    x = _rectified(_load(a, first, place, exists, step, CHANNELS, GROUP, FAR, QUADS, TYPE), RELU)
    g = _load(grad, first, place, exists, step, CHANNELS, GROUP, HALO, QUADS, TYPE)
    squares, scaled, terms, results = _squares(x), (), (), ()
    for i in tl.static_range(GROUP + SIZE - 1):  # channels first - SIZE // 2 and on
        power, inverse = _scales(_sum(squares, FAR + i - SIZE // 2 * 2, SIZE), ALPHA, BETA, K)
        scaled += (g[HALO + i - SIZE // 2] * power,)
        terms += (scaled[i] * x[FAR + i - SIZE // 2] * inverse,)
    for i in tl.static_range(GROUP):
        slope = scaled[i + SIZE // 2] - 2 * ALPHA * BETA * x[FAR + i] * _sum(terms, i, SIZE)
        results += (tl.where(x[FAR + i] == 0, 0.0, slope) if RELU else slope,)
    _store(out, results, first, place, exists, step, CHANNELS, GROUP, QUADS)


def _launch(kernel: Any, tensors: tuple[Tensor, ...], formula: Formula, *reach: int) -> None:
    """``reach``: the kernel's HALO and FAR, channels that a lane reads beyond its own, on either side."""
    rows, channels, inner = tensors[0].shape
    quads = inner == 1 and channels % QUAD == 0 and all(tensor.data_ptr() % 16 == 0 for tensor in tensors)
    if quads:
        group = OCTET if channels % OCTET == 0 and tensors[0].element_size() == 2 else QUAD
        size, stride, step, programs = rows * channels // group, group, 1, 1
        reach = tuple(triton.cdiv(halo, QUAD) * QUAD for halo in reach)
    elif inner == 1:
        group, size, stride, step, programs = GROUP, rows, channels, 1, triton.cdiv(channels, GROUP)
    else:
        group, size, stride, step, programs = GROUP, inner, 1, inner, triton.cdiv(channels, GROUP) * rows
    wide = tl.float64 if tensors[0].dtype == torch.float64 else tl.float32
    with torch.cuda.device_of(tensors[0]):
        kernel[(programs * triton.cdiv(size, LANES.value),)](
            *tensors, size, stride, step, channels, group, quads, wide, *reach, *formula, enable_fp_fusion=True
        )


def forward(a: Tensor, out: Tensor, formula: Formula) -> None:
    """``out = a / s^beta``, both contiguous (rows, C, inner)."""
    _launch(_forward, (a, out), formula, formula.size // 2)


def backward(a: Tensor, grad: Tensor, out: Tensor, formula: Formula) -> None:
    """``out_i = g_i s_i^-beta - 2 alpha beta a_i sum_j g_j a_j s_j^(-beta-1)``, all contiguous (rows, C, inner)."""
    _launch(_backward, (a, grad, out), formula, formula.size // 2, formula.size // 2 * 2)


TYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
KERNEL = Kernel("Triton", forward, backward, lambda x, formula: x.dtype in TYPES)
