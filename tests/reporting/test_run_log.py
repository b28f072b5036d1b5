"""What a run tells."""

from __future__ import annotations

import time
from pathlib import Path

from alexnet2012.reporting.run_log import wait_for_a_later_name


def test_events_of_a_run_resumed_within_a_second_are_read_after_the_first_ones(tmp_path: Path) -> None:
    first = tmp_path / f"events.out.tfevents.{int(time.time()):010d}.host.99999.0"
    first.touch()
    wait_for_a_later_name(tmp_path)
    assert f"events.out.tfevents.{int(time.time()):010d}" > first.name


def test_nothing_is_waited_for_after_a_clock_was_set_back(tmp_path: Path) -> None:
    (tmp_path / f"events.out.tfevents.{int(time.time()) + 3600:010d}.host.1.0").touch()
    wait_for_a_later_name(tmp_path)
