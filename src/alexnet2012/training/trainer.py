"""The loop: batches in, a trained net out (P §5)."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from itertools import compress
from typing import Any, NoReturn

import torch
import torch.nn.functional as F
from torch import Tensor

from alexnet2012.core import messages
from alexnet2012.core.command_line import progress
from alexnet2012.core.errors import Diverged, InputError
from alexnet2012.core.random_streams import STREAMS
from alexnet2012.data import Dataset, TrainingPlan
from alexnet2012.distributed.collectives import PendingMean, raise_together, rank_slice, reduce
from alexnet2012.distributed.layout import Layout, allow_tf32
from alexnet2012.evaluation import ErrorRates, checkpoint
from alexnet2012.evaluation.evaluate import EvaluationSettings, evaluate
from alexnet2012.network.build import build_net, compile_net, naming_failed_compilation
from alexnet2012.network.exchange import exchange_between
from alexnet2012.training.batches import TrainingBatches
from alexnet2012.training.checkpoint_store import CheckpointStore, gather_net, restore_net
from alexnet2012.training.clock import Clock
from alexnet2012.training.monitor import broken_layers, dead_units, explain_divergence, layer_sizes, layer_weights
from alexnet2012.training.optimizer import PaperSGD, in_bfloat16, make_optimizer, own_state
from alexnet2012.training.run_directory import RunDirectory
from alexnet2012.training.run_log import RunLog
from alexnet2012.training.schedule import SCHEDULES, wait, waiting
from alexnet2012.training.settings import Settings
from alexnet2012.training.stop_signals import StopRequest

MONITOR_EVERY = 10  # reports between two looks at gradients, updates and dead units


@dataclass(frozen=True)
class Outcome:
    """The result of a step: the host reads ``means`` during the step's backward pass, ``broken`` a step later."""

    step: int  # from 1
    learning_rate: float  # of the weights behind conv1
    images: Tensor  # (n, 3, 224, 224), this replica's
    first_row: int  # of them in the global batch
    means: PendingMean  # over all ranks: loss, top-1 error (0..1), share of ranks asked to stop, of ranks out of data
    broken: PendingMean  # over all ranks, by layer: above 0 where the gradient is not finite
    pace: dict[str, float] | None  # ``Clock.read``, where this step is reported
    before: list[Tensor]  # the layers' weights before it, where it is monitored; else empty


@dataclass
class EpochMeans:
    """Sums over the images of an epoch so far, kept in checkpoints: a resumed epoch has the same means to the bit."""

    images: int = 0
    loss: float = 0.0  # nats
    wrong: float = 0.0  # images

    def add(self, images: int, loss: float, top1_error: float) -> None:
        """Add the means of a batch; the error is 0..1."""
        self.images, self.loss = self.images + images, self.loss + images * loss
        self.wrong += images * top1_error

    def row(self, images: int) -> dict[str, float]:
        """The means over the epoch's ``images``; empty where an older version trained the first of them."""
        if self.images < images:
            return {}
        return {"train_loss": self.loss / images, "train_top1_error": 100 * self.wrong / images}


class Trainer:
    """One run, on this process's part of the layout: ``take_steps`` has the order of an epoch."""

    def __init__(self, settings: Settings, layout: Layout, train: Dataset, val: Dataset, run: RunDirectory) -> None:
        self.settings, self.layout, self.train_set, self.val_set, self.run = settings, layout, train, val, run
        self.recipe = recipe = settings.recipe
        self.plan = TrainingPlan(recipe, len(train), recipe.batch_size, settings.seed, train.statistics, recipe.epochs)
        self.last_step = min(self.plan.steps, settings.max_steps or self.plan.steps)
        self.net = build_net(recipe, len(train.classes), settings.seed, exchange_between(layout, recipe.towers))
        self.net.place(layout.devices)
        allow_tf32(settings.precision == "tf32")
        self.optimizer = make_optimizer(self.net, recipe)
        computing = compile_net(self.net, layout.devices[0]) if settings.compile else self.net
        if settings.precision == "bf16":
            computing = in_bfloat16(computing, self.optimizer, layout.replicas)
        self.replicated = layout.replicate(computing)
        self.schedule = SCHEDULES[settings.schedule](recipe, self.plan.steps, self.plan.step_of)
        self.store = CheckpointStore(run.checkpoints, settings.keep)
        self.stop = StopRequest(settings.time_limit)
        self.clock = Clock(recipe.batch_size)
        self.step = 0  # steps done
        self.best = math.inf  # of what the recipe monitors, over the validations so far: error in percent, or loss
        self.patience = waiting()  # of --early-stop
        self.closing = ""  # the last epoch's results
        self.epoch_means = EpochMeans()
        self.validation_pending = False  # a stop has postponed the validation of the epoch that has ended
        self.log: RunLog | None = None  # of rank 0
        self.unread: Outcome | None = None  # the last step, whose gradient has not been checked
        self.skip: Tensor | None = None  # (), float32: not 0 once a loss or gradient was not finite

    def resume(self, saved: dict[str, Any]) -> None:
        """Go on from a checkpoint, of any layout."""
        restore_net(self.net, self.optimizer, saved)
        self.schedule.state.update((name, saved["schedule"][name]) for name in self.schedule.state)
        self.step, self.best = saved["step"], saved["best_top1_error"]
        self.patience["best"] = saved.get("patience_best", self.best)
        self.patience["epochs_since_best"] = saved.get("epochs_since_best", 0)
        self.validation_pending = saved.get("validation_pending", False)
        self.epoch_means = EpochMeans(**saved.get("epoch_means", {}))

    def train(self) -> str:
        """Train to the last step ("done") or until asked to stop ("preempted").

        Raises Diverged at what is not finite, InputError, after a checkpoint, at a file that is no image.
        """
        if self.layout.is_main:
            self.log = RunLog(self.run, self.step, self.settings.identity(), not self.validation_pending)
        steps = range(self.step, self.last_step)
        batches = TrainingBatches(self.layout, self.train_set, self.plan, self.settings, steps)
        try:
            if self.validation_pending:
                self.validate_and_save(batches)
            self.take_steps(batches)
        finally:
            batches.close()
            self.store.wait()
            if self.log:
                self.log.close()
        if self.complete and self.closing:
            messages.result(self.closing + self.clock.examples_per_second())
        return "done" if self.finished else "preempted"

    def take_steps(self, batches: TrainingBatches) -> None:
        """An epoch's steps in order, then its validation and a checkpoint; so epoch after epoch."""
        self.net.train()
        self.clock.restart()
        arriving = iter(batches)
        stopping = False
        while not self.finished and not stopping:
            with self.clock.waiting():
                images, labels = next(arriving)
            self.layout.begin("a training step", self.step + 1)
            with naming_failed_compilation():
                outcome = self.train_step(images, labels, out_of_data=batches.failure is not None)
            stopping, out_of_data = self.read_metrics(outcome)
            if self.saving_due() or stopping or out_of_data:
                with self.clock.paused():
                    self.validate_and_save(batches)
                stopping = stopping or self.validation_pending
            if out_of_data:
                raise_together(self.layout, batches.failure)

    @property
    def finished(self) -> bool:
        """Whether the last step is done and validated, or the validation error has not improved for long enough."""
        return (self.step >= self.last_step and not self.validation_pending) or self.early_stopped

    @property
    def complete(self) -> bool:
        """Whether nothing is left to train, under any ``--max-steps``."""
        return self.finished and (self.step == self.plan.steps or self.early_stopped)

    @property
    def early_stopped(self) -> bool:
        patience = self.settings.early_stop
        return patience is not None and self.patience["epochs_since_best"] >= patience

    def train_step(self, images: Tensor, labels: Tensor, out_of_data: bool) -> Outcome:
        """One update on this replica's images (n, 3, 224, 224) and labels (n,)."""
        for group in self.optimizer.param_groups:
            group["lr"] = group["initial_lr"] * self.schedule.factor(group["name"], self.step)
        rows = self.plan.rows(self.step)
        first_row = rank_slice(rows, self.layout.replica, self.layout.replicas).start
        step = torch.full((), self.step, device=images.device) if self.settings.compile else self.step
        logits = self.replicated(images, step, first_row)
        loss, wrong = self.of_global_batch(logits.float(), labels)
        flags = torch.tensor([self.stop.wanted, out_of_data], dtype=torch.float32).to(loss.device, non_blocking=True)
        means = PendingMean(self.layout, torch.cat([torch.stack([loss.detach(), wrong]), flags]))
        self.step += 1
        self.optimizer.zero_grad()
        loss.backward()
        self.layout.begin("the update")
        broken = PendingMean(self.layout, broken_layers(self.net, self.layout, lambda weight: weight.grad))
        whole = rows == self.recipe.batch_size  # of a short batch a replica may have no row
        before = layer_weights(self.net) if whole and self.due(self.settings.log_every * MONITOR_EVERY) else []
        self.update(means.mean[0], broken.mean)
        learning_rate = self.recipe.lr * self.schedule.factor("weights", self.step - 1)
        reported = self.due(self.settings.log_every) or self.step == self.last_step
        pace = self.clock.read() if reported else None
        return Outcome(self.step, learning_rate, images, first_row, means, broken, pace, before)

    def of_global_batch(self, logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Loss and top-1 error (0..1) of this replica's rows, whose mean over the replicas is that over all rows.

        In an epoch's last, short batch replicas have unequal rows, or none: 0 then, with gradients of 0.
        """
        weight = len(labels) * self.layout.replicas / self.plan.rows(self.step)
        if not len(labels):
            return logits.sum(), logits.detach().sum()
        wrong = (logits.detach().argmax(1) != labels).float().mean()
        return F.cross_entropy(logits, labels) * weight, wrong * weight

    def update(self, loss: Tensor, broken: Tensor) -> None:
        """Update, unless the loss or the gradient of this step or an earlier one was not finite on some rank.

        The device decides: the host, which reads it later, does not wait.
        """
        skip = ((broken > 0).any() | ~loss.isfinite()).float()
        self.skip = skip if self.skip is None else torch.maximum(self.skip, skip)
        if isinstance(self.optimizer, PaperSGD) or self.optimizer.defaults.get("fused"):  # others do not know of it
            self.optimizer.found_inf = self.skip  # type: ignore[attr-defined]
        self.optimizer.step()

    def read_metrics(self, outcome: Outcome) -> tuple[bool, bool]:
        """Read a step and report it if due. Returns whether a rank was asked to stop, and whether one is out of data.

        Raises Diverged on every rank when the loss, or the gradient of the step before, is not finite.
        """
        self.refuse_broken_gradient()
        self.unread = outcome
        loss, wrong, stop, out_of_data = outcome.means.read()
        if not math.isfinite(loss):
            seen = explain_divergence(self.net, outcome.images, outcome.step - 1, outcome.first_row, self.layout)
            self.raise_diverged(outcome.step, f"the loss is {loss} at learning rate {outcome.learning_rate:g}; {seen}")
        self.epoch_means.add(self.plan.rows(outcome.step - 1), loss, wrong)
        if outcome.pace:
            self.report(outcome, outcome.pace, loss, wrong)
        elif self.log:
            self.log.between(outcome.step, self.last_step, loss, self.clock.seconds_per_step())
        if outcome.step == self.recipe.stuck_images // self.recipe.batch_size and self.log:
            self.warn_if_stuck(loss)
        return stop > 0, out_of_data > 0

    def refuse_broken_gradient(self) -> None:
        """Raises Diverged, on every rank, if the gradient of the last step was not finite."""
        last = self.unread
        if last and (layers := list(compress(self.net.layers, last.broken.read()))):
            where = f"from {layers[-1]} backward, at learning rate {last.learning_rate:g}"
            self.raise_diverged(last.step, f"the gradient is not finite {where}")

    def refuse_broken_net(self) -> None:
        """Raises Diverged, on every rank, if the last gradient, a weight or the optimizer's state is not finite."""
        self.layout.begin("looking for values that are not finite")
        self.refuse_broken_gradient()

        def state(weight: Tensor) -> Tensor:
            sums = [value.sum() for value in own_state(self.optimizer, weight).values()]
            return torch.stack([*sums, weight.new_zeros(())])

        for what, value in (("weights", lambda weight: weight), ("optimizer states", state)):
            broken = reduce(self.layout, broken_layers(self.net, self.layout, value))
            if layers := list(compress(self.net.layers, broken.tolist())):
                self.raise_diverged(self.step, f"the {what} of {', '.join(layers)} are not finite")

    def raise_diverged(self, step: int, what: str) -> NoReturn:
        self.step = step
        self.store.wait()
        last = self.store.last_good() if self.layout.is_main else ""
        raise Diverged(f"step {step}: {what}; last good checkpoint: {last}").on_all_ranks(reports=self.layout.is_main)

    def due(self, every: int | None) -> bool:
        return every is not None and self.step % every == 0

    def report(self, outcome: Outcome, pace: dict[str, float], loss: float, wrong: float) -> None:
        """Log a step, and what is monitored; every rank takes part in monitoring."""
        monitored: dict[str, float] = {}
        if outcome.before:
            monitored = layer_sizes(self.net, outcome.before, self.layout)
            monitored |= dead_units(self.net, outcome.images) if self.recipe.activation == "relu" else {}
        if self.log:
            row = {
                "step": outcome.step,
                "epoch": self.epoch(),
                "loss": loss,
                "batch_top1_error": 100 * wrong,
                "lr": outcome.learning_rate,
                **pace,
            }
            self.log.step(row, monitored, self.last_step, self.recipe.batch_size)

    def warn_if_stuck(self, loss: float) -> None:
        """One warning when the net has not left its first plateau by the step the recipe names."""
        plateau = math.log(self.net.classes)
        if loss > 0.99 * plateau:  # ours: within 1 %
            messages.warn(
                f"step {self.step}: the loss {loss:.3f} has not left ln({self.net.classes}) = {plateau:.3f}; "
                f"usual causes: {'N(0, 0.01) in conv3 to conv5 (--wide-init has 0.03), ' * self.recipe.starts_flat}"
                "pixels not on a scale of 0..255, a narrow --width, a small --lr"
            )

    def epoch(self) -> int:
        """The epoch, from 1, of the last step done."""
        return self.plan.epoch_of(self.step - 1) + 1

    def epoch_ended(self) -> bool:
        return self.plan.place(self.step)[1] == 0

    def saving_due(self) -> bool:
        dropping = self.drops(self.step) > self.drops(self.step - 1)
        return self.epoch_ended() or self.step == self.last_step or self.due(self.settings.checkpoint_every) or dropping

    def drops(self, step: int) -> int:
        """Drops of the weights' learning rate by ``step`` (from 0)."""
        return self.schedule.drops("weights", step)

    def validate_and_save(self, batches: TrainingBatches) -> None:
        """Validate at an epoch's end, unless asked to stop, then save.

        Raises Diverged where there is a value that is not finite, InputError, after the checkpoint, for a validation
        image that cannot be read.
        """
        self.refuse_broken_net()
        before = self.drops(self.step - 1)
        improved, unreadable = False, None
        if self.epoch_ended():
            skipped = batches.skipped()
            if skipped and self.log:
                self.log.skipped(self.step, skipped)
            self.validation_pending = self.asked_to_stop()
            if not self.validation_pending:
                try:
                    improved = self.validate()
                except InputError as error:
                    unreadable, self.validation_pending = error, True
        names = ["last.pt"] + ["best.pt"] * improved
        names += [f"before-drop-{before + 1}.pt"] * (self.drops(self.step) > before)
        self.layout.begin("saving a checkpoint")
        contents = gather_net(self.net, self.optimizer, self.layout)
        if self.log:
            with self.layout.working():
                self.log.kernels(contents["weights"], self.step)
                self.log.flush()  # a run killed after this checkpoint goes on with every event before it
                self.store.save(contents | self.state(), names)
                self.run.write_state("running", self.step)
        if unreadable:
            raise unreadable

    def asked_to_stop(self) -> bool:
        """Whether any rank has been asked to stop since the last step began; all ranks ask together."""
        self.layout.begin("the end of an epoch")
        return reduce(self.layout, torch.tensor([float(self.stop.wanted)])).item() > 0

    def validate(self) -> bool:
        """End the epoch by measuring the centre crop's errors. Returns whether what is monitored is the best so far."""
        self.layout.begin("validation")
        settings = self.settings
        validation = EvaluationSettings(loader=settings.loader, workers=settings.workers)
        with progress("validation", len(self.val_set), self.layout.is_main) as bar:
            rates = evaluate(self.net, self.layout, self.val_set, validation, lambda images: bar(advance=images))
        value = rates.loss if self.recipe.monitor == "loss" else rates.top1_error
        self.schedule.observe(value)
        wait(self.patience, value, self.recipe.min_delta)
        improved, self.best = value < self.best, min(value, self.best)
        if self.log:
            last = self.step - 1
            trained = self.epoch_means.row(self.plan.first_position(last) + self.plan.rows(last))
            since = self.patience["epochs_since_best"], settings.early_stop, self.recipe.monitor
            self.log.epoch(self.step, self.epoch(), self.recipe.epochs, trained, rates, *since)
            self.closing = closing(trained, rates, "val" if settings.val_fraction else "test") if trained else ""
        self.epoch_means = EpochMeans()
        return improved

    def state(self) -> dict[str, Any]:
        """The contents of a checkpoint besides the net and the optimizer's state."""
        return {
            "step": self.step,
            "best_top1_error": self.best,
            "patience_best": self.patience["best"],
            "epochs_since_best": self.patience["epochs_since_best"],
            "validation_pending": self.validation_pending,
            "epoch_means": vars(self.epoch_means).copy(),
            "schedule": dict(self.schedule.state),
            "recipe": dataclasses.asdict(self.recipe),
            "classes": len(self.train_set.classes),
            "images": self.plan.images,
            "seed": self.settings.seed,
            "streams": STREAMS,
            "settings": self.settings.identity(),
            **checkpoint.describe_data(self.train_set.classes, self.train_set.statistics),
        }


def closing(trained: dict[str, float], rates: ErrorRates, split: str) -> str:
    """An epoch's results as the first edition of Dive into Deep Learning prints them at the end of training."""
    accuracies = [1 - error / 100 for error in (trained["train_top1_error"], rates.top1_error)]
    return f"loss {trained['train_loss']:.3f}, train acc {accuracies[0]:.3f}, {split} acc {accuracies[1]:.3f}"
