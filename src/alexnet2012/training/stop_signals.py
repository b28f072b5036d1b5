"""Requests to stop: signals and a time limit. All ranks stop together between two steps."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from types import FrameType
from typing import Any

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
SAME_REQUEST = 2.0  # seconds: a terminal and torchrun may both pass one Ctrl-C on


class StopRequest:
    """A request to this process to stop. A second signal goes to the handler from before."""

    def __init__(self, time_limit: float | None) -> None:
        """``time_limit``: minutes from now."""
        self.deadline = None if time_limit is None else time.monotonic() + 60 * time_limit
        self.signal: int | None = None
        self.since = 0.0
        self.before: dict[int, Any] = {}

    @property
    def wanted(self) -> bool:
        return self.signal is not None or (self.deadline is not None and time.monotonic() > self.deadline)

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Handle the signals inside the ``with``, and after an exception until the process has exited."""
        self.before = {number: signal.signal(number, self.receive) for number in SIGNALS}
        yield
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def receive(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if self.signal is not None and now - self.since > SAME_REQUEST:
            handler = self.before[number]
            handler(number, frame) if callable(handler) else os._exit(128 + number)
        if self.signal is None:
            self.signal, self.since = number, now
