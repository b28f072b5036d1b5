"""How the towers' activations cross: within one process, or between two ranks.

This is the only communication of the network. All kinds offer the same two operations on a list of what each tower
held here has computed:

``meet``  every tower gets both towers' channels, tower 0's first. A tower's channels are used by both towers, so the
          gradient of its output is the sum of what both uses send back.
``join``  the process gets both towers' channels once, tower 0's first. Every rank of a pair then computes the same
          loss from the same values, so a tower's gradient is its own slice of that loss's gradient, counted once.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol

import torch
import torch.distributed as dist
from torch import Tensor

from alexnet2012.distributed.layout import Layout
from alexnet2012.network.dropout import Draw
from alexnet2012.network.tower import Tower
from alexnet2012.recipe import FULLY_CONNECTED


class Exchange(Protocol):
    """What the net asks of an exchange; ``towers`` are the indices of the towers that live in this process."""

    towers: tuple[int, ...]

    def run(self, tower: Tower, layer: str, x: Tensor, draw: Draw | None) -> Tensor:
        """A tower's ``layer`` between two crossings."""
        return tower(layer, x, draw)

    def meet(self, outputs: list[Tensor], layer: str) -> list[Tensor]: ...

    def join(self, outputs: list[Tensor], layer: str, channels: int) -> Tensor: ...


class InProcess(Exchange):
    """All towers live in this process, each on a device of its own or on one; autograd does the gradients."""

    def __init__(self, towers: int) -> None:
        self.towers = tuple(range(towers))

    def meet(self, outputs: list[Tensor], layer: str) -> list[Tensor]:
        """[(N, C, ...)] a tower -> [(N, C * towers, ...)] a tower, each on its tower's device; flat before fc6.

        Towers on one device share it, which flattening in each of them would undo: maps are not stored channel-major.
        """
        joined = {x.device: torch.cat([y.to(x.device, non_blocking=True) for y in outputs], dim=1) for x in outputs}
        if layer in FULLY_CONNECTED:
            joined = {device: both.flatten(1) for device, both in joined.items()}
        return [joined[x.device] for x in outputs]

    def join(self, outputs: list[Tensor], layer: str, channels: int) -> Tensor:
        """[(N, C_t, ...)] a tower -> (N, channels, ...) on tower 0's device."""
        return torch.cat([x.to(outputs[0].device, non_blocking=True) for x in outputs], dim=1)


class BetweenRanks(Exchange):
    """This process holds one tower, its peer in ``group`` (two ranks, in tower order) the other.

    ``waiting`` is told the name of each crossing, and holds what waits for the peer.
    """

    def __init__(
        self, group: dist.ProcessGroup, tower: int, waiting: Callable[[str], AbstractContextManager[Any]] = nullcontext
    ) -> None:
        self.group, self.tower, self.towers, self.waiting = group, tower, (tower,), waiting

    @torch.compiler.disable
    def meet(self, outputs: list[Tensor], layer: str) -> list[Tensor]:
        """[(N, C, ...)] on each rank -> [(N, 2C, ...)], the same values on both ranks."""
        return [Meet.apply(outputs[0], layer, self)]

    @torch.compiler.disable
    def join(self, outputs: list[Tensor], layer: str, channels: int) -> Tensor:
        """[(N, C_t, ...)] on each rank -> (N, channels, ...); C_0 = ceil(channels / 2), C_1 the rest."""
        return Join.apply(outputs[0], layer, channels, self)

    def peers(self, x: Tensor, crossing: str) -> Tensor:
        """What the peer passes for the same shape and strides; both ranks call this together."""
        interleaved = x.dim() == 4 and x.stride(1) == 1
        x = x.contiguous(memory_format=torch.channels_last if interleaved else torch.contiguous_format)
        mine = x.as_strided((x.numel(),), (1,))
        staged = mine.cpu() if x.is_cuda and dist.get_backend(self.group) == "gloo" else mine
        both = [torch.empty_like(staged) for _ in range(2)]
        with self.waiting(crossing):
            dist.all_gather(both, staged, group=self.group)
        return both[1 - self.tower].to(x.device).as_strided(x.shape, x.stride())

    def in_order(self, mine: Tensor, peers: Tensor) -> Tensor:
        return torch.cat([mine, peers] if self.tower == 0 else [peers, mine], dim=1)


class Meet(torch.autograd.Function):
    """Both towers' channels for a layer that reads both.

    Rank t holds x_t (N, C, ...); both ranks get y = [x_0, x_1] (N, 2C, ...).
    Forward: y[:, tC:(t+1)C] = x_t, sent once each way.
    Gradient: the layer of rank r sends back g_r (N, 2C, ...); dx_t = (g_0 + g_1)[:, tC:(t+1)C], because x_t was read
    by both. Each rank keeps its own slice and sends its peer's.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, layer: str, exchange: BetweenRanks) -> Tensor:
        ctx.layer, ctx.exchange = layer, exchange
        return exchange.in_order(x, exchange.peers(x, f"towers meet before {layer}"))

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        halves = gradient.chunk(2, dim=1)
        mine, peers = halves[ctx.exchange.tower], halves[1 - ctx.exchange.tower]
        return mine + ctx.exchange.peers(peers, f"gradients of {ctx.layer}'s input"), None, None


class Join(torch.autograd.Function):
    """Both towers' channels for what every rank computes alike: the loss, or a look at the features.

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
        peers = exchange.peers(torch.cat([x, padding], dim=1) if padding.shape[1] else x, f"{layer} joined")
        return exchange.in_order(x, peers[:, : sizes[1 - exchange.tower]])

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        return gradient.split(ctx.sizes, dim=1)[ctx.tower], None, None, None


def exchange_between(layout: Layout, towers: int) -> Exchange:
    """How activations cross in ``layout``: between the two ranks of a pair, or within this process."""
    if layout.split:
        return BetweenRanks(layout.groups["pair"], layout.tower, layout.waiting)
    return InProcess(towers)
