"""LRN beside ``torch.nn.LocalResponseNorm``, and beside a copy of the bytes it has to move."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from alexnet2012.benchmark.compare import Figure, compare, compared
from alexnet2012.network import LocalResponseNorm
from alexnet2012.recipe import paper_recipe

SHAPES = ((48, 55), (128, 27))  # channels and side of a tower's LRN 1 and LRN 2
BATCHES = (32, 128)
FORMATS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}
PEER, LIMIT = "torch.nn.LocalResponseNorm", "a copy of the same bytes"
PASSES = ("forward", "backward", "both")
GOALS = {  # of forward and backward together; on CUDA of each too
    ("cpu", torch.float32): {PEER: 8.0, LIMIT: 0.5},
    ("cpu", torch.bfloat16): {PEER: 8.0, LIMIT: 0.25},
    ("cuda", torch.float32): {PEER: 8.0, LIMIT: 0.75},
    ("cuda", torch.bfloat16): {PEER: 8.0, LIMIT: 0.75},
}


def figures(device: torch.device) -> Iterator[Figure]:
    """Forward, backward and both, of each shape, batch, type and memory format."""
    kinds = itertools.product(SHAPES, BATCHES, (torch.float32, torch.bfloat16), FORMATS.items())
    for (channels, side), batch, dtype, (name, memory) in kinds:
        x = torch.randn(batch, channels, side, side, device=device, dtype=dtype) * 50
        x = x.contiguous(memory_format=memory).requires_grad_()
        gradient, what = torch.randn_like(x), f"{batch}x{channels}x{side}x{side} {str(dtype)[6:]} {name}"
        theirs: Callable[[Tensor], Tensor] = their_lrn()
        if dtype == torch.bfloat16 and not x.is_cuda:  # it has no bfloat16 of its own there
            theirs = in_float32(theirs)
        copies = copying(x.detach(), gradient)
        for passed in PASSES:
            candidates = {
                "ours": work(LocalResponseNorm(), x, gradient, passed),
                PEER: work(theirs, x, gradient, passed),
                LIMIT: copies[passed],
            }
            goals = GOALS[device.type, dtype] if passed == "both" or x.is_cuda else {}
            seconds = 0.03 if x.is_cuda else 0.1
            yield from compared("lrn", f"{passed}, {what}", compare(candidates, device, seconds=seconds), goals)


def their_lrn() -> nn.Module:
    """torch's own, of the same function: it takes the mean over the window, not the sum."""
    recipe = paper_recipe()
    return nn.LocalResponseNorm(recipe.lrn_size, recipe.lrn_alpha * recipe.lrn_size, recipe.lrn_beta, recipe.lrn_k)


def in_float32(lrn: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    return lambda x: lrn(x.float()).to(x.dtype)


def work(lrn: Callable[[Tensor], Tensor], x: Tensor, gradient: Tensor, passed: str) -> Callable[[], object]:
    """One pass through ``lrn``."""
    if passed == "forward":
        return lambda: lrn(x)
    if passed == "both":
        return lambda: torch.autograd.grad(lrn(x), x, gradient)
    out = lrn(x)
    return lambda: torch.autograd.grad(out, x, gradient, retain_graph=True)


def copying(x: Tensor, gradient: Tensor) -> dict[str, Callable[[], object]]:
    """The least traffic: forward reads x and writes; backward reads x and the gradient and writes."""
    return {
        "forward": lambda: x.clone(),
        "backward": lambda: x + gradient,
        "both": lambda: (x.clone(), x + gradient),
    }
