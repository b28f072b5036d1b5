"""What a run tells."""

from __future__ import annotations

import json
import resource
import signal
import sys
import time
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.custom_scalar import layout_pb2
from torch.utils.tensorboard import SummaryWriter

from alexnet2012.evaluation import ErrorRates
from alexnet2012.training.run_directory import RunDirectory
from alexnet2012.training.run_log import RunLog, wait_for_a_later_name


def test_events_of_a_run_resumed_within_a_second_are_read_after_the_first_ones(tmp_path: Path) -> None:
    first = tmp_path / f"events.out.tfevents.{int(time.time()):010d}.host.99999.0"
    first.touch()
    wait_for_a_later_name(tmp_path)
    assert f"events.out.tfevents.{int(time.time()):010d}" > first.name


def test_nothing_is_waited_for_after_a_clock_was_set_back(tmp_path: Path) -> None:
    (tmp_path / f"events.out.tfevents.{int(time.time()) + 3600:010d}.host.1.0").touch()
    wait_for_a_later_name(tmp_path)


def test_a_full_disk_costs_rows_whole_and_says_so_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A limit of the file's size stands for the disk: the system then takes a part of the row at its edge."""
    log = RunLog(RunDirectory(tmp_path), 0, {})
    log.flush()
    ignored, limit = signal.signal(signal.SIGXFSZ, signal.SIG_IGN), resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        for step in range(1, 10):
            full = 4 <= step < 7
            room = (tmp_path / "metrics.jsonl").stat().st_size + 5 if full else limit[0]
            resource.setrlimit(resource.RLIMIT_FSIZE, (room, limit[1]))
            log.append(json.dumps({"step": step}).encode() + b"\n")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
        signal.signal(signal.SIGXFSZ, ignored)
    log.close()
    steps = [json.loads(line)["step"] for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert steps == [1, 2, 3, 7, 8, 9]
    reported = capsys.readouterr().err
    assert reported.count("\n") == 1 and reported.startswith(
        f"warning: {tmp_path / 'metrics.jsonl'}: rows are left out"
    )


def test_a_full_disk_ends_tensorboard_but_not_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*arguments: object, **named: object) -> None:
        raise OSError(28, "No space left on device")

    log = RunLog(RunDirectory(tmp_path), 0, {})
    monkeypatch.setattr(SummaryWriter, "add_scalar", full)
    for step in (1, 2):
        log.row({"step": step, "epoch": 1, "loss": 1.0})
    log.flush()
    log.close()
    assert (tmp_path / "metrics.jsonl").read_text().count("\n") == 2
    assert capsys.readouterr().err.count("TensorBoard: nothing more is written") == 1


def test_on_a_terminal_slow_steps_are_told_with_the_time_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    log = RunLog(RunDirectory(tmp_path), 0, {})
    for step, terminal in ((1, True), (2, False), (3, True), (4, True)):
        monkeypatch.setattr(sys.stdout, "isatty", lambda terminal=terminal: terminal)
        log.said -= 11 * (step in (2, 3))  # seconds of silence
        log.between(step, 100, 2.5, 30.0)
    log.close()
    assert capsys.readouterr().out == "step 3/100  loss 2.5000  48.5 min left\n"


def test_tensorboard_has_loss_and_accuracy_of_both_sets_in_one_panel(tmp_path: Path) -> None:
    log = RunLog(RunDirectory(tmp_path), 0, {})
    log.epoch(
        6, 1, 4, {"train_loss": 1.5, "train_top1_error": 40.0}, ErrorRates(30.0, 10.0, 1.25, 15), 0, None, "error"
    )
    log.close()
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    (chart,) = (
        layout_pb2.Layout.FromString(events.Tensors("custom_scalars__config__")[0].tensor_proto.string_val[0])
        .category[0]
        .chart
    )
    seen = {tag: events.Scalars(tag)[0].value for tag in chart.multiline.tag}
    assert seen == {
        "train_loss": 1.5,
        "val_loss": 1.25,
        "train_accuracy": pytest.approx(0.6),
        "val_accuracy": pytest.approx(0.7),
    }
