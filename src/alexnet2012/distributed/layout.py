"""The layout of a run: which process holds which tower, replica and devices.

Only this package and ``network/exchange.py`` use torch.distributed. A process without torchrun is a layout too, with
nothing to communicate.
"""

from __future__ import annotations

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
from torch import nn
from torch.autograd.graph import register_multi_grad_hook
from torch.distributed.rendezvous import rendezvous
from torch.nn.parallel import DistributedDataParallel

from alexnet2012.core.errors import Failure, InputError
from alexnet2012.core.threads import default_threads
from alexnet2012.distributed import TIMEOUT
from alexnet2012.distributed.heartbeat import Heartbeat, LostRank, die_with_parent

NO_TIMEOUT = timedelta(days=365)  # for torch, which cannot tell a busy rank from a lost one


@dataclass(frozen=True)
class Layout:
    """The towers, replica and devices of this process."""

    rank: int = 0
    processes: int = 1
    placement: str = "together"  # "split": one tower per process; "together": both in each
    devices: tuple[torch.device, ...] = (torch.device("cpu"),)  # one per tower held, or one for all
    backend: str = "none"
    threads: int = 1  # CPU threads of this process
    groups: dict[str, dist.ProcessGroup] = field(default_factory=dict, compare=False)
    heartbeat: Heartbeat | None = None

    @property
    def split(self) -> bool:
        return self.placement == "split"

    @property
    def tower(self) -> int:
        """The tower held by this process; 0 if it holds both."""
        return self.rank % 2 if self.split else 0

    @property
    def replica(self) -> int:
        return self.rank // 2 if self.split else self.rank

    @property
    def replicas(self) -> int:
        return self.processes // 2 if self.split else self.processes

    @property
    def is_main(self) -> bool:
        """True if this process is the one that prints, writes files and makes decisions."""
        return self.rank == 0

    def begin(self, operation: str, step: int | None = None) -> None:
        """Record that ``operation``, which all ranks do together, begins.

        With NCCL all of it is timed as a collective: the host cannot tell waiting from work on the device.
        """
        if self.heartbeat:
            self.heartbeat.begin(operation, step, waits=self.backend == "nccl")

    def waiting(self, operation: str | None = None) -> AbstractContextManager[None]:
        """Time the block, in which this process waits for others, as a collective."""
        return self.heartbeat.waiting(operation) if self.heartbeat else nullcontext()

    def working(self) -> AbstractContextManager[None]:
        """Do not time the block, in which this process works alone."""
        return self.heartbeat.working() if self.heartbeat else nullcontext()

    def replicate(self, net: nn.Module) -> nn.Module:
        """Wrap ``net`` to average its gradients over the replicas, bucket by bucket during the backward pass.

        After the last gradient of a backward pass this process waits for the other replicas.
        """
        if self.replicas == 1:
            return net
        if heartbeat := self.heartbeat:
            register_multi_grad_hook(
                list(net.parameters()), lambda gradients: heartbeat.begin("gradients of the replicas", waits=True)
            )
        with self.waiting():
            return DistributedDataParallel(net, process_group=self.groups["replicas"], gradient_as_bucket_view=True)

    def describe(self, towers: int) -> str:
        """One line that describes the layout of a net of ``towers``, for the start of a run."""
        where = (
            "one tower per process" if self.split else f"{'both towers' if towers == 2 else 'the net'} in each process"
        )
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
    """Open the layout given by torchrun's environment, with its process groups.

    A single process holds both towers, on cuda:0 and cuda:1 if there are two GPUs, else on one device. The backend is
    NCCL if and only if each rank of the node has its own GPU, else gloo. ``placement`` defaults to
    ``default_placement``, ``threads``, the CPU threads of this process, to ``default_threads``.

    Raises InputError for an odd number of processes that hold a tower each; LostRank, where it can still be raised, if
    others have waited for a rank in a collective for ``timeout`` seconds.
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
    device, gpus = torch.device("cpu"), torch.cuda.device_count()
    if gpus:  # shared if there are fewer than ranks
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", rank)) % gpus)
        torch.cuda.set_device(device)
    backend = "nccl" if gpus >= local_processes else "gloo"
    with connected(backend, rank, processes, timeout) as heartbeat:
        with heartbeat.waiting("opening the process groups"):
            groups = open_groups(placement, processes, backend)
        yield Layout(rank, processes, placement, (device,), backend, threads, groups, heartbeat)


@contextmanager
def connected(backend: str, rank: int, processes: int, timeout: float) -> Iterator[Heartbeat]:
    """Open the default process group and a heartbeat. Ranks that all raise the same failure leave together.

    Only the heartbeat times out: it distinguishes a lost rank from one that works for longer than ``timeout``.
    """
    store = shared_store(rank, processes, max(timeout, TIMEOUT))  # other ranks may still be starting
    heartbeat = Heartbeat(store.clone(), rank, processes, timeout)  # its own connection, which no other call blocks
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
                dist.barrier()  # the rank that serves the store must not leave before the others
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
    """The key-value store of the ranks of this attempt. Raises LostRank if one is missing after ``timeout`` seconds."""
    try:
        shared, _, _ = next(rendezvous("env://", timeout=timedelta(seconds=timeout)))
        return fresh_prefix(shared, rank, processes, timeout)
    except dist.DistError as error:
        place = ":".join(os.environ.get(name, "") for name in ("MASTER_ADDR", "MASTER_PORT"))
        raise LostRank(
            f"rank {rank} waited {timeout:g} s for the other ranks at {place}: check that all nodes are started, and "
            "that the network lets them reach it"
        ) from error


def fresh_prefix(store: dist.Store, rank: int, processes: int, timeout: float) -> dist.Store:
    """Prefix torchrun's store with a key of this attempt: gloo would use the addresses left by an earlier one.

    Restarted agents count attempts differently, so rank 0 offers a key, the others answer with a token of their own,
    and a confirmed token proves that the offer is not an old one. Raises DistError if a rank is missing after
    ``timeout`` seconds.
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
    """Turn a collective's error into a LostRank that names the lost rank."""
    try:
        yield
    except RuntimeError as error:
        if heartbeat is None or not (isinstance(error, dist.DistError) or "gloo" in str(error)):  # gloo's have no class
            raise
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # torchrun sends it, but this process exits by itself
        raise heartbeat.lost() from error


def allow_tf32(allowed: bool) -> None:
    """Let CUDA round the factors of float32 products to TF32's 10 bits, or not; torch lets convolutions by default."""
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = allowed


def devices_of_one_process(towers: int) -> tuple[torch.device, ...]:
    gpus = min(torch.cuda.device_count(), towers)
    return tuple(torch.device("cuda", gpu) for gpu in range(gpus)) or (torch.device("cpu"),)


def default_placement(towers: int) -> str:
    """One tower per process; a net of one tower is whole in each."""
    return "together" if towers == 1 else "split"


def check_pairs(placement: str, processes: int, local_processes: int, towers: int, rank: int) -> None:
    """Raises InputError, on every rank, if the towers cannot be paired."""
    error = None
    if placement == "split" and towers == 1:
        error = InputError("--placement split: this net has one tower only; leave the flag out")
    elif placement == "split" and processes % 2:
        error = InputError(
            f"--nproc-per-node: {processes} processes cannot hold a tower each in pairs; "
            "start an even number, or add --placement together"
        )
    elif placement == "split" and local_processes % 2:
        error = InputError(
            f"--nproc-per-node: {local_processes} processes per node put the towers of a pair on two nodes; "
            "start an even number per node, or add --pairs-across-nodes"
        )
    if error:
        raise error.on_all_ranks(reports=rank == 0)


def open_groups(placement: str, processes: int, backend: str) -> dict[str, dist.ProcessGroup]:
    """The process groups of this rank. torch.distributed requires every rank to open all groups in the same order.

    ``pair`` carries the network's activations, ``images`` the images of a pair (a separate group, because they are
    gathered ahead of time), ``replicas`` the gradients of the ranks that hold the same tower.
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
