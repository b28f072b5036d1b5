"""The layout of a run: which process holds which tower, replica and devices.

Only this room and ``network/exchange.py`` use torch.distributed. Everything works without torchrun too: one process
is a layout like the others, with nothing to communicate.
"""

from __future__ import annotations

import itertools
import os
import secrets
import signal
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.rendezvous import rendezvous
from torch.nn.parallel import DistributedDataParallel

from alexnet2012.core.errors import Failure, InputError
from alexnet2012.core.threads import default_threads
from alexnet2012.distributed import TIMEOUT
from alexnet2012.distributed.heartbeat import Heartbeat, LostRank, die_with_parent

NO_TIMEOUT = timedelta(days=365)  # of torch's own, which do not know who works and who is lost


@dataclass(frozen=True)
class Layout:
    """Which towers, which replica and which devices are this process's."""

    rank: int = 0
    processes: int = 1
    placement: str = "together"  # "split": a tower a process; "together": both in each
    devices: tuple[torch.device, ...] = (torch.device("cpu"),)  # one a tower held, or one for all
    backend: str = "none"
    threads: int = 1  # of the CPU, in this process
    groups: dict[str, dist.ProcessGroup] = field(default_factory=dict, compare=False)
    heartbeat: Heartbeat | None = None

    @property
    def split(self) -> bool:
        return self.placement == "split"

    @property
    def tower(self) -> int:
        """The tower of a process that holds one; 0 where it holds both."""
        return self.rank % 2 if self.split else 0

    @property
    def replica(self) -> int:
        return self.rank // 2 if self.split else self.rank

    @property
    def replicas(self) -> int:
        return self.processes // 2 if self.split else self.processes

    @property
    def is_main(self) -> bool:
        """Whether this process prints, writes and decides."""
        return self.rank == 0

    def begin(self, operation: str, step: int | None = None) -> None:
        """Say that ``operation``, which all ranks do together, begins.

        With NCCL all of it is timed as a collective: the host cannot tell one from a device's own work.
        """
        if self.heartbeat:
            self.heartbeat.begin(operation, step, waits=self.backend == "nccl")

    def waiting(self, operation: str | None = None) -> AbstractContextManager[None]:
        """Time what is inside, where this process waits for others, as a collective."""
        return self.heartbeat.waiting(operation) if self.heartbeat else nullcontext()

    def working(self) -> AbstractContextManager[None]:
        """Time nothing of what is inside, which this process does alone."""
        return self.heartbeat.working() if self.heartbeat else nullcontext()

    def replicate(self, net: nn.Module) -> nn.Module:
        """``net`` with its gradients averaged over the replicas, bucket by bucket while backward runs.

        From a backward pass's last gradient on this process waits for the other replicas, until it begins something.
        """
        if self.replicas == 1:
            return net
        weights = list(net.parameters())
        gradients = itertools.count(1)

        def count(weight: Tensor) -> None:
            if next(gradients) % len(weights) == 0 and self.heartbeat:
                self.heartbeat.begin("gradients of the replicas", waits=True)

        for weight in weights:
            weight.register_post_accumulate_grad_hook(count)
        with self.waiting():
            return DistributedDataParallel(net, process_group=self.groups["replicas"], gradient_as_bucket_view=True)

    def describe(self, towers: int) -> str:
        """One line for the start of a run of a net of as many ``towers``."""
        where = "a tower a process" if self.split else f"{'both towers' if towers == 2 else 'the net'} in each process"
        devices = " and ".join(dict.fromkeys(map(str, self.devices)))
        processes = f"{self.processes} process{'es' * (self.processes > 1)}"
        return f"{processes}, {where}, {self.replicas} replica{'s' * (self.replicas > 1)}, on {devices}" + (
            f", backend {self.backend}" if self.processes > 1 else ""
        )


@contextmanager
def open_layout(
    placement: str | None = None,
    towers: int = 2,
    timeout: float = TIMEOUT,
    pairs_across_nodes: bool = False,
    threads: int | None = None,
) -> Iterator[Layout]:
    """The layout torchrun's environment asks for, its process groups open inside the ``with``.

    One process holds both towers: on cuda:0 and cuda:1 if there are two, on one device otherwise. NCCL is the
    backend if and only if each rank of the node has a GPU of its own, gloo otherwise. ``placement`` is by default
    ``default_placement``; ``threads`` of the CPU are this process's, by default ``default_threads``.

    Raises InputError for an odd number of processes with a tower each, LostRank, where it can still be raised, when a
    rank does not come to a collective in which others have waited for ``timeout`` seconds.
    """
    processes, rank = int(os.environ.get("WORLD_SIZE", 1)), int(os.environ.get("RANK", 0))
    local_processes = int(os.environ.get("LOCAL_WORLD_SIZE", processes))
    threads = threads or default_threads(local_processes)
    torch.set_num_threads(threads)
    allow_tf32(False)
    if "TORCHELASTIC_RUN_ID" in os.environ:
        die_with_parent()
    if processes == 1:
        yield Layout(devices=devices_of_one_process(towers), threads=threads)
        return
    placement = placement or default_placement(towers)
    check_pairs(placement, processes, 2 if pairs_across_nodes else local_processes, towers, rank)
    device = device_of_rank(int(os.environ.get("LOCAL_RANK", rank)))
    backend = "nccl" if torch.cuda.device_count() >= local_processes else "gloo"
    with connected(backend, rank, processes, timeout) as heartbeat:
        with heartbeat.waiting("opening the process groups"):
            groups = open_groups(placement, processes, backend)
        yield Layout(rank, processes, placement, (device,), backend, threads, groups, heartbeat)


@contextmanager
def connected(backend: str, rank: int, processes: int, timeout: float) -> Iterator[Heartbeat]:
    """The default process group, with a heartbeat; ranks that fail alike leave together.

    The heartbeat alone ends a wait: it knows which rank is lost, and which only works for longer than ``timeout``.
    """
    store = shared_store(rank, processes, max(timeout, TIMEOUT))  # others still start: that is no collective
    heartbeat = Heartbeat(store.clone(), rank, processes, timeout)  # one that no wait of the other's keeps busy
    try:
        with naming_lost_ranks(heartbeat):
            with heartbeat.waiting("opening the process groups"):
                dist.init_process_group(
                    "cpu:gloo,cuda:nccl" if backend == "nccl" else "gloo",
                    store=store,
                    rank=rank,
                    world_size=processes,
                    timeout=NO_TIMEOUT,
                )
                dist.barrier()
            yield heartbeat
            with heartbeat.waiting("the end"):
                dist.barrier()  # a store kept by the first to leave is still there for the others
    except Failure as failure:
        if failure.raised_by_all:
            with suppress(RuntimeError), heartbeat.waiting("the end"):
                dist.barrier()
                failure.acknowledged = True
        else:
            heartbeat.fail(failure)
        raise
    finally:
        heartbeat.close()
    dist.destroy_process_group()


def shared_store(rank: int, processes: int, timeout: float) -> dist.Store:
    """The store that the ranks of this attempt share. Raises LostRank for one not there after ``timeout`` seconds."""
    try:
        shared, _, _ = next(rendezvous("env://", timeout=timedelta(seconds=timeout)))
        return fresh_prefix(shared, rank, processes, timeout)
    except dist.DistError as error:
        place = ":".join(os.environ.get(name, "") for name in ("MASTER_ADDR", "MASTER_PORT"))
        raise LostRank(
            f"rank {rank} waited {timeout:g} s for the other ranks to meet at {place}: are all nodes started, "
            "and does the network let them reach it?"
        ) from error


def fresh_prefix(store: dist.Store, rank: int, processes: int, timeout: float) -> dist.Store:
    """A part of torchrun's store that no earlier attempt of the run has written to: gloo would use its addresses.

    Restarted agents count attempts differently, so the processes of this one find each other: rank 0 makes an offer,
    the others answer it with a number of their own, and know by having it confirmed that the offer is not an old one.
    Raises DistError when a rank has not come after ``timeout`` seconds.
    """
    own, deadline = secrets.token_hex(8), time.monotonic() + timeout
    if rank == 0:
        store.set("offer", own)
        for other in range(1, processes):
            answer = store.get(f"{own}/answer/{other}").decode()
            store.set(f"{own}/confirmed/{answer}", "")
        return dist.PrefixStore(own, store)
    while time.monotonic() < deadline:
        offer = store.get("offer").decode()
        store.set(f"{offer}/answer/{rank}", own)
        if store.check([f"{offer}/confirmed/{own}"]):
            return dist.PrefixStore(offer, store)
        time.sleep(0.05)
    raise dist.DistStoreError("no offer of this attempt")


@contextmanager
def naming_lost_ranks(heartbeat: Heartbeat | None) -> Iterator[None]:
    """Turn a collective's error into a LostRank that says which rank went away."""
    try:
        yield
    except RuntimeError as error:
        if heartbeat is None or not is_lost_peer(error):
            raise
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # torchrun's; this process ends by itself
        raise heartbeat.lost() from error


def allow_tf32(allowed: bool) -> None:
    """Whether CUDA may round the factors of float32 products to TF32's 10 bits; torch lets convolutions do so."""
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = allowed


def device_of_rank(local_rank: int) -> torch.device:
    """This rank's GPU, shared where there are fewer GPUs than ranks; the CPU where there is none."""
    gpus = torch.cuda.device_count()
    if not gpus:
        return torch.device("cpu")
    torch.cuda.set_device(local_rank % gpus)
    return torch.device("cuda", local_rank % gpus)


def is_lost_peer(error: RuntimeError) -> bool:
    """Whether a collective failed because a peer went away; gloo raises plain RuntimeErrors."""
    return isinstance(error, dist.DistError) or "gloo" in str(error)


def devices_of_one_process(towers: int) -> tuple[torch.device, ...]:
    gpus = min(torch.cuda.device_count(), towers)
    return tuple(torch.device("cuda", gpu) for gpu in range(gpus)) or (torch.device("cpu"),)


def default_placement(towers: int) -> str:
    """A tower a process; a net of one tower whole in each."""
    return "together" if towers == 1 else "split"


def check_pairs(placement: str, processes: int, local_processes: int, towers: int, rank: int) -> None:
    """Raises InputError, on every rank, where towers cannot be paired."""
    error = None
    if placement == "split" and towers == 1:
        error = InputError("--placement split: this net has one tower, not one a process; leave the flag out")
    elif placement == "split" and processes % 2:
        error = InputError(
            f"--nproc-per-node: {processes} processes cannot hold a tower each in pairs; "
            "start an even number, or add --placement together"
        )
    elif placement == "split" and local_processes % 2:
        error = InputError(
            f"--nproc-per-node: {local_processes} processes a node put the towers of a pair on two nodes; "
            "start an even number a node, or add --pairs-across-nodes"
        )
    if error:
        raise error.on_all_ranks(reports=rank == 0)


def open_groups(placement: str, processes: int, backend: str) -> dict[str, dist.ProcessGroup]:
    """The groups of this rank. Every rank opens all of them in the same order, as torch.distributed asks.

    ``pair`` carries the network's activations, ``images`` the pair's image gather (a group of its own, so that
    looking ahead cannot tangle with the exchange), ``replicas`` the gradients of the ranks that hold the same tower.
    """
    step = 2 if placement == "split" else 1
    ranks = range(processes)
    parts = {"replicas": [list(ranks[tower::step]) for tower in range(step)]}
    if placement == "split":
        parts["pair"] = parts["images"] = [list(ranks[first : first + 2]) for first in ranks[::2]]
    groups = {}
    for name, part in parts.items():
        groups[name], _ = dist.new_subgroups_by_enumeration(part, timeout=NO_TIMEOUT, backend=backend)
    return groups  # type: ignore[return-value]
