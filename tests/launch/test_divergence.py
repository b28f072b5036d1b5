"""A loss, gradient, weight or velocity that is not finite ends the run on every rank, and is in no checkpoint."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from host_reads import NoHostReads
from running import SMALL, TRAIN, here, losses, on_ranks, rows, state, tensors
from torch import Tensor

from alexnet2012.training.trainer import Trainer

STEPS = ("--max-steps", 20)
PLANTING = Path(__file__).with_name("train_into_infinity.py")


def reason(run: Path) -> str:
    return json.loads((run / "state.json").read_text())["reason"]


def newest_of_finite(run: Path) -> Path:
    """The newest checkpoint; every one is finite."""
    paths = sorted((run / "checkpoints").glob("*.pt"))
    for path in paths:
        saved = torch.load(path, weights_only=True)
        assert all(value.isfinite().all() for value in tensors(saved).values()), path
    return max((run / "checkpoints").glob("step-*.pt"))


def planted(
    before: Callable[[Trainer], None] = lambda trainer: None, after: Callable[[Trainer], None] = lambda _: None
):
    """``Trainer.train_step`` with something done before, or after, the run's step 6."""
    train_step = Trainer.train_step

    def step(self: Trainer, *batch: object, **out_of_data: bool) -> object:
        at = self.step == 5
        if at:
            before(self)
        outcome = train_step(self, *batch, **out_of_data)
        if at:
            after(self)
        return outcome

    return step


def infinite(gradient: Tensor) -> Tensor:
    return torch.full_like(gradient, torch.inf)


def spoil_gradient(trainer: Trainer) -> None:
    trainer.net.held[1].conv4.bias.register_hook(infinite)


def spoil_velocity(trainer: Trainer) -> None:
    trainer.optimizer.velocity(trainer.net.held[0].conv2.bias)[0] = torch.nan


def spoil_weight(trainer: Trainer) -> None:
    trainer.net.held[1].conv4.weight.data[0] = torch.nan


@pytest.mark.parametrize(
    ("plant", "every", "said"),
    [
        ({"before": spoil_weight}, 2, "the loss is nan at learning rate 0.001; largest activations conv1 "),
        ({"before": spoil_gradient}, 2, "the gradient is not finite from conv4 backward, at learning rate 0.001; last"),
        ({"before": spoil_gradient}, 3, "the gradient is not finite from conv4 backward, at learning rate 0.001; last"),
        ({"after": spoil_velocity}, 2, "the optimizer states of conv2 are not finite; last good checkpoint"),
    ],
    ids=["loss", "gradient", "gradient where a save is due", "velocity"],
)
def test_what_is_not_finite_ends_the_run_and_it_goes_on_from_before(
    plant: dict, every: int, said: str, one_process: Path, tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    flags = (*SMALL, "--data", tree, "--out", run, "--checkpoint-every", every)
    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "train_step", planted(**plant))
        ended = here(TRAIN, *flags, *STEPS)
    assert (ended.code, ended.err.count("\n")) == (3, 1)
    newest = newest_of_finite(run)
    assert ended.err.startswith(f"error: step 6: {said}") and ended.err.endswith(f"last good checkpoint: {newest}\n")
    assert newest.name == f"step-{5 - 5 % every:09d}.pt"
    assert state(run) == ("failed", 6) and reason(run) in ended.err
    assert [row["step"] for row in rows(run) if "val_top1_error" in row] == []  # an epoch has six steps
    assert f"going on at step {5 - 5 % every}\n" in here(TRAIN, *flags, "--max-steps", 8).out
    assert losses(run) == {step: loss for step, loss in losses(one_process).items() if step <= 8}


@pytest.mark.parametrize(
    ("processes", "what", "said"),
    [
        (2, "weight", "step 5: the loss is nan at learning rate 0.001; largest activations conv1 "),
        (4, "gradient", "step 5: the gradient is not finite from conv4 backward, at learning rate 0.001; last good"),
    ],
)
def test_every_rank_ends_and_none_is_changed(
    processes: int, what: str, said: str, tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Four processes: only tower 1's gradient of the second replica is spoilt; all others learn of it."""
    run = tmp_path / "run"
    flags = (*SMALL, *STEPS, "--data", tree, "--out", run, "--checkpoint-every", 2)
    monkeypatch.setenv("PLANTED", what)
    ended = on_ranks(processes, PLANTING, *flags)
    assert ended.err.count(f"error: {said}") == 1 and ended.codes == [3] * processes
    assert ("first not finite in conv4" in ended.err) == (what == "weight")
    assert newest_of_finite(run).name == "step-000000004.pt"
    changed = [json.loads((run / f"changed-{rank}.json").read_text()) for rank in range(processes)]
    assert changed == [["towers.1.conv4.weight"] * (what == "weight" and rank == 1) for rank in range(processes)]


def test_no_step_asks_the_host(tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a GPU would stand still while the host reads, and decides whether to update."""
    train_step = Trainer.train_step

    def step(self: Trainer, *batch: object, **out_of_data: bool) -> object:
        with NoHostReads():
            return train_step(self, *batch, **out_of_data)

    monkeypatch.setattr(Trainer, "train_step", step)
    ended = here(TRAIN, *SMALL, "--data", tree, "--out", tmp_path / "run", "--max-steps", 2)
    assert (ended.code, ended.err) == (0, "")


@pytest.mark.cuda
def test_no_step_waits_for_the_gpu(tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train_step = Trainer.train_step

    def step(self: Trainer, *batch: object, **out_of_data: bool) -> object:
        torch.cuda.set_sync_debug_mode("error" if self.step > 1 else "default")  # the first ones warm up
        try:
            return train_step(self, *batch, **out_of_data)
        finally:
            torch.cuda.set_sync_debug_mode("default")

    monkeypatch.setattr(Trainer, "train_step", step)
    ended = here(TRAIN, *SMALL, "--data", tree, "--out", tmp_path / "run", "--max-steps", 4)
    assert (ended.code, ended.err) == (0, "")
