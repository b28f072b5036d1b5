"""Local response normalisation (P §3.3), and the in-map one of the authors' records (S layers-145).

The formula is here; how it is computed is in ``eager.py`` (torch operations, any device),
``native.py`` (CPU, where a C++ compiler is found) and ``triton_kernel.py`` (CUDA).
"""

from __future__ import annotations

import functools
import importlib.util
import warnings
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.nn import functional as F

from alexnet2012.core.native import BuildError
from alexnet2012.network.lrn import eager, native
from alexnet2012.network.lrn.eager import Formula, Kernel
from alexnet2012.recipe import Recipe

_choice = "fast"


def use_lrn_kernel(choice: str) -> None:
    """Compute with the device's best kernel, ``"fast"`` (the default), or with plain torch operations, ``"eager"``."""
    global _choice
    if choice not in ("fast", "eager"):
        raise ValueError(f"LRN kernel {choice!r}: must be fast or eager")
    _choice = choice


def lrn_kernel(device: torch.device | str) -> str:
    """What computes LRN on ``device``: ``inline C++``, ``Triton`` or ``eager``, with the reason if that is second best.

    The first question about a CPU builds the C++ kernel: seconds, once per machine.
    """
    return _kernel(torch.device(device)).name


def _kernel(device: torch.device) -> Kernel:
    return eager.KERNEL if _choice == "eager" else _fast_kernel(device.type)


@functools.cache
def _fast_kernel(device_type: str) -> Kernel:
    if device_type == "cpu":
        try:
            return native.build() or eager.KERNEL._replace(name="eager (no C++ compiler)")
        except BuildError as error:
            warnings.warn(f"LRN runs its slower eager kernel, as the C++ one was not built: {error}", stacklevel=2)
            return eager.KERNEL._replace(name="eager (the C++ build failed)")
    if device_type == "cuda" and importlib.util.find_spec("triton") is None:
        return eager.KERNEL._replace(name="eager (no Triton)")
    if device_type == "cuda":
        from alexnet2012.network.lrn import triton_kernel

        return triton_kernel.KERNEL
    return eager.KERNEL


def _dense(x: Tensor) -> Tensor:
    """``x``, or a copy, whose memory holds the channels right before or right after the pixels."""
    if x.is_contiguous() or x.movedim(1, -1).is_contiguous():
        return x
    x = x.clone()  # in the order of its strides
    return x if x.movedim(1, -1).is_contiguous() else x.contiguous()


def _rows(x: Tensor) -> Tensor:
    """A dense (N, C, ...) as contiguous (rows, C, inner): (N, C, pixels), or (N * pixels, C, 1) of channels-last."""
    images, channels = x.shape[:2]
    pixels = x.shape[2:].numel()
    return x.view(images, channels, pixels) if x.is_contiguous() else x.movedim(1, -1).view(-1, channels, 1)


def _prepared(x: Tensor, formula: Formula) -> tuple[Kernel, Tensor]:
    """The kernel that computes ``formula`` of ``x``, and ``x`` dense and of a type that it takes."""
    kernel, x = _kernel(x.device), _dense(x)
    if kernel.takes(x, formula):
        return kernel, x
    return eager.KERNEL, x if x.dtype == torch.float64 else x.float()


@torch.library.custom_op("alexnet2012::local_response_norm", mutates_args=())
def _forward(x: Tensor, size: int, alpha: float, beta: float, k: float, relu: bool) -> Tensor:
    formula = Formula(size, alpha, beta, k, relu)
    kernel, a = _prepared(x, formula)
    out = torch.empty_like(a)
    if a.numel():
        kernel.forward(_rows(a), _rows(out), formula)
    return out.to(x.dtype)


@torch.library.custom_op("alexnet2012::local_response_norm_backward", mutates_args=())
def _backward(grad: Tensor, x: Tensor, size: int, alpha: float, beta: float, k: float, relu: bool) -> Tensor:
    formula = Formula(size, alpha, beta, k, relu)
    kernel, a = _prepared(x, formula)
    if grad.stride() != a.stride() or grad.dtype != a.dtype:
        grad = torch.empty_like(a).copy_(grad)
    out = torch.empty_like(a)
    if a.numel():
        kernel.backward(_rows(a), _rows(grad), _rows(out), formula)
    return out.to(x.dtype)


@_forward.register_fake
def _(x: Tensor, size: int, alpha: float, beta: float, k: float, relu: bool) -> Tensor:
    return torch.empty_like(_dense(x))


@_backward.register_fake
def _(grad: Tensor, x: Tensor, size: int, alpha: float, beta: float, k: float, relu: bool) -> Tensor:
    return torch.empty_like(_dense(x))


def _save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, *ctx.formula = inputs
    ctx.save_for_backward(x)  # alone: the window sums are recomputed, cheaper than their traffic to memory


def _gradients(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    return _backward(grad, *ctx.saved_tensors, *ctx.formula), None, None, None, None, None


_forward.register_autograd(_gradients, setup_context=_save)


def _odd(size: int) -> int:
    if size != int(size) or size < 1 or size % 2 == 0:
        raise ValueError(f"size {size}: the window is centred (P §3.3), so its size must be odd")
    return int(size)


def local_response_norm(
    x: Tensor,
    size: int = Recipe.lrn_size,
    alpha: float = Recipe.lrn_alpha,
    beta: float = Recipe.lrn_beta,
    k: float = Recipe.lrn_k,
    relu: bool = False,
) -> Tensor:
    """``b_i = a_i / (k + alpha * sum_j a_j^2)^beta``, j over ``size`` adjacent channels, fewer at the ends (P §3.3).

    The paper's sum: ``torch.nn.LocalResponseNorm`` takes the mean, so ``alpha=1e-4`` here is its ``alpha=5e-4``.
    ``x``: (N, C, ...) of any float type, computed in float32 at least; dtype and memory format are kept. a is ``x``
    or, with ``relu``, max(x, 0): the ReLU that comes before LRN in the same pass over memory.
    Differentiable once, in reverse mode: raises NotImplementedError in forward mode, and ValueError for an even
    ``size``.
    """
    if not torch.compiler.is_compiling() and forward_ad.unpack_dual(x).tangent is not None:
        raise NotImplementedError("LRN has no forward-mode derivative; use reverse mode")  # torch would take zero
    if x.ndim < 2 or not x.is_floating_point():
        raise ValueError(f"LRN of {x.dtype} {tuple(x.shape)}: needs floating point values (N, C, ...)")
    return _forward(x, _odd(size), alpha, beta, k, relu)


class LocalResponseNorm(nn.Module):
    """``local_response_norm`` as a layer: no parameters, no buffers. Raises ValueError for an even ``size``."""

    def __init__(
        self,
        size: int = Recipe.lrn_size,
        alpha: float = Recipe.lrn_alpha,
        beta: float = Recipe.lrn_beta,
        k: float = Recipe.lrn_k,
    ) -> None:
        super().__init__()
        self.size, self.alpha, self.beta, self.k = _odd(size), alpha, beta, k

    def forward(self, x: Tensor, relu: bool = False) -> Tensor:
        """(N, C, ...) to the same."""
        return local_response_norm(x, self.size, self.alpha, self.beta, self.k, relu)

    def extra_repr(self) -> str:
        return f"{self.size}, alpha={self.alpha}, beta={self.beta}, k={self.k}"


class InMapResponseNorm(nn.Module):
    """The same formula, the sum over ``size`` x ``size`` pixels of the same map, zeros past its edges (S layers-145).

    Raises ValueError for an even ``size``.
    """

    def __init__(self, size: int, alpha: float, beta: float, k: float) -> None:
        super().__init__()
        self.size, self.alpha, self.beta, self.k = _odd(size), alpha, beta, k

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to the same, computed in float32 at least; dtype and memory format are kept."""
        a = x if x.dtype == torch.float64 else x.float()
        means = F.avg_pool2d(a.square(), self.size, 1, self.size // 2)  # ONNX has no plain sum
        return (a * (self.k + self.alpha * self.size**2 * means) ** -self.beta).to(x.dtype)

    def extra_repr(self) -> str:
        return f"{self.size}, alpha={self.alpha}, beta={self.beta}, k={self.k}"
