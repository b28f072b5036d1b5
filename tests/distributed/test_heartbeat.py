"""Who is lost, who only works, and what is said of it: the heartbeats of several ranks over one store."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from alexnet2012.core.errors import Failure
from alexnet2012.distributed import heartbeat as liveness
from alexnet2012.distributed.heartbeat import Heartbeat

TIMEOUT = 0.1


class Dictionary:
    """A store; ``broken`` once its server is gone."""

    def __init__(self) -> None:
        self.values: dict[str, str] = {}
        self.broken = False

    def set(self, key: str, value: str) -> None:
        if self.broken:
            raise RuntimeError("Broken pipe")
        self.values[key] = value

    def get(self, key: str) -> bytes:
        return self.values[key].encode()

    def check(self, keys: list[str]) -> bool:
        return all(key in self.values for key in keys)


class Exit(BaseException):
    """Takes the place of the process's end, and ends the heartbeat's thread."""


Start = Callable[[int], Heartbeat]


@pytest.fixture
def exits(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The codes that heartbeats have exited with; beats are fast."""
    codes: list[int] = []

    def leave(code: int) -> None:
        codes.append(code)
        raise Exit

    monkeypatch.setattr(liveness, "INTERVAL", 0.01)
    monkeypatch.setattr(liveness, "SILENCE", 0.1)
    monkeypatch.setattr(liveness.os, "_exit", leave)
    monkeypatch.setattr(threading, "excepthook", lambda arguments: None)
    return codes


@pytest.fixture
def ranks(exits: list[int]) -> Iterator[list[Heartbeat]]:
    """Rank 0 and rank 1."""
    store = Dictionary()
    started = [Heartbeat(store, rank, 2, TIMEOUT) for rank in range(2)]
    yield started
    store.broken = False
    for heartbeat in started:
        heartbeat.close()


def wait_for(ended: Callable[[], object]) -> None:
    deadline = time.monotonic() + 10
    while not ended() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert ended()


def test_a_rank_that_works_for_long_is_waited_for(
    ranks: list[Heartbeat], exits: list[int], capsys: pytest.CaptureFixture[str]
) -> None:
    ranks[0].begin("drawing the figures", 3)
    with ranks[1].waiting():
        time.sleep(10 * TIMEOUT)
    assert exits == []
    (line,) = capsys.readouterr().err.splitlines()
    assert "of waiting for rank 0, which is still in step 3 (drawing the figures)" in line


def test_work_within_a_timed_operation_is_not_timed(ranks: list[Heartbeat], exits: list[int]) -> None:
    ranks[0].begin("a training step", 1, waits=True)
    with ranks[0].working(), ranks[1].waiting():
        time.sleep(5 * TIMEOUT)
    assert ranks[0].waited() < TIMEOUT and ranks[1].waited() == 0
    assert exits == []


def test_a_silent_rank_is_named(ranks: list[Heartbeat], exits: list[int], capsys: pytest.CaptureFixture[str]) -> None:
    ranks[0].begin("a training step", 7)
    time.sleep(0.05)
    ranks[0].ended.set()  # stands still, or has died
    told: list[str] = []
    ranks[1].at_end = told.append
    with ranks[1].waiting("conv3 joined"):
        wait_for(lambda: exits)
    said = capsys.readouterr().err
    assert said.startswith("error: rank 0 stopped answering, last heard of in step 7 (a training step); rank 1 was in")
    assert "step 0 (conv3 joined)" in said and said == f"error: {told[0]}\n"


def test_a_disk_that_hangs_does_not_keep_a_rank_from_ending(
    ranks: list[Heartbeat], exits: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(liveness, "ANSWER", 0.1)
    ranks[0].ended.set()
    ranks[1].at_end = lambda reason: threading.Event().wait(10)
    with ranks[1].waiting():
        wait_for(lambda: exits)


def test_ranks_that_all_wait_name_the_furthest_behind(
    ranks: list[Heartbeat], exits: list[int], capsys: pytest.CaptureFixture[str]
) -> None:
    """As where the network between two nodes is cut, and the store is still reached."""
    ranks[0].begin("a training step", 4)
    with ranks[0].waiting("conv3 joined"), ranks[1].waiting("conv2 joined"):
        wait_for(lambda: len(exits) == 2)
    assert "all ranks wait for one another; rank 1 is the furthest behind, in step 0 (conv2" in capsys.readouterr().err


def test_a_failed_rank_is_reported(
    ranks: list[Heartbeat], exits: list[int], capsys: pytest.CaptureFixture[str]
) -> None:
    ranks[0].fail(Failure("data/n01/1.JPEG: no image"))
    with ranks[1].waiting():
        wait_for(lambda: exits)
    assert capsys.readouterr().err == "error: rank 0: data/n01/1.JPEG: no image\n"
    assert str(ranks[1].lost()) == "rank 0: data/n01/1.JPEG: no image"


def test_a_lost_store_is_reported(ranks: list[Heartbeat], exits: list[int], capsys: pytest.CaptureFixture[str]) -> None:
    ranks[0].close()
    ranks[1].begin("validation", 9)
    ranks[1].store.broken = True  # type: ignore[attr-defined]
    wait_for(lambda: exits)
    said = capsys.readouterr().err
    assert said.startswith("error: rank 0, or torchrun on its node, stopped answering: it holds the store")
    assert "rank 1 was in step 9 (validation)" in said


def test_beats_lose_no_operation_between_two_threads(exits: list[int]) -> None:
    """The main thread begins operations while the heartbeat counts its beats."""
    heartbeat = Heartbeat(Dictionary(), 0, 1, TIMEOUT)
    heartbeat.close()
    interval, count = sys.getswitchinterval(), 20_000
    sys.setswitchinterval(1e-6)
    try:
        beating = threading.Thread(target=lambda: [heartbeat.send() for _ in range(count)])
        beating.start()
        for _ in range(count):
            heartbeat.begin("a training step")
        beating.join()
    finally:
        sys.setswitchinterval(interval)
    heartbeat.send()
    (beat,) = heartbeat.beats()
    assert (beat.operations, beat.number) == (count, count + 2)


def child(code: str, *before: str) -> subprocess.CompletedProcess[str]:
    """Run ``code`` behind the words ``before``."""
    return subprocess.run([*before, sys.executable, "-c", code], capture_output=True, text=True, check=False)


IN_A_CONTAINER = """
import os, subprocess, sys
assert os.getpid() == 1
code = "from alexnet2012.distributed.heartbeat import die_with_parent; die_with_parent(); print('lives')"
sys.exit(subprocess.run([sys.executable, "-c", code]).returncode)
"""


@pytest.mark.skipif(child("", "unshare", "-pf", "--mount-proc").returncode != 0, reason="may not unshare process ids")
def test_the_child_of_a_container_s_first_process_is_no_orphan() -> None:
    ended = child(IN_A_CONTAINER, "unshare", "-pf", "--mount-proc")
    assert (ended.returncode, ended.stdout) == (0, "lives\n")


def test_a_child_whose_parent_has_gone_meanwhile_ends() -> None:
    ended = child(
        "from alexnet2012.distributed.heartbeat import die_with_parent; die_with_parent(parent=0); print('lives')"
    )
    assert (ended.returncode, ended.stdout) == (1, "")
