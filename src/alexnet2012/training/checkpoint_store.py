"""Checkpoints of a run: gathered from all ranks, written in a thread while training goes on."""

from __future__ import annotations

import copy
import itertools
import os
import shutil
import threading
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from alexnet2012.core import messages
from alexnet2012.core.atomic_files import atomic_write
from alexnet2012.core.errors import InputError
from alexnet2012.core.guarded_files import Damaged, is_file
from alexnet2012.distributed.collectives import broadcast_from_main, collect, gather
from alexnet2012.distributed.layout import Layout
from alexnet2012.evaluation import checkpoint
from alexnet2012.network import AlexNet
from alexnet2012.training.optimizer import own_state

NAMED = ("last.pt", "best.pt")


class CheckpointStore:
    """The checkpoints of one run: the last ``keep`` ``step-*.pt``, and ``last.pt``, ``best.pt``, ``before-drop-*.pt``.

    The named ones are hard links to numbered ones. A save that fails, as on a full disk, loses that checkpoint only:
    the run goes on with a warning, the older files stay.
    """

    def __init__(self, directory: Path, keep: int) -> None:
        self.directory, self.keep = directory, keep
        self.writing: threading.Thread | None = None
        self.unsaved = ""  # why the last save failed; empty if it did not

    def newest(self) -> tuple[Path | None, list[str]]:
        """Find the newest whole checkpoint. Returns its path and a line for each broken one that was passed over.

        Raises InputError for a file of a newer format, or when there are checkpoints but none is whole.
        """
        broken: list[str] = []
        numbered = sorted(self.directory.glob("step-*.pt"), reverse=True)
        dropped = sorted(self.directory.glob("before-drop-*.pt"), reverse=True)
        for path in [*numbered, *(self.directory / name for name in NAMED), *dropped]:
            try:
                if is_file(path):
                    checkpoint.load(path)
                    return path, broken
            except (checkpoint.DamagedCheckpoint, Damaged) as error:
                broken.append(f"{error}; passed over")
        if broken:
            raise InputError(f"{self.directory}: no whole checkpoint among {len(broken)}; start in another --out")
        return None, broken

    def last_good(self) -> str:
        """The path of the newest whole checkpoint; "none" without one."""
        try:
            return str(self.newest()[0] or "none")
        except InputError:
            return "none"

    def save(self, contents: dict[str, Any], names: list[str]) -> None:
        """Wait for the last save, then start writing ``contents``, which must not change, under ``names`` too."""
        self.wait()
        self.writing = threading.Thread(target=self.write, args=(contents, names), name="checkpoint")
        self.writing.start()

    def wait(self) -> None:
        """Wait until the last save is on the disk or has failed."""
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
            for old in sorted(filter(Path.is_file, self.directory.glob("step-*.pt")))[: -self.keep]:
                old.unlink()
            self.unsaved = ""
        except Exception as error:  # a thread's errors reach nobody otherwise
            self.unsaved = f"{path}: not saved ({reason_of(error)})"
            messages.warn(f"{self.unsaved}; training goes on")


def reason_of(error: Exception) -> str:
    """A short reason for a failed save."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    if isinstance(error, RuntimeError):
        return "torch's writer failed, as on a full disk"
    return " ".join(f"{type(error).__name__}: {error}".split())


def give_name(path: Path, name: Path) -> None:
    """Make ``name`` a hard link to ``path``, or a copy on a file system without links."""
    with atomic_write(name) as partial:
        try:
            os.link(path, partial)
        except OSError:
            shutil.copyfile(path, partial)


def gather_net(net: AlexNet, optimizer: Optimizer, layout: Layout) -> dict[str, dict[str, Any]]:
    """``weights`` of both towers by name, and the ``optimizer``'s state by kind and name; whole on rank 0, on the CPU.

    Raises InputError, on every rank, for state that no other layout could resume from.
    """
    tensors: dict[tuple[str, str], Tensor] = {}
    others: dict[tuple[str, str], Any] = {}
    for name, weight in net.named_parameters():
        own = own_state(optimizer, weight)
        for kind, value in optimizer.state.get(weight, {}).items():
            if kind in own:
                tensors[kind, name] = value
            else:
                others[kind, name] = value.cpu() if isinstance(value, Tensor) else value
    weights = collect(layout, dict(net.named_parameters()))
    held: list[dict[tuple[str, str], Any]] = [collect(layout, tensors), *gather(layout, others)]
    state: dict[str, dict[str, Any]] = {}
    for (kind, name), value in itertools.chain.from_iterable(part.items() for part in held):
        state.setdefault(kind, {})[name] = value

    def check() -> None:
        shapes = {name: tuple(weight.shape) for name, weight in weights.items()}
        try:
            checkpoint.refuse_state(state, shapes, net.recipe.towers)
        except ValueError as error:
            raise InputError(f"the state of {type(optimizer).__name__} cannot be saved: {error}") from error

    broadcast_from_main(layout, check)
    return {"weights": weights, "optimizer": state}


def restore_net(net: AlexNet, optimizer: Optimizer, saved: dict[str, Any]) -> None:
    """Take the towers held here, and the ``optimizer``'s state of them, from a checkpoint."""
    names = {weight: name for name, weight in net.named_parameters()}
    state: dict[int, dict[str, Any]] = {}  # by the parameters' order in the optimizer, as torch has it
    for index, weight in enumerate(weight for group in optimizer.param_groups for weight in group["params"]):
        with torch.no_grad():
            weight.copy_(saved["weights"][names[weight]])
        of_weight = {kind: by_name.get(names[weight]) for kind, by_name in saved["optimizer"].items()}
        state[index] = {kind: laid_out_as(weight, value) for kind, value in of_weight.items() if value is not None}
    optimizer.load_state_dict(optimizer.state_dict() | {"state": state})


def laid_out_as(weight: Tensor, value: Any) -> Any:
    """A copy of ``value``; where it has the shape of ``weight``, on its device and in its order in memory."""
    if isinstance(value, Tensor) and value.shape == weight.shape:
        return torch.empty_like(weight).copy_(value)
    return copy.deepcopy(value)
