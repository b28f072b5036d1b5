"""The loop: batches in, a trained net out (P §5)."""

from __future__ import annotations

import contextlib
import dataclasses
import math
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from alexnet2012.data import Dataset, TrainingPlan
from alexnet2012.distributed import Layout, PendingMean
from alexnet2012.errors import Diverged
from alexnet2012.evaluation import evaluate
from alexnet2012.network import AlexNet
from alexnet2012.reporting.run_directory import RunDirectory
from alexnet2012.reporting.run_log import RunLog
from alexnet2012.training import checkpoint
from alexnet2012.training.batches import TrainingBatches
from alexnet2012.training.clock import Clock, Pace
from alexnet2012.training.optimizer import PaperSGD, parameter_groups
from alexnet2012.training.schedule import Schedule
from alexnet2012.training.settings import Settings


@dataclass(frozen=True)
class Outcome:
    """What step ``step`` (from 1) gave."""

    step: int
    rate: float  # of the weights
    means: PendingMean  # over all ranks: loss, top-1 error (0..1)
    pace: Pace | None  # of the steps since the last report, where this step is reported


class Trainer:
    """One run, on this process's part of the layout."""

    def __init__(self, settings: Settings, layout: Layout, train: Dataset, val: Dataset, run: RunDirectory) -> None:
        self.settings, self.layout, self.train_set, self.val_set, self.run = settings, layout, train, val, run
        self.recipe = recipe = settings.recipe
        self.plan = TrainingPlan(recipe, len(train), recipe.batch_size, settings.seed, train.statistics, recipe.epochs)
        self.last_step = min(self.plan.steps, settings.max_steps or self.plan.steps)
        self.net = AlexNet(recipe, len(train.classes), settings.seed, layout.exchange(recipe.towers))
        self.net.place(layout.devices)
        self.replicated = layout.replicate(self.net)
        self.optimizer = PaperSGD(parameter_groups(self.net, recipe), recipe.lr, recipe.momentum, recipe.weight_decay)
        self.schedule = Schedule(settings.schedule, self.optimizer, recipe, self.plan.steps)
        self.step = 0  # steps done
        self.best_top1_error = math.inf  # percent, of the validations so far
        self.clock = Clock(recipe.batch_size)
        self.log: RunLog | None = None

    def resume(self, saved: dict[str, Any]) -> None:
        """Go on from a checkpoint, of any layout."""
        checkpoint.restore_net(self.net, self.optimizer, saved)
        self.schedule.load_state_dict(saved["schedule"])
        self.step, self.best_top1_error = saved["step"], saved["best_top1_error"]

    def train(self) -> None:
        """Train to the last step. Raises Diverged at a loss that is not finite, InputError at a bad image file."""
        if self.layout.first:
            self.log = RunLog(self.run, self.step, self.settings.identity())
        batches = TrainingBatches(self.layout, self.train_set, self.plan, self.settings, self.step)
        try:
            self.take_steps(batches)
        finally:
            batches.close()
            if self.log:
                self.log.close()

    def take_steps(self, batches: TrainingBatches) -> None:
        """Steps, each read by the host one step late, and what falls due at their edges."""
        self.net.train()
        unread: Outcome | None = None
        arriving = iter(batches)
        while self.step < self.last_step:
            with self.clock.waiting():
                images, labels = next(arriving)
            outcome = self.train_step(images, labels)
            if unread:
                self.settle(unread)
            unread = outcome
            epoch_ended = self.step % self.plan.steps_per_epoch == 0
            if epoch_ended or self.step == self.last_step or self.due(self.settings.checkpoint_every):
                self.settle(unread)
                unread = None
                with self.clock.paused():
                    self.save(improved=epoch_ended and self.validate())

    def train_step(self, images: Tensor, labels: Tensor) -> Outcome:
        """One update on this replica's images (n, 3, 224, 224) and labels (n,)."""
        rate = max(group["lr"] for group in self.optimizer.param_groups if group["name"] == "weights")
        with self.precision():
            logits = self.replicated(images, self.step, self.layout.replica * len(labels))
        loss = F.cross_entropy(logits.float(), labels)
        wrong = (logits.detach().argmax(1) != labels).float().mean()
        self.step += 1
        means = PendingMean(self.layout, torch.stack([loss.detach(), wrong]))
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.schedule.after_step()
        reported = self.due(self.settings.log_every) or self.step == self.last_step
        return Outcome(self.step, rate, means, self.clock.read() if reported else None)

    def precision(self) -> contextlib.AbstractContextManager[Any]:
        if self.settings.precision == "fp32":
            return contextlib.nullcontext()
        return torch.autocast(self.layout.devices[0].type, torch.bfloat16)

    def settle(self, outcome: Outcome) -> None:
        """Read a step's outcome: stop at a loss that is not finite, report it when due."""
        loss, wrong = outcome.means.read()
        if not math.isfinite(loss):
            raise Diverged(
                f"step {outcome.step}: the loss is {loss} at rate {outcome.rate:g}; "
                f"lower --lr, or go on from {self.run.last} with other settings in another --out"
            )
        if self.log and outcome.pace:
            self.report(self.log, outcome, outcome.pace, loss, wrong)

    def due(self, every: int | None) -> bool:
        return every is not None and self.step % every == 0

    def report(self, log: RunLog, outcome: Outcome, pace: Pace, loss: float, wrong: float) -> None:
        """A row, and a line for a person."""
        row = {
            "step": outcome.step,
            "epoch": self.epoch(outcome.step),
            "loss": loss,
            "train_top1_error": 100 * wrong,
            "lr": outcome.rate,
            "images_per_second": pace.images_per_second,
            "data_wait": pace.data_wait,
        }
        log.row(row)
        log.line(row, self.last_step, self.recipe.batch_size)

    def epoch(self, step: int) -> int:
        """The epoch, from 1, that step ``step`` (from 1) belongs to."""
        return self.plan.epoch_of(step - 1) + 1

    def validate(self) -> bool:
        """Measure the centre-crop errors; whether they are the best so far."""
        rates = evaluate(
            self.net, self.layout, self.val_set, loader=self.settings.loader, workers=self.settings.workers
        )
        self.schedule.after_epoch(rates.top1_error)
        improved = rates.top1_error < self.best_top1_error
        self.best_top1_error = min(rates.top1_error, self.best_top1_error)
        if self.log:
            row = {"step": self.step, "epoch": self.epoch(self.step)}
            self.log.row(row | {"val_top1_error": rates.top1_error, "val_top5_error": rates.top5_error})
            print(
                f"epoch {row['epoch']}/{self.recipe.epochs}  validation, centre crop: top-1 error "
                f"{rates.top1_error:.2f} %, top-5 error {rates.top5_error:.2f} % of {rates.images} images",
                flush=True,
            )
        return improved

    def save(self, improved: bool) -> None:
        """Write ``last.pt``, and let ``best.pt`` name it after an improvement."""
        contents = checkpoint.gather_net(self.net, self.optimizer, self.layout)
        if self.log is None:
            return
        checkpoint.save(self.run.last, contents | self.state())
        if improved:
            checkpoint.save_alias(self.run.last, self.run.best)
        self.log.kernels(contents["weights"], self.step)

    def state(self) -> dict[str, Any]:
        """All of a checkpoint but the tensors."""
        return {
            "step": self.step,
            "best_top1_error": self.best_top1_error,
            "schedule": self.schedule.state_dict(),
            "recipe": dataclasses.asdict(self.recipe),
            "classes": len(self.train_set.classes),
            "seed": self.settings.seed,
            "settings": self.settings.identity(),
            **checkpoint.describe_data(self.train_set.classes, self.train_set.statistics),
        }
