"""Collectives on the ranks of a layout: decide on rank 0, fail together, reduce, gather."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from alexnet2012.core.errors import Failure, InputError
from alexnet2012.distributed.layout import Layout

K = TypeVar("K")
T = TypeVar("T")


def broadcast_from_main(layout: Layout, decide: Callable[[], T]) -> T:
    """What ``decide`` returns on rank 0, on every rank; its Failure is raised on every rank and printed by rank 0."""
    if layout.processes == 1:
        return decide()
    answer: list[Any] = [None]
    if layout.is_main:
        try:
            with layout.working():
                answer = [decide()]
        except Failure as failure:
            answer = [failure]
    with layout.waiting():
        dist.broadcast_object_list(answer, src=0)
    if isinstance(answer[0], Failure):
        raise answer[0].on_all_ranks(reports=layout.is_main)
    return answer[0]


def raise_together(layout: Layout, failure: InputError | None) -> None:
    """Raises InputError on every rank when one of them brings a ``failure``; all ranks call this together."""
    if not reduce(layout, torch.tensor([float(failure is not None)])).item():
        return
    reasons = gather(layout, failure and str(failure))
    raise InputError(next(filter(None, reasons))).on_all_ranks(reports=layout.is_main) from failure


def gather(layout: Layout, own: T) -> list[T]:
    """What each rank brings, in the order of ranks, on every rank."""
    everyone = [own] * layout.processes
    if layout.processes > 1:
        with layout.waiting():
            dist.all_gather_object(everyone, own)
    return everyone


def reduce(layout: Layout, values: Tensor, over: str = "all", largest: bool = False) -> Tensor:
    """The sum of ``values``, or their maximum, over a group's ranks: "all", "replicas" or "pair"."""
    values = values.cpu() if layout.backend == "gloo" else values
    if (over == "all" and layout.processes > 1) or over in layout.groups:
        with layout.waiting():
            dist.all_reduce(values, dist.ReduceOp.MAX if largest else dist.ReduceOp.SUM, layout.groups.get(over))
    return values


def rank_slice(total: int, part: int, parts: int) -> slice:
    """Rows of ``total`` that are ``part``'s: parts are neighbours in order, their sizes differ by one at most."""
    return slice(total * part // parts, total * (part + 1) // parts)


class PendingRows:
    """Rows of one batch on their way between the two ranks of a pair, each of which decoded a half."""

    def __init__(self, layout: Layout, rows: Tensor, total: int) -> None:
        """``rows`` (n, ...): this rank's ``rank_slice`` of ``total`` rows of the global batch."""
        self.rows, self.work, self.waiting = rows, None, layout.waiting
        if layout.split:
            first = layout.replica * 2
            shares = [rank_slice(total, rank, layout.processes) for rank in (first, first + 1)]
            self.sizes = [part.stop - part.start for part in shares]
            padded = rows.new_empty(max(self.sizes), *rows.shape[1:])
            padded[: len(rows)] = rows
            self.parts = [torch.empty_like(padded) for _ in self.sizes]
            self.work = dist.all_gather(self.parts, padded, group=layout.groups["images"], async_op=True)

    def wait(self) -> Tensor:
        """The pair's rows in the order of the batch; without a pair this process's own."""
        if self.work is None:
            return self.rows
        with self.waiting():
            self.work.wait()
        return torch.cat([part[:size] for part, size in zip(self.parts, self.sizes, strict=True)])


class PendingMean:
    """A few numbers averaged over all ranks, on their way to the host.

    With NCCL nobody waits for them before ``read``; with gloo, or one process, they are on the host at once.
    """

    def __init__(self, layout: Layout, values: Tensor) -> None:
        """``values`` (n,) float on this rank's device, equal on the ranks of a pair."""
        self.mean = reduce(layout, values) / layout.processes
        self.on_host, self.arrived = self.mean, None
        if self.mean.is_cuda:
            self.on_host = torch.empty(self.mean.shape, dtype=self.mean.dtype, pin_memory=True)
            self.on_host.copy_(self.mean, non_blocking=True)
            self.arrived = torch.cuda.Event()
            self.arrived.record()

    def read(self) -> list[float]:
        """The means; waits for their arrival."""
        if self.arrived is not None:
            self.arrived.synchronize()
        return self.on_host.tolist()


def collect(layout: Layout, mine: dict[K, Tensor]) -> dict[K, Tensor]:
    """Rank 0 gets copies of the float32 tensors of both towers by name, on the CPU; the others nothing of use."""
    shapes = gather(layout, {name: tensor.shape for name, tensor in mine.items()})
    if layout.replica > 0:
        return {}
    held = {name: tensor.detach().to("cpu", copy=True) for name, tensor in mine.items()}
    if not layout.split:
        return held
    pair = layout.groups["pair"]
    with layout.waiting():
        for name, shape in shapes[1].items():
            if layout.is_main:
                arriving = torch.empty(shape, device=layout.devices[0] if layout.backend == "nccl" else "cpu")
                dist.recv(arriving, group=pair, group_src=1)
                held[name] = arriving.cpu()
            else:
                tensor = mine[name].detach().contiguous()
                dist.send(tensor if layout.backend == "nccl" else tensor.cpu(), group=pair, group_dst=0)
    return held
