"""Detection of lost ranks: neither gloo nor NCCL says which rank a collective waits for."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from functools import partial
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from alexnet2012.core import messages
from alexnet2012.core.errors import Failure

if TYPE_CHECKING:
    from torch.distributed import Store

INTERVAL = 1.0  # seconds between beats
SILENCE = 5.0  # seconds without a beat after which a rank counts as silent
ANSWER = 10.0  # seconds in which the store answers, or is lost itself
STORE_LOST = "rank 0, or torchrun on its node, stopped answering: it holds the store of all ranks' heartbeats"
PARENT = os.getppid()  # read before the kernel is asked to signal the parent's death


T = TypeVar("T")


class LostRank(Failure):
    """Another rank stopped answering. The message names it, the step and the operation."""


class Beat(NamedTuple):
    """The state of a rank, as it reports it every second."""

    operations: int = 0  # begun so far; every rank counts the same ones
    step: int = 0
    operation: str = "start"
    since: float | None = None  # time.monotonic() of this rank when its wait in a collective began; None while it works
    waited: float = 0.0  # seconds in that collective, when the beat was sent
    number: int = 0  # of beats sent
    failure: str = ""  # that ends this rank

    def __str__(self) -> str:
        return f"step {self.step} ({self.operation})"


class Heartbeat:
    """Reports this rank's state every second, and ends the process when it waits for other ranks in vain.

    Only waiting in a collective is timed; a rank that works is waited for, however long. After ``timeout`` seconds a
    wait is in vain if a rank is silent or has failed, or if every rank has waited that long.

    The process ends by ``os._exit``: the main thread hangs in a collective that cannot be interrupted. Only the main
    thread writes ``state`` and ``at_end``; the heartbeat's thread writes the others until ``fail`` or ``close`` end it.
    """

    def __init__(self, store: Store, rank: int, processes: int, timeout: float) -> None:
        self.store, self.rank, self.processes, self.timeout = store, rank, processes, timeout
        self.state, self.number, self.failure = Beat(), 0, ""
        self.before: tuple[float, list[Beat]] | None = None  # time and beats that the next look is compared with
        self.warned = False
        self.at_end: Callable[[str], object] = lambda reason: None  # called before the process ends for a wait in vain
        self.ended = threading.Event()
        self.send()
        self.thread = threading.Thread(target=self.run, daemon=True, name="heartbeat")
        self.thread.start()

    def begin(self, operation: str, step: int | None = None, waits: bool = False) -> None:
        """Record that the main thread begins ``operation``, as other ranks do; ``waits``: it is a collective."""
        last = self.state
        since = time.monotonic() if waits else None
        self.state = Beat(last.operations + 1, last.step if step is None else step, operation, since)

    @contextlib.contextmanager
    def waiting(self, operation: str | None = None) -> Iterator[None]:
        """Time the block as a collective, named ``operation`` or as the current operation."""
        with self.restoring():
            self.begin(operation or self.state.operation, waits=True)
            yield

    @contextlib.contextmanager
    def working(self) -> Iterator[None]:
        """Do not time the block: this rank works in it alone, and the others wait."""
        with self.restoring():
            self.state = self.state._replace(since=None)
            yield

    @contextlib.contextmanager
    def restoring(self) -> Iterator[None]:
        """Return to the current operation after the block, and time it afresh if it was timed."""
        before = self.state
        try:
            yield
        finally:
            since = None if before.since is None else time.monotonic()
            self.state = self.state._replace(operation=before.operation, since=since)

    def run(self) -> None:
        while not self.ended.wait(INTERVAL):
            try:
                self.send()
                in_vain = self.in_vain()
            except RuntimeError:
                in_vain = self.with_location(STORE_LOST)
            if in_vain and not self.ended.is_set():
                messages.error(in_vain)
                with contextlib.suppress(RuntimeError):  # the disk may hang, too
                    with_timeout(partial(self.at_end, in_vain))
                os._exit(1)

    def waited(self) -> float:
        """Seconds for which this rank has waited in a collective; 0 outside one."""
        since = self.state.since
        return 0.0 if since is None else time.monotonic() - since

    def send(self) -> None:
        """Send a beat. Raises RuntimeError if the store is lost."""
        self.number += 1
        beat = self.state._replace(waited=self.waited(), number=self.number, failure=self.failure)
        self.store.set(f"beat/{self.rank}", json.dumps(beat))

    def in_vain(self) -> str:
        """The reason why this rank waits in vain; empty while it works, or while the others may still come.

        Compares two looks at all ranks, ``SILENCE`` apart. Raises RuntimeError if the store does not answer.
        """
        if self.waited() < self.timeout:
            self.before, self.warned = None, False
            return ""
        now, beats = time.monotonic(), self.beats()
        failed = failure_in(beats)
        if failed or self.before is None or now - self.before[0] < SILENCE:
            self.before = self.before or (now, beats)
            return failed
        (_, before), self.before = self.before, (now, beats)
        if missing := self.missing(before, beats):
            return self.with_location(missing)
        self.warn_of_waiting(beats)
        return ""

    def missing(self, before: list[Beat], after: list[Beat]) -> str:
        """The silent rank or, if every rank has waited too long, the furthest behind; empty while one works."""
        others = [rank for rank in range(self.processes) if rank != self.rank]
        silent = [rank for rank in others if before[rank].number == after[rank].number]
        rank = min(silent or range(self.processes), key=lambda rank: after[rank].operations)
        if silent:
            return f"rank {rank} stopped answering, last heard of in {after[rank]}"
        if min(beat.waited for beat in after) >= self.timeout:
            return f"all ranks wait for one another; rank {rank} is the furthest behind, in {after[rank]}"
        return ""

    def warn_of_waiting(self, beats: list[Beat]) -> None:
        """Warn, once per wait and on the first waiting rank only, which rank the others wait for."""
        first = next((rank for rank, beat in enumerate(beats) if beat.waited >= self.timeout), None)
        if first == self.rank and not self.warned:
            self.warned = True
            late = min(range(self.processes), key=lambda rank: beats[rank].waited)
            waited = f"{beats[self.rank].waited:.0f} s of waiting for rank {late}"
            messages.warn(f"{waited}, which is still in {beats[late]}")

    def with_location(self, reason: str) -> str:
        """``reason``, the state of this rank, and what to do."""
        return f"{reason}; rank {self.rank} was in {self.state}; the same command resumes from the last checkpoint"

    def fail(self, failure: Failure) -> None:
        """Report to the other ranks that this one ends with ``failure``."""
        self.close()
        self.failure = str(failure)
        with contextlib.suppress(RuntimeError):  # the store may be lost by now
            self.send()

    def lost(self) -> LostRank:
        """The rank that broke a collective: one that failed, a silent one, else the furthest behind."""
        try:
            if failed := self.failed():
                lost = LostRank(failed)
                lost.reported = lost.acknowledged = True
                return lost
            before = self.beats()
            time.sleep(SILENCE)
            after = self.beats()
        except RuntimeError:
            return LostRank(self.with_location(STORE_LOST))
        behind = min(range(self.processes), key=lambda rank: after[rank].operations)
        gone = f"rank {behind} left the collective, last heard of in {after[behind]}"
        return LostRank(self.with_location(self.missing(before, after) or gone))

    def failed(self) -> str:
        """The failure that ended a rank, if any. Raises RuntimeError if the store does not answer."""
        return failure_in(self.beats())

    def beats(self) -> list[Beat]:
        """The last beat of every rank, an empty one before its first. Raises RuntimeError if the store is lost."""

        def last(rank: int) -> Beat:
            key = f"beat/{rank}"
            return Beat(*json.loads(self.store.get(key))) if self.store.check([key]) else Beat()

        return with_timeout(lambda: [last(rank) for rank in range(self.processes)])

    def close(self) -> None:
        self.ended.set()
        self.thread.join()


def failure_in(beats: list[Beat]) -> str:
    """The failure that ended a rank, if any."""
    return next((f"rank {rank}: {beat.failure}" for rank, beat in enumerate(beats) if beat.failure), "")


def with_timeout(call: Callable[[], T]) -> T:
    """``call()``. Raises RuntimeError after ``ANSWER`` seconds: a store hangs if its server does."""
    answer: Future[T] = Future()

    def ask() -> None:
        try:
            answer.set_result(call())
        except RuntimeError as error:
            answer.set_exception(error)

    threading.Thread(target=ask, daemon=True, name="question").start()
    try:
        return answer.result(ANSWER)
    except TimeoutError as error:
        raise RuntimeError("no answer") from error


def die_with_parent(parent: int = PARENT) -> None:
    """Have the kernel kill this process when torchrun dies (Linux); exit if torchrun, ``parent``, has died already.

    In a container torchrun itself may be process 1, so the parent's id alone does not tell an orphan.
    """
    if sys.platform == "linux":
        pr_set_pdeathsig = 1
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)
