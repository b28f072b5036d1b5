"""A run from its settings to its end: claim the directory, resume, train, draw the figures."""

from __future__ import annotations

import contextlib
import math
import os
import platform
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import torch

from alexnet2012.core import messages
from alexnet2012.core.atomic_files import atomic_write
from alexnet2012.core.command_line import progress
from alexnet2012.core.errors import InputError
from alexnet2012.core.guarded_files import Damaged, is_file
from alexnet2012.data import Dataset, Statistics, Sums, hold_out, measure, open_dataset, steps_per_epoch
from alexnet2012.data.pixels import SIDE
from alexnet2012.distributed.collectives import broadcast_from_main, gather, raise_together, rank_slice
from alexnet2012.distributed.layout import Layout, naming_lost_ranks, open_layout
from alexnet2012.evaluation import checkpoint
from alexnet2012.network.build import parameter_shapes
from alexnet2012.network.lrn.layer import lrn_kernel
from alexnet2012.training.checkpoint_store import CheckpointStore
from alexnet2012.training.optimizer import update_kernel
from alexnet2012.training.run_directory import RunDirectory
from alexnet2012.training.settings import Settings
from alexnet2012.training.stop_signals import SIGNALS
from alexnet2012.training.trainer import Trainer

SHARED_WITHIN = 60.0  # seconds in which what one node writes is seen on another, as NFS caches at most


def run(settings: Settings, draw: Callable[[Trainer], object] = lambda trainer: None, draw_only: bool = False) -> None:
    """Train as ``settings`` ask, resuming where the run's directory stands, then ``draw`` the figures on rank 0.

    With ``draw_only`` nothing is trained: the run's directory holds its settings, the statistics and what is drawn.
    Raises InputError for what cannot be used, Diverged at what is not finite, LostRank where another process of the
    run is gone.
    """
    placement, towers, timeout = settings.placement, settings.recipe.towers, settings.collective_timeout
    with (
        open_layout(placement, towers, timeout, settings.pairs_across_nodes, settings.threads) as layout,
        contextlib.closing(RunDirectory(settings.directory)) as directory,
        exit_on_signal(layout, directory),
    ):
        if layout.heartbeat:
            layout.heartbeat.at_end = lambda reason: directory.write_state("failed", directory.read_state()[1], reason)
        with recording_failure(directory, lambda: directory.read_state()[1]), naming_lost_ranks(layout.heartbeat):
            newest = broadcast_from_main(layout, lambda: check(settings, layout, directory))
            refuse_unshared(layout, directory)
            trainer = make_trainer(settings, layout, directory, newest)
        if draw_only:
            broadcast_from_main(layout, lambda: draw(trainer))
        else:
            train_and_draw(trainer, directory, draw)


@contextlib.contextmanager
def exit_on_signal(layout: Layout, directory: RunDirectory) -> Iterator[None]:
    """Exit immediately at a signal outside of training, where there is nothing to save, and at a second one within it.

    torchrun signals the other ranks when one has failed: that is reported as the failure. After an exception signals
    are ignored, so that the exception is what the process reports.
    """
    failing = False

    def leave(number: int, frame: FrameType | None) -> None:
        if failing:
            return
        failed = ""
        with contextlib.suppress(RuntimeError):  # the store may be gone
            failed = layout.heartbeat.failed() if layout.heartbeat else ""
        directory.write_state("failed" if failed else "preempted", directory.read_state()[1], failed)
        if directory.lock and not failed:
            say(layout, f"preempted: {directory.path}, at once; the same command goes on from the last checkpoint")
        sys.stdout.flush()
        os._exit(1 if failed else 0)

    before = {number: signal.signal(number, leave) for number in SIGNALS}
    try:
        yield
    except BaseException:
        failing = True
        raise
    for number, handler in before.items():
        signal.signal(number, handler)


@contextlib.contextmanager
def recording_failure(directory: RunDirectory, step: Callable[[], int]) -> Iterator[None]:
    """Record in ``state.json`` the exception that ends the run."""
    try:
        yield
    except BaseException as error:
        directory.write_state("failed", step(), str(error))
        raise


def open_splits(settings: Settings) -> tuple[Dataset, Dataset]:
    """The training and the validation set, which with ``--val-fraction`` needs no folder of its own."""
    train = open_dataset(settings.data, "train")
    if settings.val_fraction:
        return hold_out(train, settings.val_fraction, settings.seed)
    return train, open_dataset(settings.data, "val")


def make_trainer(settings: Settings, layout: Layout, directory: RunDirectory, newest: Path | None) -> Trainer:
    """A trainer at the first step, or at that of the checkpoint ``newest``."""
    train, val = open_splits(settings)
    saved = checkpoint.load(newest) if newest else None
    statistics = checkpoint.statistics_in(saved) if saved else training_statistics(train, layout, directory, settings)
    train, val = train.with_statistics(statistics), val.with_statistics(statistics)
    trainer = Trainer(settings, layout, train, val, directory)
    if newest and saved:
        broadcast_from_main(layout, lambda: refuse_other_net(saved, trainer, newest))
        trainer.resume(saved)
    return trainer


def train_and_draw(trainer: Trainer, directory: RunDirectory, draw: Callable[[Trainer], object]) -> None:
    """Train, then draw the figures, each unless it is done; rank 0 keeps ``state.json`` up to date.

    Raises InputError also where the last checkpoint cannot be saved.
    """
    how, settings, layout = "done", trainer.settings, trainer.layout
    drawn = trainer.complete and broadcast_from_main(layout, directory.read_state)[0] == "done"
    with recording_failure(directory, lambda: trainer.step), naming_lost_ranks(layout.heartbeat):
        if trainer.finished:
            say(layout, f"{directory.path}: already trained to step {trainer.step}")
        else:
            with trainer.stop.listening():
                announce(trainer)
                if layout.is_main:
                    directory.record(settings.identity(), classes=trainer.net.classes, **executed(settings, layout))
                directory.write_state("running", trainer.step)
                how = trainer.train()
                broadcast_from_main(layout, trainer.store.refuse_unsaved)
                if trainer.complete and trainer.asked_to_stop():
                    how = "preempted"  # before its figures
        if how == "done" and trainer.complete and not drawn:
            layout.begin("drawing the figures")
            broadcast_from_main(layout, lambda: draw(trainer))
    monitor = settings.recipe.monitor
    patience = f"no better validation {monitor} for {settings.early_stop} epochs" if trainer.early_stopped else ""
    directory.write_state(how, trainer.step, patience)
    say(layout, f"{how}: {directory.path}, step {trainer.step}" + f", {patience}" * bool(patience))


def say(layout: Layout, line: str) -> None:
    """Print ``line`` on rank 0."""
    if layout.is_main:
        messages.say(line)


def check(settings: Settings, layout: Layout, directory: RunDirectory) -> Path | None:
    """Claim the run's directory and find the checkpoint to resume from. Raises InputError for what cannot run."""
    batch, replicas = settings.recipe.batch_size, layout.replicas
    if settings.precision == "tf32" and layout.devices[0].type != "cuda":
        raise InputError("--precision tf32: only CUDA devices have it, and there is none here; use fp32 or bf16")
    if batch % replicas:
        raise InputError(
            f"--batch-size {batch}: does not divide among {replicas} replicas; give a multiple of {replicas}"
        )
    train, _ = open_splits(settings)
    steps_per_epoch(len(train), batch)
    directory.claim(settings.identity())
    directory.take()
    if not directory.config.is_file():
        directory.record(settings.identity())  # before the statistics: a run that ends there can go on
    newest, broken = CheckpointStore(directory.checkpoints, settings.keep).newest()
    for line in broken:
        messages.warn(line)
    return newest


def refuse_unshared(layout: Layout, directory: RunDirectory) -> None:
    """Raises InputError where a rank does not see what rank 0 writes in the run's directory."""
    holder, deadline = broadcast_from_main(layout, directory.holder), time.monotonic() + SHARED_WITHIN
    while directory.holder() != holder and time.monotonic() < deadline:
        time.sleep(0.1)
    unseen = InputError(
        f"--out {directory.path}: rank {layout.rank} on {platform.node()} does not see what rank 0 writes there; "
        "give a directory that all nodes share"
    )
    raise_together(layout, None if directory.holder() == holder else unseen)


def refuse_other_net(saved: dict[str, Any], trainer: Trainer, path: Path) -> None:
    """Raises InputError for a checkpoint of another net, number of classes or number of training images."""
    checkpoint.refuse_incomplete(saved, path)
    width, classes = checkpoint.recipe_in(saved).width, saved["classes"]
    if width != trainer.recipe.width:
        raise InputError(f"{path}: of width {width:g}, not {trainer.recipe.width:g}; give another --out")
    if classes != trainer.net.classes:
        raise InputError(f"{path}: of {classes} classes, the data has {trainer.net.classes}; give another --out")
    if parameter_shapes(checkpoint.recipe_in(saved), classes) != parameter_shapes(trainer.recipe, classes):
        raise InputError(f"{path}: of a net of other layers; give another --out")
    if missing := trainer.schedule.state.keys() - saved["schedule"].keys():
        raise InputError(f"{path}: its schedule has no {', '.join(sorted(missing))}; give another --out")
    if saved["step"] > trainer.plan.steps:
        raise InputError(
            f"{path}: of step {saved['step']}, the run has {trainer.plan.steps}; remove it, or give another --out"
        )
    if saved["images"] != trainer.plan.images:
        now, then = trainer.plan.images, saved["images"]
        raise InputError(f"{path}: of {then} training images, the data has {now}; restore them or give another --out")


def training_statistics(dataset: Dataset, layout: Layout, directory: RunDirectory, settings: Settings) -> Statistics:
    """Statistics of the training set: those kept with it or with the run, else measured, each rank a share.

    All ranks load what rank 0 wrote: the last bits of eigenvectors differ between processors.
    """
    if not settings.recipe.uses_statistics:
        return Statistics.none()
    side = settings.recipe.image_size
    if dataset.statistics_kept and side == SIDE:
        return dataset.statistics
    if not broadcast_from_main(layout, lambda: measured_on(directory.statistics, len(dataset))):
        own = rank_slice(len(dataset), layout.rank, layout.processes)
        with progress("statistics of the training images", own.stop - own.start, layout.is_main) as bar:
            sums = measure(dataset, own.start, own.stop, lambda done: bar(advance=done), settings.workers, side)
        total = Sums()
        for part in gather(layout, sums):
            total.merge(part)

        def keep() -> None:
            with atomic_write(directory.statistics) as partial:
                total.statistics().save(partial)

        broadcast_from_main(layout, keep)
    return broadcast_from_main(layout, lambda: Statistics.load(directory.statistics))


def measured_on(path: Path, images: int) -> bool:
    """Whether the statistics in ``path`` are whole and of as many images: the data may have changed since.

    Raises InputError for a directory or pipe of that name.
    """
    if not is_file(path):
        return False
    try:
        return Statistics.load(path).images == images
    except Damaged:
        return False


def announce(trainer: Trainer) -> None:
    """Print once what was chosen."""
    settings, layout, recipe = trainer.settings, trainer.layout, trainer.recipe
    plan, classes, device = trainer.plan, trainer.net.classes, layout.devices[0]
    net = ", ".join(["recipe " + recipe.name, *settings.variants, f"width {recipe.width:g}", f"{classes} classes"])
    threads = f"{layout.threads} threads a process, {settings.precision}"
    steps = f"{recipe.epochs} epochs of {plan.steps_per_epoch} steps of {plan.batch_size} images"
    if plan.subset_epochs:
        steps += f", the first {plan.subset_epochs} of {plan.steps_per_subset_epoch} steps on {len(plan.subset)} images"
    cause = "; expected: N(0, 0.01) in conv3 to conv5 starts the net almost flat (--wide-init has 0.03)"
    for line in (
        f"run      {trainer.run.path}" + f", going on at step {trainer.step}" * bool(trainer.step),
        f"net      {net}",
        f"data     {settings.data}: {plan.images} training and {len(trainer.val_set)} validation images",
        f"devices  {layout.describe(recipe.towers)}; {threads}" + ", compiled at the first step" * settings.compile,
        f"loader   {settings.loader}, {settings.workers} decoding threads a process",
        f"kernels  LRN {lrn_kernel(device)}, weight update {update_kernel(trainer.optimizer, device)}",
        f"plan     {steps}, schedule {settings.schedule}",
        f"loss     begins near ln({classes}) = {math.log(classes):.3f}{cause * recipe.starts_flat}",
    ):
        say(layout, line)


def executed(settings: Settings, layout: Layout) -> dict[str, Any]:
    """How the settings are executed: what may change on resuming."""
    return {
        "variants": list(settings.variants),
        "layout": layout.describe(settings.recipe.towers),
        "threads": layout.threads,
        "compile": settings.compile,
        "loader": settings.loader,
        "workers": settings.workers,
        "max_steps": settings.max_steps,
        "devices": [torch.cuda.get_device_name(d) if d.type == "cuda" else platform.machine() for d in layout.devices],
    }
