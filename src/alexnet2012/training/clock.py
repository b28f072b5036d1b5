"""Measures where a run's time goes."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator


class Clock:
    """Counts steps and the time they wait for data; time spent in validation and saving does not count."""

    def __init__(self, batch_size: int) -> None:
        self.batch_size = batch_size
        self.read_steps, self.read_seconds = 0, 0.0  # of all readings
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
        """Around validation and saving."""
        start = time.perf_counter()
        yield
        self.elsewhere += time.perf_counter() - start

    def read(self) -> dict[str, float]:
        """Since the last reading: images per second, and the share (0..1) of the time spent waiting for data."""
        seconds = max(time.perf_counter() - self.started - self.elsewhere, 1e-9)
        pace = {"images_per_second": self.steps * self.batch_size / seconds, "data_wait": self.waited / seconds}
        self.read_steps, self.read_seconds = self.read_steps + self.steps, self.read_seconds + seconds
        self.restart()
        return pace

    def seconds_per_step(self) -> float:
        """Since the last reading."""
        return (time.perf_counter() - self.started - self.elsewhere) / max(self.steps, 1)

    def examples_per_second(self) -> str:
        """The end of a run's closing line: over all its steps, those of this start; empty where it took none."""
        if self.steps:
            self.read()
        speed = self.read_steps * self.batch_size / max(self.read_seconds, 1e-9)
        return f", {speed:.1f} examples/sec" if speed else ""
