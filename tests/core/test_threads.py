"""How many threads a process takes: of whom the number is, and what a machine, or a part of one, allows."""

from __future__ import annotations

import ctypes
import json
import math
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from running import ROOT, SMALL, TRAIN, here, start

from alexnet2012.core import threads
from alexnet2012.core.threads import MAX_THREADS, cores, cpu_quota, default_threads, let_waiting_threads_sleep
from alexnet2012.reporting.ablation.execution import slots

SAY_THREADS = Path(__file__).with_name("say_threads.py")


def write(files: dict[Path, str]) -> None:
    for path, text in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


@pytest.fixture
def process(tmp_path: Path) -> Path:
    """The place of ``/proc/self/cgroup``."""
    return tmp_path / "self" / "cgroup"


def test_version_2_every_group_above_binds(tmp_path: Path, process: Path) -> None:
    write({process: "0::/job/step\n", tmp_path / "job/cpu.max": "350000 100000\n"})
    write({tmp_path / "job/step/cpu.max": "max 100000\n"})
    assert cpu_quota(tmp_path, process) == 3.5
    write({tmp_path / "job/step/cpu.max": "50000 100000\n"})
    assert cpu_quota(tmp_path, process) == 0.5


def test_version_2_in_a_container_whose_own_group_is_the_root(tmp_path: Path, process: Path) -> None:
    write({process: "0::/\n", tmp_path / "cpu.max": "200000 100000\n"})
    assert cpu_quota(tmp_path, process) == 2


def test_version_1_beside_other_controllers(tmp_path: Path, process: Path) -> None:
    write({process: "5:memory:/big\\x\n4:cpu,cpuacct:/docker/0a\n1:name=systemd:/docker/0a\n0::/\n"})
    write({tmp_path / "cpu/docker/0a/cpu.cfs_quota_us": "150000\n"})
    write({tmp_path / "cpu/docker/0a/cpu.cfs_period_us": "50000\n"})
    write({tmp_path / "cpu/cpu.cfs_quota_us": "-1\n", tmp_path / "cpu/cpu.cfs_period_us": "100000\n"})
    assert cpu_quota(tmp_path, process) == 3


def test_version_1_in_a_container_that_is_shown_its_group_as_the_root(tmp_path: Path, process: Path) -> None:
    write({process: "4:cpu:/docker/0a\n", tmp_path / "cpu/cpu.cfs_quota_us": "400000"})
    write({tmp_path / "cpu/cpu.cfs_period_us": "100000"})
    assert cpu_quota(tmp_path, process) == 4


@pytest.mark.parametrize("text", ["", "no group", "0::/\n", "0::/job\n", "0::/\udcff\n"], ids=ascii)
def test_no_quota_where_none_is_found(text: str, tmp_path: Path, process: Path) -> None:
    process.parent.mkdir()
    process.write_bytes(text.encode(errors="surrogateescape"))
    write({tmp_path / "job/cpu.max": "odd\n"})
    assert cpu_quota(tmp_path, process) == math.inf
    assert cpu_quota(tmp_path, tmp_path / "nowhere") == math.inf


@pytest.mark.parametrize(("quota", "expected"), [(math.inf, 8), (16.0, 8), (3.5, 3), (0.5, 1)])
def test_cores_are_those_of_mask_and_quota(quota: float, expected: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(8)))
    monkeypatch.setattr(threads, "cpu_quota", lambda: quota)
    assert cores() == expected
    monkeypatch.delenv("OMP_NUM_THREADS")
    assert [default_threads(processes) for processes in (1, 2, 16)] == [expected, max(1, expected // 2), 1]
    assert sum(len(slot.cores) for slot in slots(1)) == expected


def test_nothing_else_counts_cores() -> None:
    """But for what pins threads to cores that there are: a study's slots, and a benchmark of one core."""
    files = [path for room in ("src", "launch", "data_prep") for path in (ROOT / room).rglob("*.py")]
    counting = {path.name for path in files if re.search("cpu_count|sched_getaffinity", path.read_text())}
    assert counting == {"threads.py", "execution.py", "compare.py"}


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("3", 3),
        ("5,2", 5),
        (" 4 ", 4),
        ("0", 8),
        ("many", 8),
        ("", 8),
        ("100000", MAX_THREADS),
        ("9" * 5000, MAX_THREADS),
    ],
    ids=lambda value: str(value)[:9],
)
def test_the_user_s_number(given: str, expected: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "cores", lambda: 8)
    monkeypatch.setenv("OMP_NUM_THREADS", given)
    assert default_threads(1) == expected


@pytest.mark.parametrize(("variables", "expected"), [({}, 4), ({"OMP_NUM_THREADS": "3"}, 3)], ids=["none", "user's"])
def test_torchrun_s_own_number_is_not_the_user_s(
    variables: dict[str, str], expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two processes on what they take for eight cores; torchrun adds OMP_NUM_THREADS=1 where the user gave none."""
    monkeypatch.delenv("OMP_NUM_THREADS")
    process = start("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", 2, SAY_THREADS, **variables)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert sorted(out.splitlines()) == [f"rank {rank}: {expected} threads" for rank in range(2)]


def test_the_number_is_printed_and_recorded(tmp_path: Path) -> None:
    ended = here(TRAIN, *SMALL, "--data", "sample", "--out", tmp_path, "--max-steps", 1, "--threads", 2)
    assert ended.code == 0, ended.err
    assert "; 2 threads a process" in ended.out
    assert json.loads((tmp_path / "config.json").read_text())["threads"] == 2


@pytest.mark.parametrize(
    ("users", "policy"),
    [({}, "passive"), ({"OMP_WAIT_POLICY": "active"}, "active"), ({"GOMP_SPINCOUNT": "9"}, None),
     ({"KMP_BLOCKTIME": "1"}, None)],
    ids=str,
)  # fmt: skip
def test_threads_sleep_unless_the_user_says_how_they_wait(
    users: dict[str, str], policy: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "environ", dict(users))
    let_waiting_threads_sleep()
    assert os.environ.get("OMP_WAIT_POLICY") == policy


FREE_AND_ALLOCATE = """
import resource, sys, numpy
from alexnet2012.core.threads import keep_freed_memory
if sys.argv[1] == "keep":
    keep_freed_memory()
faults = []
for _ in range(3):
    numpy.ones(12_000_000)
    faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)
print(faults[2] - faults[1])
"""


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="not glibc")
def test_freed_memory_is_not_returned_to_the_system() -> None:
    """96 MB, written for the third time: by default new pages, of 4 KB or 2 MB."""
    command = (sys.executable, "-c", FREE_AND_ALLOCATE)
    kept, new = (int(subprocess.check_output([*command, how])) for how in ("keep", "default"))
    assert kept < 10 < 40 < new
