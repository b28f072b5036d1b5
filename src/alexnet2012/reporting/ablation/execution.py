"""Runs of a study as processes, several at a time on separate cores and GPUs, and an estimate of their duration."""

from __future__ import annotations

import os
import queue
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from types import FrameType
from typing import TypeVar

import torch

from alexnet2012.core.errors import Failure
from alexnet2012.core.threads import cores
from alexnet2012.data import open_dataset, steps_per_epoch
from alexnet2012.distributed.collectives import rank_slice
from alexnet2012.distributed.layout import devices_of_one_process
from alexnet2012.network.build import build_net
from alexnet2012.network.summary import describe
from alexnet2012.recipe import CLASSES, Recipe
from alexnet2012.reporting.ablation.study import CROPS, Planned

Command = Sequence[str]
T = TypeVar("T")
PASSES = 3  # a training step costs as much as three forward passes
TIMED_IMAGES = 32  # in the timed step, at most


@dataclass(frozen=True)
class Slot:
    """The resources of one run at a time."""

    cores: tuple[int, ...]
    gpus: str | None  # CUDA_VISIBLE_DEVICES; None without GPUs


def slots(jobs: int) -> list[Slot]:
    """Split this process's cores and GPUs into ``jobs`` slots, which share them if there are too few."""
    usable = sorted(os.sched_getaffinity(0))[: cores()]
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", ",".join(map(str, range(torch.cuda.device_count())))).split(",")
    gpus = visible if torch.cuda.is_available() else []
    return [
        Slot(tuple(part(usable, job, jobs)), ",".join(part(gpus, job, jobs)) if gpus else None) for job in range(jobs)
    ]


def part(things: list[T], index: int, parts: int) -> list[T]:
    return things[rank_slice(len(things), index, parts)] or [things[index % len(things)]]


class Execution:
    """Trains and evaluates runs. Signals are forwarded to them; unfinished runs resume the next time."""

    def __init__(
        self,
        train: Callable[[Planned], Command],
        evaluate: Callable[[Planned], Command],
        jobs: int,
        say: Callable[[str], None],
        advance: Callable[[], object] = lambda: None,
    ) -> None:
        """``advance`` is called after each run."""
        self.train, self.evaluate, self.say, self.advance = train, evaluate, say, advance
        self.stopping = False
        self.children: set[subprocess.Popen[bytes]] = set()
        self.free: queue.Queue[Slot] = queue.Queue()
        for slot in slots(jobs):
            self.free.put(slot)

    def run_all(self, planned: Sequence[Planned]) -> None:
        """Finish all runs, then raise Failure if some failed."""
        before = {number: signal.signal(number, self.stop) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            with ThreadPoolExecutor(self.free.qsize()) as pool:
                failed = [line for line in pool.map(self.finish, planned) if line]
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
        if failed:
            raise Failure(f"{len(failed)} of {len(planned)} runs not finished: {'; '.join(failed)}")

    def stop(self, number: int, frame: FrameType | None) -> None:
        self.stopping = True
        for child in tuple(self.children):
            child.send_signal(number)

    def finish(self, planned: Planned) -> str | None:
        """Train and evaluate one run unless that is done. Returns how it failed, or None."""
        slot = self.free.get()
        try:
            for command, done in ((self.train, lambda: planned.trained), (self.evaluate, lambda: planned.finished)):
                if self.stopping or done():
                    continue
                code = self.call(command(planned), planned, slot)
                if not done() and not self.stopping:
                    lines = planned.run.log.read_text(errors="replace").splitlines()
                    self.say(
                        f"{planned.run.name}: not finished, exit code {code}: {lines[-1] if lines else 'no output'}"
                    )
                    return f"{planned.run.name} (see {planned.run.log})"
        finally:
            self.free.put(slot)
            self.advance()
        if rates := planned.finished and planned.run.rates():
            errors = f"top-1 error {rates.top1_error:.2f} %, top-5 error {rates.top5_error:.2f} %"
            self.say(f"{planned.run.name}: {errors}, loss {rates.loss:.4f}")
        return None

    def call(self, command: Command, planned: Planned, slot: Slot) -> int:
        """Run ``command`` in ``slot``, with its output in the run's log. Returns the exit code."""
        for path in (planned.run.errors, *planned.run.predictions.values()):
            path.unlink(missing_ok=True)  # from fewer steps
        os.sched_setaffinity(
            threading.get_native_id(), slot.cores
        )  # inherited by the child, which uses as many threads
        environment = os.environ | ({"CUDA_VISIBLE_DEVICES": slot.gpus} if slot.gpus else {})
        with planned.run.log.open("ab") as log:
            child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment)
        self.children.add(child)
        if self.stopping:
            child.terminate()
        code = child.wait()
        self.children.discard(child)
        return code


def multiply_adds(recipe: Recipe) -> int:
    """Multiply-adds of the forward pass of an image."""
    return sum(layer.multiply_adds for layer in describe(recipe))


def speed(recipe: Recipe, threads: int) -> float:
    """Multiply-adds per second in a training step of ``recipe``'s net on this machine, with ``threads`` CPU threads."""
    torch.set_num_threads(threads)
    size = min(recipe.batch_size, TIMED_IMAGES), recipe.channels, recipe.crop_size, recipe.crop_size
    images, net = torch.zeros(size), build_net(recipe, CLASSES).place(devices_of_one_process(recipe.towers))
    for _ in range(2):  # the first warms up
        started = time.perf_counter()
        loss = net(images, step=0).sum()
        loss.backward()
        loss.item()  # waits for a GPU
        next(net.parameters()).grad.sum().item()  # type: ignore[union-attr]
        seconds = time.perf_counter() - started
    return PASSES * multiply_adds(recipe) * len(images) / seconds


def expected_seconds(planned: Planned, speed: float) -> float:
    """Expected time for the rest of a run at ``speed`` multiply-adds per second, without reading images and saving.

    Raises InputError for fewer images than a batch.
    """
    if planned.finished:
        return 0.0
    recipe = planned.settings.recipe
    images, val = (len(open_dataset(planned.settings.data, split)) for split in ("train", "val"))
    steps = recipe.epochs * steps_per_epoch(images, recipe.batch_size, recipe.short_batch)
    share = min(1.0, (planned.settings.max_steps or steps) / steps)
    trained = 0 if planned.trained else share * recipe.epochs * (PASSES * images + val)
    return (trained + CROPS * val) * multiply_adds(recipe) / speed
