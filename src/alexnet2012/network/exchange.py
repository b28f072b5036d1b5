"""The exchange of activations between the towers: within one process, or between two ranks.

This is the network's only communication. Both kinds of exchange offer two operations on the outputs of the towers that
this process holds:

``gather_channels``  Every tower gets the channels of both towers, tower 0's first. Both towers read a tower's channels,
                     so the gradient of its output is the sum of both towers' gradients.
``gather_logits``    The process gets the channels of both towers once, tower 0's first. Every rank of a pair computes
                     the same loss from the same logits, so a tower's gradient is its own slice of that loss's
                     gradient, counted once.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol

import torch
import torch.distributed as dist
from torch import Tensor

from alexnet2012.distributed.layout import Layout
from alexnet2012.recipe import FULLY_CONNECTED


class Exchange(Protocol):
    """What the net asks of an exchange; ``towers`` are the indices of the towers that live in this process."""

    towers: tuple[int, ...]

    def gather_channels(self, outputs: list[Tensor], layer: str) -> list[Tensor]: ...

    def gather_logits(self, outputs: list[Tensor], layer: str, channels: int) -> Tensor: ...


class InProcess(Exchange):
    """All towers live in this process, each on a device of its own or on one; autograd does the gradients."""

    def __init__(self, towers: int) -> None:
        self.towers = tuple(range(towers))

    def gather_channels(self, outputs: list[Tensor], layer: str) -> list[Tensor]:
        """[(N, C, ...)] a tower -> [(N, C * towers, ...)] a tower, each on its tower's device; flat before fc6.

        Towers on one device share it, which flattening in each of them would undo: maps are not stored channel-major.
        """
        joined = {x.device: torch.cat([y.to(x.device, non_blocking=True) for y in outputs], dim=1) for x in outputs}
        if layer in FULLY_CONNECTED:
            joined = {device: both.flatten(1) for device, both in joined.items()}
        return [joined[x.device] for x in outputs]

    def gather_logits(self, outputs: list[Tensor], layer: str, channels: int) -> Tensor:
        """[(N, C_t, ...)] a tower -> (N, channels, ...) on tower 0's device."""
        return torch.cat([x.to(outputs[0].device, non_blocking=True) for x in outputs], dim=1)


class BetweenRanks(Exchange):
    """This process holds one tower, its peer in ``group`` (two ranks, in tower order) the other.

    ``waiting(name)`` gives a context that times the wait for the peer.
    """

    def __init__(
        self, group: dist.ProcessGroup, tower: int, waiting: Callable[[str], AbstractContextManager[Any]] = nullcontext
    ) -> None:
        self.group, self.tower, self.towers, self.waiting = group, tower, (tower,), waiting

    @torch.compiler.disable
    def gather_channels(self, outputs: list[Tensor], layer: str) -> list[Tensor]:
        """[(N, C, ...)] on each rank -> [(N, 2C, ...)], the same values on both ranks."""
        return [GatherChannels.apply(outputs[0], layer, self)]

    @torch.compiler.disable
    def gather_logits(self, outputs: list[Tensor], layer: str, channels: int) -> Tensor:
        """[(N, C_t, ...)] on each rank -> (N, channels, ...); C_0 = ceil(channels / 2), C_1 the rest."""
        return GatherLogits.apply(outputs[0], layer, channels, self)

    def exchange_with_peer(self, x: Tensor, operation: str) -> Tensor:
        """Return the peer's tensor, of the same shape and strides as ``x``; both ranks call this together."""
        interleaved = x.dim() == 4 and x.stride(1) == 1
        x = x.contiguous(memory_format=torch.channels_last if interleaved else torch.contiguous_format)
        mine = x.as_strided((x.numel(),), (1,))
        staged = mine.cpu() if x.is_cuda and dist.get_backend(self.group) == "gloo" else mine
        both = [torch.empty_like(staged) for _ in range(2)]
        with self.waiting(operation):
            dist.all_gather(both, staged, group=self.group)
        return both[1 - self.tower].to(x.device).as_strided(x.shape, x.stride())

    def in_tower_order(self, own: Tensor, received: Tensor) -> Tensor:
        return torch.cat([own, received] if self.tower == 0 else [received, own], dim=1)


class GatherChannels(torch.autograd.Function):
    """The channels of both towers, for a layer that reads both.

    Rank t holds x_t (N, C, ...); both ranks get y = [x_0, x_1] (N, 2C, ...).
    Forward: y[:, tC:(t+1)C] = x_t, sent once each way.
    Gradient: rank r has g_r = dL/dy through its own tower (N, 2C, ...); dx_t = (g_0 + g_1)[:, tC:(t+1)C], because both
    towers read x_t. Each rank keeps its own slice and sends its peer's.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, layer: str, exchange: BetweenRanks) -> Tensor:
        ctx.layer, ctx.exchange = layer, exchange
        return exchange.in_tower_order(x, exchange.exchange_with_peer(x, f"channels of both towers for {layer}"))

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        halves = gradient.chunk(2, dim=1)
        own, other = halves[ctx.exchange.tower], halves[1 - ctx.exchange.tower]
        return own + ctx.exchange.exchange_with_peer(other, f"gradients of {ctx.layer}'s input"), None, None


class GatherLogits(torch.autograd.Function):
    """The channels of both towers, for what every rank computes alike: the loss or the returned features.

    Rank t holds x_t (N, C_t, ...), C_0 = C_1 or C_1 + 1; both ranks get y = [x_0, x_1] (N, C_0 + C_1, ...).
    Forward: the shorter half travels padded to C_0, then is cut.
    Gradient: dx_t = dy[:, slice t], without communication: both ranks hold the same dy, so adding them would count
    the loss twice.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, layer: str, channels: int, exchange: BetweenRanks) -> Tensor:
        larger = (channels + 1) // 2
        sizes = (larger, channels - larger)
        ctx.sizes, ctx.tower = sizes, exchange.tower
        padding = x.new_zeros(x.shape[0], larger - x.shape[1], *x.shape[2:])
        received = exchange.exchange_with_peer(
            torch.cat([x, padding], dim=1) if padding.shape[1] else x, f"{layer} of both towers"
        )
        return exchange.in_tower_order(x, received[:, : sizes[1 - exchange.tower]])

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        return gradient.split(ctx.sizes, dim=1)[ctx.tower], None, None, None


def exchange_between(layout: Layout, towers: int) -> Exchange:
    """The exchange for ``layout``: between the two ranks of a pair, or within this process."""
    if layout.split:
        return BetweenRanks(layout.groups["pair"], layout.tower, layout.waiting)
    return InProcess(towers)
