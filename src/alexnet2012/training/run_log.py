"""Logs of a run: lines on the terminal, rows in ``metrics.jsonl``, TensorBoard."""

from __future__ import annotations

import errno
import json
import os
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor
from torch.utils.tensorboard import SummaryWriter

from alexnet2012.core import messages
from alexnet2012.evaluation import ErrorRates
from alexnet2012.evaluation.features import kernel_sheet
from alexnet2012.training.run_directory import RunDirectory

SILENCE = 10.0  # seconds without a line about a step, after which a terminal gets one; ours
PANEL = {  # of TensorBoard's custom scalars: as the book plots a run
    "run": {"loss and accuracy": ["Multiline", ["train_loss", "val_loss", "train_accuracy", "val_accuracy"]]}
}


class RunLog:
    """Rank 0's logs. Rows are written unbuffered; on resuming, TensorBoard drops events after ``step``."""

    def __init__(self, run: RunDirectory, step: int, settings: dict[str, Any], validated: bool = True) -> None:
        """``step``: the last one done; ``validated``: so is the epoch that ended there."""
        run.drop_rows_after(step, validated)
        self.metrics, self.rows = run.metrics, run.metrics.open("ab", buffering=0)
        wait_for_a_later_name(run.tensorboard)
        self.board: SummaryWriter | None = SummaryWriter(str(run.tensorboard), purge_step=step + 1)
        self.said = time.monotonic()  # when the last line about a step was printed
        self.failed = False  # the last row could not be written
        text = "```\n" + json.dumps(settings, indent=2) + "\n```"
        self.on_board(lambda board: board.add_text("settings", text, step))
        self.on_board(lambda board: board.add_custom_scalars(PANEL))

    def row(self, values: dict[str, Any]) -> None:
        """Write a line of ``metrics.jsonl``; its numbers go to TensorBoard too."""
        self.append(json.dumps(values).encode() + b"\n")
        self.scalars({name: value for name, value in values.items() if name not in ("step", "epoch")}, values["step"])

    def append(self, line: bytes) -> None:
        """Write all of ``line`` or, on a full disk, nothing; a series of failures gives one warning."""
        end = self.rows.seek(0, os.SEEK_END)
        try:
            if self.rows.write(line) < len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            self.failed = False
        except OSError as error:
            self.rows.truncate(end)
            if not self.failed:
                self.warn(f"{self.metrics}: rows are left out ({error.strerror})")
            self.failed = True

    def on_board(self, write: Callable[[SummaryWriter], object]) -> None:
        """``write`` to TensorBoard. A full disk breaks its writer: nothing more is written then."""
        try:
            if self.board:
                write(self.board)
        except OSError as error:
            self.board = None
            self.warn(f"TensorBoard: nothing more is written in this start of the run ({error.strerror})")

    def warn(self, line: str) -> None:
        messages.warn(f"{line}; training goes on")

    def scalars(self, values: dict[str, float], step: int) -> None:
        """Write values to TensorBoard only."""
        for name, value in values.items():
            self.on_board(partial(SummaryWriter.add_scalar, tag=name, scalar_value=value, global_step=step))

    def epoch(
        self, step: int, epoch: int, epochs: int, training: dict[str, float], rates: ErrorRates,
        since_best: int, patience: int | None, monitor: str,
    ) -> None:  # fmt: skip
        """Log the end of an epoch; ``training`` comes from ``EpochMeans.row``.

        ``since_best`` epochs had no better ``monitor`` ("error" or "loss"); ``patience`` of them end the run.
        """
        measured = {"val_loss": rates.loss, "val_top1_error": rates.top1_error, "val_top5_error": rates.top5_error}
        self.row({"step": step, "epoch": epoch, **training, **measured})
        line = f"epoch {epoch}/{epochs}  "
        if training:
            line += f"training: loss {training['train_loss']:.4f}, top-1 error {training['train_top1_error']:.2f} %; "
        line += f"validation on the centre crop of {rates.images} images: loss {rates.loss:.4f}, "
        line += f"top-1 error {rates.top1_error:.2f} %, top-5 error {rates.top5_error:.2f} %"
        if since_best:
            line += f"; no better {monitor} for {since_best}{f' of {patience}' if patience else ''} epochs"
        messages.say(line)
        errors = {"train": training.get("train_top1_error"), "val": rates.top1_error}
        accuracies = {f"{name}_accuracy": 1 - error / 100 for name, error in errors.items() if error is not None}
        self.scalars(accuracies, step)

    def step(self, row: dict[str, Any], monitored: dict[str, float], last_step: int, batch_size: int) -> None:
        """A step's row, its ``monitored`` values for TensorBoard, and a line: the run's progress and the time left."""
        self.row(row)
        self.scalars(monitored, row["step"])
        self.said = time.monotonic()
        left = (last_step - row["step"]) * batch_size / row["images_per_second"]
        messages.say(
            f"step {row['step']}/{last_step}  epoch {row['epoch']}  loss {row['loss']:.4f}  "
            f"error {row['batch_top1_error']:.1f} %  {row['images_per_second']:.0f} images/s  "
            f"waiting for data {100 * row['data_wait']:.0f} %  {duration(left)} left"
        )

    def between(self, step: int, last_step: int, loss: float, seconds: float) -> None:
        """On a terminal, a line for a step without a row where ``SILENCE`` has passed; ``seconds`` a step takes."""
        if sys.stdout.isatty() and time.monotonic() - self.said > SILENCE:
            self.said = time.monotonic()
            messages.say(f"step {step}/{last_step}  loss {loss:.4f}  {duration((last_step - step) * seconds)} left")

    def kernels(self, weights: dict[str, Tensor], step: int) -> None:
        """Show conv1's kernels in TensorBoard."""
        self.on_board(lambda board: board.add_image("conv1 kernels", kernel_sheet(weights), step))

    def skipped(self, step: int, images: int) -> None:
        """Log the number of images replaced so far, at an epoch's end."""
        self.scalars({"images skipped": images}, step)
        messages.say(f"images skipped so far because they cannot be read, each process counting its own: {images}")

    def flush(self) -> None:
        """Write TensorBoard's events to its file."""
        self.on_board(SummaryWriter.flush)

    def close(self) -> None:
        self.rows.close()
        self.on_board(SummaryWriter.close)


def wait_for_a_later_name(directory: Path) -> None:
    """Wait out the current second: TensorBoard reads event files by name, which begins with the second of opening."""
    opened = [path.name.removeprefix("events.out.tfevents.")[:10] for path in directory.glob("events.out.tfevents.*")]
    while f"{int(time.time()):010d}" in opened:
        time.sleep(0.05)


def duration(seconds: float) -> str:
    """A length of time in its largest fitting unit."""
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} s"
