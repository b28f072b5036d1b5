"""Whether the other ranks still live: neither gloo nor NCCL says which one a collective waits for."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import NamedTuple, Protocol, TypeVar

from alexnet2012.errors import Failure

INTERVAL = 1.0  # seconds between beats
ANSWER = 10.0  # seconds in which the store answers, or is lost itself


T = TypeVar("T")


class Store(Protocol):
    """What torch.distributed's key-value stores offer of use here."""

    def set(self, key: str, value: str) -> None: ...

    def get(self, key: str) -> bytes: ...


class LostRank(Failure):
    """Another rank stopped answering. The message names it, the step and the operation."""


class Beat(NamedTuple):
    """What a rank says of itself every second."""

    number: int
    operations: int  # begun so far; every rank counts the same ones
    step: int
    operation: str
    failure: str = ""  # what this rank ends with, if it does


class Heartbeat:
    """Says every second where this rank stands, and ends the process when it has not moved for ``timeout`` seconds.

    Nothing is timed before the first operation: reading the data set for the first time may take hours.

    Ending is ``os._exit``: the main thread hangs in a collective that nothing else gets it out of.
    """

    def __init__(self, store: Store, rank: int, processes: int, timeout: float) -> None:
        self.store, self.rank, self.processes, self.timeout = store, rank, processes, timeout
        self.beat = Beat(0, 0, 0, "start")
        self.ended = threading.Event()
        self.send()
        self.thread = threading.Thread(target=self.run, daemon=True, name="heartbeat")
        self.thread.start()

    def begin(self, operation: str, step: int | None = None) -> None:
        """The main thread begins ``operation``, which other ranks begin too."""
        step = self.beat.step if step is None else step
        self.beat = self.beat._replace(operations=self.beat.operations + 1, step=step, operation=operation)

    def run(self) -> None:
        moved, operations = time.monotonic(), -1
        while not self.ended.wait(INTERVAL):
            if self.beat.operations != operations:
                moved, operations = time.monotonic(), self.beat.operations
            try:
                self.send()
            except RuntimeError:  # the store is gone, and with it the run
                os._exit(1)
            if operations and time.monotonic() - moved > self.timeout:
                print(f"error: {self.lost()}", file=sys.stderr, flush=True)
                os._exit(1)

    def send(self) -> None:
        self.beat = self.beat._replace(number=self.beat.number + 1)
        self.store.set(f"beat/{self.rank}", json.dumps(self.beat))

    def fail(self, failure: Failure) -> None:
        """Let the others know what this rank alone ends with."""
        self.close()
        self.beat = self.beat._replace(failure=str(failure))
        with contextlib.suppress(RuntimeError):  # the store may be gone by now
            self.send()

    def lost(self) -> LostRank:
        """Which rank the others wait for: one that failed, one whose beat stands still, else the furthest behind."""
        try:
            if failed := self.failed():
                lost = LostRank(failed)
                lost.told = lost.met = True
                return lost
            silent = self.silent()
        except RuntimeError:
            silent = "rank 0, or torchrun on its node, stopped answering: it keeps what the ranks know of each other"
        return LostRank(
            f"{silent}; rank {self.rank} was in step {self.beat.step} ({self.beat.operation}); "
            "the same command goes on from the last checkpoint"
        )

    def failed(self) -> str:
        """What a rank has ended with, if one has. Raises RuntimeError where the store does not answer."""
        return next((f"rank {rank}: {beat.failure}" for rank, beat in self.everyone().items() if beat.failure), "")

    def silent(self) -> str:
        """Which rank says nothing, or is the furthest behind."""
        before = self.everyone()
        time.sleep(3 * INTERVAL)
        after = self.everyone()
        still = [rank for rank in after if before[rank].number == after[rank].number and rank != self.rank]
        rank = min(still or after, key=lambda rank: after[rank].operations)
        return f"rank {rank} stopped answering, last heard of in step {after[rank].step} ({after[rank].operation})"

    def everyone(self) -> dict[int, Beat]:
        """Every rank's beat. Raises RuntimeError where the store does not answer."""
        return asked(
            lambda: {rank: Beat(*json.loads(self.store.get(f"beat/{rank}"))) for rank in range(self.processes)}
        )

    def close(self) -> None:
        self.ended.set()
        self.thread.join()


def asked(question: Callable[[], T]) -> T:
    """The answer to ``question``. Raises RuntimeError without one: a store hangs where its server stands still."""
    answer: Future[T] = Future()

    def ask() -> None:
        try:
            answer.set_result(question())
        except RuntimeError as error:
            answer.set_exception(error)

    threading.Thread(target=ask, daemon=True, name="question").start()
    try:
        return answer.result(ANSWER)
    except TimeoutError as error:
        raise RuntimeError("no answer") from error


def die_with_parent() -> None:
    """Let the kernel end this process when torchrun dies, its threads with it (Linux)."""
    if sys.platform == "linux":
        pr_set_pdeathsig = 1
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)
        if os.getppid() == 1:
            os._exit(1)
