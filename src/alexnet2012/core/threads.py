"""Threads of the CPU: how many a process takes, and how they wait for each other."""

from __future__ import annotations

import contextlib
import math
import os
from pathlib import Path

from alexnet2012.core.errors import InputError

MOST = 1024  # threads of a process: at 100,000 OpenMP runs out of stacks and ends it
CGROUPS = Path("/sys/fs/cgroup")
OF_THIS_PROCESS = Path("/proc/self/cgroup")


def let_waiting_threads_sleep() -> None:
    """Have OpenMP's threads that wait for each other sleep at once, unless the user says how they wait.

    To be called before torch is imported, which reads the setting once. By default they spin first (libgomp, which
    torch and our kernels share: 300,000 turns). Two threads on two cores beside one busy process then keep 19 of 419
    images/s, for those that spin take the core of the thread that they wait for; asleep they keep 192. On quiet cores
    sleeping costs 5 in 100.
    """
    if not os.environ.keys() & {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME"}:
        os.environ["OMP_WAIT_POLICY"] = "passive"


def default_threads(local_processes: int) -> int:
    """CPU threads of one of a node's processes: the user's OMP_NUM_THREADS, else its share of the cores."""
    given = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip().lstrip("0")
    if given.isdecimal() and not set_by_torchrun("OMP_NUM_THREADS"):
        return min(int(given[:9]), MOST)
    return max(1, cores() // local_processes)


def refuse_threads(**counts: int | None) -> None:
    """Raises InputError for a flag whose number of threads no process can have; None: not given."""
    for flag, count in counts.items():
        if count is not None and not 1 <= count <= MOST:
            raise InputError(f"--{flag} {count}: must be at least 1 and at most {MOST}")


def set_by_torchrun(variable: str) -> bool:
    """Whether torchrun added ``variable`` to the environment that it was started with itself (known on Linux).

    It sets OMP_NUM_THREADS to 1 for several processes a node where the user set none.
    """
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        return False
    with contextlib.suppress(OSError):
        started_with = Path(f"/proc/{os.getppid()}/environ").read_bytes().split(b"\0")
        return not any(entry.startswith(f"{variable}=".encode()) for entry in started_with)
    return False


def cores() -> int:
    """Processor cores this process may use: those of its affinity mask, no more than its cgroup's quota allows."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, math.floor(min(allowed, cpu_quota())))


def cpu_quota(root: Path = CGROUPS, process: Path = OF_THIS_PROCESS) -> float:
    """Cores that this process's cgroups let it keep busy, infinite without a quota; versions 2 and 1 (Linux).

    A group's quota binds all below it. In a container ``root`` itself is the container's group.
    """
    quotas = [math.inf]
    with contextlib.suppress(OSError, ValueError):
        for line in process.read_text(errors="surrogateescape").splitlines():
            _, controllers, group = line.split(":", 2)
            top = root if not controllers else root / "cpu" if "cpu" in controllers.split(",") else None
            if top:
                below = Path(group.lstrip("/"))
                quotas += [quota_of(top / folder) for folder in (below, *below.parents)]
    return min(quotas)


def quota_of(group: Path) -> float:
    """Cores of one cgroup's own quota: ``cpu.max`` (version 2) or ``cpu.cfs_quota_us`` (version 1)."""
    with contextlib.suppress(OSError, ValueError):
        quota, period = (group / "cpu.max").read_text().split()
        return math.inf if quota == "max" else int(quota) / int(period)
    with contextlib.suppress(OSError, ValueError):
        microseconds = [int((group / f"cpu.cfs_{name}_us").read_text()) for name in ("quota", "period")]
        return microseconds[0] / microseconds[1] if microseconds[0] > 0 else math.inf
    return math.inf
