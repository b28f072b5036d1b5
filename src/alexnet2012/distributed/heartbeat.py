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
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from functools import partial
from typing import NamedTuple, Protocol, TypeVar

from alexnet2012.core import messages
from alexnet2012.core.errors import Failure

INTERVAL = 1.0  # seconds between beats
SILENCE = 5.0  # seconds without a beat, which every process finds time for
ANSWER = 10.0  # seconds in which the store answers, or is lost itself
STORE_LOST = "rank 0, or torchrun on its node, stopped answering: it keeps what the ranks know of each other"
PARENT = os.getppid()  # before the kernel is asked to tell of its end


T = TypeVar("T")


class Store(Protocol):
    """What torch.distributed's key-value stores offer of use here."""

    def set(self, key: str, value: str) -> None: ...

    def get(self, key: str) -> bytes: ...

    def check(self, keys: list[str]) -> bool: ...


class LostRank(Failure):
    """Another rank stopped answering. The message names it, the step and the operation."""


class Place(NamedTuple):
    """Where a rank stands."""

    operations: int = 0  # begun so far; every rank counts the same ones
    step: int = 0
    operation: str = "start"
    since: float | None = None  # time.monotonic() when its wait in a collective began; None while it works


class Beat(NamedTuple):
    """What a rank says of itself every second."""

    number: int = 0
    operations: int = 0
    step: int = 0
    operation: str = "start"
    waited: float = 0.0  # seconds in a collective; 0 while it works
    failure: str = ""  # what this rank ends with, if it does

    def __str__(self) -> str:
        return f"step {self.step} ({self.operation})"


class Heartbeat:
    """Says every second where this rank stands, and ends the process when it waits for others in vain.

    Only a wait in a collective is timed, and a rank that works, for however long, is waited for. After ``timeout``
    seconds the wait is in vain if a rank is silent or has failed, or if every rank has waited so long.

    Ending is ``os._exit``: the main thread hangs in a collective that nothing else gets it out of. ``place`` is the
    main thread's to write, the rest the heartbeat's: no two threads write one.
    """

    def __init__(self, store: Store, rank: int, processes: int, timeout: float) -> None:
        self.store, self.rank, self.processes, self.timeout = store, rank, processes, timeout
        self.place, self.number, self.failure = Place(), 0, ""
        self.before: tuple[float, dict[int, Beat]] | None = None  # the look at all ranks that the next is held against
        self.said_waiting = False
        self.at_end: Callable[[str], object] = lambda reason: None  # called before the process ends for a wait in vain
        self.ended = threading.Event()
        self.send()
        self.thread = threading.Thread(target=self.run, daemon=True, name="heartbeat")
        self.thread.start()

    def begin(self, operation: str, step: int | None = None, waits: bool = False) -> None:
        """The main thread begins ``operation``, which other ranks begin too; ``waits``: for them, in a collective."""
        last = self.place
        since = time.monotonic() if waits else None
        self.place = Place(last.operations + 1, last.step if step is None else step, operation, since)

    @contextlib.contextmanager
    def waiting(self, operation: str | None = None) -> Iterator[None]:
        """Time what is inside as a collective; ``operation`` is its name if it has one of its own."""
        before = self.place
        self.begin(operation or before.operation, waits=True)
        with self.restoring(before):
            yield

    @contextlib.contextmanager
    def working(self) -> Iterator[None]:
        """Time nothing of what is inside: this rank does it alone, and the others wait for it."""
        before = self.place
        self.place = before._replace(since=None)
        with self.restoring(before):
            yield

    @contextlib.contextmanager
    def restoring(self, before: Place) -> Iterator[None]:
        """Go back to the operation and the kind of time that were ``before``."""
        try:
            yield
        finally:
            since = None if before.since is None else time.monotonic()
            self.place = self.place._replace(operation=before.operation, since=since)

    def run(self) -> None:
        while not self.ended.wait(INTERVAL):
            try:
                self.send()
                in_vain = self.in_vain()
            except RuntimeError:
                in_vain = self.located(STORE_LOST)
            if in_vain and not self.ended.is_set():
                messages.error(in_vain)
                with contextlib.suppress(RuntimeError):  # the disk may hang, too
                    asked(partial(self.at_end, in_vain))
                os._exit(1)

    def waited(self) -> float:
        """Seconds in the collective that this rank waits in; 0 outside."""
        since = self.place.since
        return 0.0 if since is None else time.monotonic() - since

    def send(self) -> None:
        """Raises RuntimeError where the store is gone."""
        self.number += 1
        place = self.place
        beat = Beat(self.number, place.operations, place.step, place.operation, self.waited(), self.failure)
        self.store.set(f"beat/{self.rank}", json.dumps(beat))

    def in_vain(self) -> str:
        """Why this rank waits in vain; empty while it works, and while others may come.

        Two looks at all ranks, ``SILENCE`` apart, tell. Raises RuntimeError where the store does not answer.
        """
        if self.waited() < self.timeout:
            self.before, self.said_waiting = None, False
            return ""
        now, beats = time.monotonic(), self.everyone()
        failed = failure_in(beats)
        if failed or self.before is None or now - self.before[0] < SILENCE:
            self.before = self.before or (now, beats)
            return failed
        (_, before), self.before = self.before, (now, beats)
        if missing := self.missing(before, beats):
            return self.located(missing)
        self.say_waiting(beats)
        return ""

    def missing(self, before: dict[int, Beat], after: dict[int, Beat]) -> str:
        """Which rank is silent, or, where all have waited too long, the furthest behind; empty while one works."""
        still = [rank for rank in after if rank != self.rank and before[rank].number == after[rank].number]
        rank = min(still or after, key=lambda rank: after[rank].operations)
        if still:
            return f"rank {rank} stopped answering, last heard of in {after[rank]}"
        if min(beat.waited for beat in after.values()) >= self.timeout:
            return f"all ranks wait for one another; rank {rank} is the furthest behind, in {after[rank]}"
        return ""

    def say_waiting(self, beats: dict[int, Beat]) -> None:
        """One line a wait, from one of the ranks that wait: for whom."""
        first = next((rank for rank, beat in beats.items() if beat.waited >= self.timeout), None)
        if first != self.rank or self.said_waiting:
            return
        self.said_waiting = True
        late = min(beats, key=lambda rank: beats[rank].waited)
        messages.warn(f"{beats[self.rank].waited:.0f} s of waiting for rank {late}, which is still in {beats[late]}")

    def located(self, reason: str) -> str:
        """``reason``, where this rank was, and what to do."""
        place = self.place
        return (
            f"{reason}; rank {self.rank} was in step {place.step} ({place.operation}); "
            "the same command goes on from the last checkpoint"
        )

    def fail(self, failure: Failure) -> None:
        """Let the others know what this rank alone ends with."""
        self.close()
        self.failure = str(failure)
        with contextlib.suppress(RuntimeError):  # the store may be gone by now
            self.send()

    def lost(self) -> LostRank:
        """Which rank a collective broke for: one that failed, a silent one, else the furthest behind."""
        try:
            if failed := self.failed():
                lost = LostRank(failed)
                lost.reported = lost.acknowledged = True
                return lost
            before = self.everyone()
            time.sleep(SILENCE)
            after = self.everyone()
        except RuntimeError:
            return LostRank(self.located(STORE_LOST))
        behind = min(after, key=lambda rank: after[rank].operations)
        gone = f"rank {behind} left the collective, last heard of in {after[behind]}"
        return LostRank(self.located(self.missing(before, after) or gone))

    def failed(self) -> str:
        """What a rank has ended with, if one has. Raises RuntimeError where the store does not answer."""
        return failure_in(self.everyone())

    def everyone(self) -> dict[int, Beat]:
        """Every rank's beat. Raises RuntimeError where the store does not answer."""
        return asked(lambda: {rank: self.heard(rank) for rank in range(self.processes)})

    def heard(self, rank: int) -> Beat:
        """The last beat of ``rank``, an empty one before its first."""
        key = f"beat/{rank}"
        return Beat(*json.loads(self.store.get(key))) if self.store.check([key]) else Beat()

    def close(self) -> None:
        self.ended.set()
        self.thread.join()


def failure_in(beats: dict[int, Beat]) -> str:
    """What a rank has ended with, if one has."""
    return next((f"rank {rank}: {beat.failure}" for rank, beat in beats.items() if beat.failure), "")


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


def die_with_parent(parent: int = PARENT) -> None:
    """Let the kernel end this process when torchrun dies, its threads with it (Linux).

    ``parent`` is whose child this process was before: in a container torchrun itself can be process 1.
    """
    if sys.platform == "linux":
        pr_set_pdeathsig = 1
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)
