"""Requests to stop."""

from __future__ import annotations

import signal
import time

import pytest

from alexnet2012.training.stop_signals import SAME_REQUEST, StopRequest


class Clock:
    now = 100.0


def test_a_second_signal_goes_to_who_took_signals_before(monkeypatch: pytest.MonkeyPatch) -> None:
    """Unless it is the first one again, as a terminal and torchrun both pass it on."""
    taken: list[int] = []
    monkeypatch.setattr(time, "monotonic", lambda: Clock.now)
    handler = signal.signal(signal.SIGUSR1, lambda number, frame: taken.append(number))
    try:
        stop = StopRequest(time_limit=None)
        with stop.listening():
            assert not stop.wanted
            for later, expected in ((0.0, []), (SAME_REQUEST, []), (SAME_REQUEST + 0.1, [signal.SIGUSR1])):
                monkeypatch.setattr(Clock, "now", 100.0 + later)
                signal.raise_signal(signal.SIGUSR1)
                assert stop.wanted and taken == expected
        signal.raise_signal(signal.SIGUSR1)
        assert len(taken) == 2
    finally:
        signal.signal(signal.SIGUSR1, handler)


def test_a_limit_of_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "monotonic", lambda: Clock.now)
    stop = StopRequest(time_limit=0.5)
    assert not stop.wanted
    monkeypatch.setattr(Clock, "now", 131.0)
    assert stop.wanted
