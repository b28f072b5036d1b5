"""Saving off the training path: one checkpoint at a time is written while training goes on."""

from __future__ import annotations

import os
import shutil
import sys
import threading
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from alexnet2012.core.atomic_files import atomic_write
from alexnet2012.core.errors import InputError
from alexnet2012.distributed.collectives import collect
from alexnet2012.distributed.layout import Layout
from alexnet2012.evaluation import checkpoint
from alexnet2012.network import AlexNet
from alexnet2012.training.optimizer import PaperSGD

NAMED = ("last.pt", "best.pt")


class CheckpointStore:
    """The checkpoints of one run: the last ``keep`` ``step-*.pt``, and ``last.pt``, ``best.pt``, ``before-drop-*.pt``.

    The named ones are further names (hard links) of files written once. A save that fails, on a full disk say, costs
    that checkpoint only: the run goes on with a warning, the older files stay.
    """

    def __init__(self, directory: Path, keep: int) -> None:
        self.directory, self.keep = directory, keep
        self.writing: threading.Thread | None = None
        self.unsaved = ""  # what became of the last save, if it failed

    def newest(self) -> tuple[Path | None, list[str]]:
        """The newest whole checkpoint, and a line for each broken one passed over.

        Raises InputError for a file of a newer format, or when there are checkpoints but none is whole.
        """
        broken: list[str] = []
        numbered = sorted(self.directory.glob("step-*.pt"), reverse=True)
        dropped = sorted(self.directory.glob("before-drop-*.pt"), reverse=True)
        for path in filter(Path.is_file, [*numbered, *(self.directory / name for name in NAMED), *dropped]):
            try:
                checkpoint.load(path)
            except checkpoint.Broken as error:
                broken.append(f"{error}; passed over")
            else:
                return path, broken
        if broken:
            raise InputError(f"{self.directory}: no whole checkpoint among {len(broken)}; start in another --out")
        return None, broken

    def last_good(self) -> str:
        """The newest whole checkpoint by its path, which the run goes on from; "none" without one."""
        try:
            return str(self.newest()[0] or "none")
        except InputError:
            return "none"

    def save(self, contents: dict[str, Any], names: list[str]) -> None:
        """Wait for the last save, then begin to write ``contents``, which nobody changes any more, as ``names`` too."""
        self.wait()
        self.writing = threading.Thread(target=self.write, args=(contents, names), name="checkpoint")
        self.writing.start()

    def wait(self) -> None:
        """Wait until the file being written is on the disk."""
        if self.writing:
            self.writing.join()
            self.writing = None

    def refuse_unsaved(self) -> None:
        """Raises InputError if the last save failed."""
        self.wait()
        if self.unsaved:
            raise InputError(f"{self.unsaved}; with that mended the same command goes on from the checkpoint before")

    def write(self, contents: dict[str, Any], names: list[str]) -> None:
        path = self.directory / f"step-{contents['step']:09d}.pt"
        try:
            checkpoint.save(path, contents)
            for name in names:
                give_name(path, self.directory / name)
            for old in sorted(self.directory.glob("step-*.pt"))[: -self.keep]:
                old.unlink()
            self.unsaved = ""
        except Exception as error:  # whatever it is: unsaved is how this thread tells it
            self.unsaved = f"{path}: not saved ({reason_of(error)})"
            print(f"warning: {self.unsaved}; training goes on", file=sys.stderr, flush=True)


def reason_of(error: Exception) -> str:
    """Why a save failed, in some words."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    if isinstance(error, RuntimeError):
        return "torch's writer failed, as on a full disk"
    return " ".join(f"{type(error).__name__}: {error}".split())


def give_name(path: Path, name: Path) -> None:
    """Let ``name`` be the file ``path``: a hard link, a copy where the file system has none."""
    with atomic_write(name) as partial:
        try:
            os.link(path, partial)
        except OSError:
            shutil.copyfile(path, partial)


def gather_net(net: AlexNet, optimizer: PaperSGD, layout: Layout) -> dict[str, dict[str, Tensor]]:
    """``weights`` and ``velocities`` of both towers by name, whole on rank 0, on the CPU."""
    shapes = whole_shapes(net) if layout.split else {}
    weights: dict[str, Tensor] = dict(net.named_parameters())
    velocities = {name: optimizer.velocity(weight) for name, weight in weights.items()}
    return {
        "weights": collect(layout, weights, shapes),
        "velocities": collect(layout, velocities, shapes),
    }


def whole_shapes(net: AlexNet) -> dict[str, tuple[int, ...]]:
    """Name and shape of every parameter of the net's tower 1."""
    shapes = {}
    for layer in net.recipe.layers:
        shape = net.weight_shape(layer, 1)
        shapes[f"towers.1.{layer}.weight"], shapes[f"towers.1.{layer}.bias"] = shape, shape[:1]
    return shapes


def restore_net(net: AlexNet, optimizer: PaperSGD, saved: dict[str, Any]) -> None:
    """Take the towers held here, and their velocities, from a checkpoint."""
    with torch.no_grad():
        for name, weight in net.named_parameters():
            weight.copy_(saved["weights"][name])
            optimizer.velocity(weight).copy_(saved["velocities"][name])
