"""Collectives on the ranks of a layout: broadcast from rank 0, raise together, reduce, gather."""

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
    """Call ``decide`` on rank 0; every rank returns its result or raises its Failure, which rank 0 prints."""
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
    """Raises InputError on every rank if any rank passes a ``failure``; all ranks must call this."""
    if not reduce(layout, torch.tensor([float(failure is not None)])).item():
        return
    reasons = gather(layout, failure and str(failure))
    raise InputError(next(filter(None, reasons))).on_all_ranks(reports=layout.is_main) from failure


def gather(layout: Layout, own: T) -> list[T]:
    """The objects of all ranks, in the order of ranks, on every rank."""
    everyone = [own] * layout.processes
    if layout.processes > 1:
        with layout.waiting():
            dist.all_gather_object(everyone, own)
    return everyone


def reduce(layout: Layout, values: Tensor, over: str = "all", largest: bool = False) -> Tensor:
    """The sum or maximum of ``values`` over the ranks of a group: "all", "replicas" or "pair"."""
    values = values.cpu() if layout.backend == "gloo" else values
    if (over == "all" and layout.processes > 1) or over in layout.groups:
        with layout.waiting():
            dist.all_reduce(values, dist.ReduceOp.MAX if largest else dist.ReduceOp.SUM, layout.groups.get(over))
    return values


def rank_slice(total: int, part: int, parts: int) -> slice:
    """The rows of ``part`` when ``total`` rows are split into ``parts``, contiguous and of nearly equal sizes."""
    return slice(total * part // parts, total * (part + 1) // parts)


class PendingRows:
    """An asynchronous gather of the rows of a batch, half of which each rank of a pair has decoded."""

    def __init__(self, layout: Layout, rows: Tensor, total: int) -> None:
        """``rows`` (n, ...) is this rank's ``rank_slice`` of the ``total`` rows of the global batch."""
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
        """The pair's rows in the order of the batch; without a pair, this process's own."""
        if self.work is None:
            return self.rows
        with self.waiting():
            self.work.wait()
        return torch.cat([part[:size] for part, size in zip(self.parts, self.sizes, strict=True)])


class PendingMean:
    """The mean over all ranks of a few numbers, copied to the host asynchronously.

    With NCCL nothing waits for it before ``read``; with gloo, or in one process, it is on the host at once.
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
        """Wait for the means, and return them."""
        if self.arrived is not None:
            self.arrived.synchronize()
        return self.on_host.tolist()


def collect(layout: Layout, mine: dict[K, Tensor]) -> dict[K, Tensor]:
    """Copies on the CPU, by name, of the float32 tensors of both towers, on rank 0; nothing of use on other ranks."""
    shapes = gather(layout, {name: tensor.shape for name, tensor in mine.items()})
    if layout.replica > 0:
        return {}
    held = {name: tensor.detach().to("cpu", copy=True) for name, tensor in mine.items()}
    if not layout.split:
        return held
    device = layout.devices[0] if layout.backend == "nccl" else torch.device("cpu")
    with layout.waiting():
        for name, shape in shapes[1].items():
            if layout.is_main:
                received = torch.empty(shape, device=device)
                dist.recv(received, group=layout.groups["pair"], group_src=1)
                held[name] = received.cpu()
            else:
                dist.send(mine[name].detach().contiguous().to(device), group=layout.groups["pair"], group_dst=0)
    return held
