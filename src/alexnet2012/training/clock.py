"""Where a run's time goes."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class Pace:
    """Of the steps since the last reading: their speed, and the share of their time spent waiting for data (0..1)."""

    images_per_second: float
    data_wait: float


class Clock:
    """Counts the steps of a run and what they wait for; validation and saving are paused, not counted."""

    def __init__(self, batch_size: int) -> None:
        self.batch_size = batch_size
        self.restart()

    def restart(self) -> None:
        self.started, self.waited, self.elsewhere, self.steps = time.perf_counter(), 0.0, 0.0, 0

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """Around the wait for a step's images."""
        start = time.perf_counter()
        yield
        self.waited += time.perf_counter() - start
        self.steps += 1

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Around what is no step."""
        start = time.perf_counter()
        yield
        self.elsewhere += time.perf_counter() - start

    def read(self) -> Pace:
        """The pace since the last reading."""
        seconds = max(time.perf_counter() - self.started - self.elsewhere, 1e-9)
        pace = Pace(self.steps * self.batch_size / seconds, self.waited / seconds)
        self.restart()
        return pace
