"""CPU threads: how many a process uses, and how they wait for each other; and the memory that they free."""

from __future__ import annotations

import contextlib
import ctypes
import math
import os
from pathlib import Path

from alexnet2012.core.errors import InputError

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # malloc.h
MAX_THREADS = 1024  # of a process: at 100,000 OpenMP runs out of stacks and aborts


def let_waiting_threads_sleep() -> None:
    """Make OpenMP's waiting threads sleep instead of spinning, unless the user's environment says otherwise.

    Call this before importing torch, which reads the setting once. By default waiting threads spin first (300,000
    iterations in libgomp, which torch and our kernels share) and occupy the core of the thread that they wait for.
    Beside one busy process, two threads on two cores then train 19 images/s instead of 419; with sleeping threads 192.
    On otherwise idle cores sleeping costs 5 %.
    """
    if not os.environ.keys() & {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME"}:
        os.environ["OMP_WAIT_POLICY"] = "passive"


def keep_freed_memory() -> None:
    """Make glibc keep freed memory, large blocks included, instead of returning it to the system.

    A step frees gigabytes and allocates them again. Each new page is zeroed by the system first: on two cores a
    training step of 32 images takes 12 % longer that way, and float32 crops from ppm shards four times as long.
    """
    glibc = ctypes.CDLL(None)
    if hasattr(glibc, "mallopt"):
        glibc.mallopt(M_MMAP_MAX, 0)
        glibc.mallopt(M_TRIM_THRESHOLD, 2**31 - 1)


def default_threads(local_processes: int) -> int:
    """CPU threads of each process of a node: the user's OMP_NUM_THREADS, else an equal share of the cores."""
    given = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip().lstrip("0")
    if given.isdecimal() and not set_by_torchrun():
        return min(int(given[:9]), MAX_THREADS)
    return max(1, cores() // local_processes)


def refuse_threads(**counts: int | None) -> None:
    """Raises InputError for a number of threads out of range. ``counts`` maps flags to numbers; None: not given."""
    for flag, count in counts.items():
        if count is not None and not 1 <= count <= MAX_THREADS:
            raise InputError(f"--{flag} {count}: must be at least 1 and at most {MAX_THREADS}")


def set_by_torchrun() -> bool:
    """True if OMP_NUM_THREADS comes from torchrun, not the user (detected on Linux).

    torchrun sets it to 1 when it starts several processes per node and the user has not set it.
    """
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        return False
    with contextlib.suppress(OSError):
        started_with = Path(f"/proc/{os.getppid()}/environ").read_bytes().split(b"\0")
        return not any(entry.startswith(b"OMP_NUM_THREADS=") for entry in started_with)
    return False


def cores() -> int:
    """Cores that this process may use: those of its affinity mask, limited by its cgroup's quota."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, math.floor(min(allowed, cpu_quota())))


def cpu_quota(root: Path = Path("/sys/fs/cgroup"), process: Path = Path("/proc/self/cgroup")) -> float:
    """CPU quota of this process's cgroups in cores, infinite without one; versions 2 and 1 (Linux).

    A group's quota applies to all groups below it. In a container ``root`` itself is the container's group.
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
    """Quota of one cgroup in cores: ``cpu.max`` (version 2) or ``cpu.cfs_quota_us`` (version 1)."""
    with contextlib.suppress(OSError, ValueError):
        quota, period = (group / "cpu.max").read_text().split()
        return math.inf if quota == "max" else int(quota) / int(period)
    with contextlib.suppress(OSError, ValueError):
        microseconds = [int((group / f"cpu.cfs_{name}_us").read_text()) for name in ("quota", "period")]
        return microseconds[0] / microseconds[1] if microseconds[0] > 0 else math.inf
    return math.inf
