"""A run that is stopped, in any way, goes on as if it had not been."""

from __future__ import annotations

import json
import math
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from running import (
    ROOT,
    SMALL,
    TRAIN,
    assert_refused,
    assert_same_to_the_bit,
    here,
    last,
    losses,
    on_ranks,
    rows,
    start,
    state,
    tensors,
)
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from alexnet2012 import paper_recipe
from alexnet2012.core.errors import InputError
from alexnet2012.data import Statistics, TrainingPlan, open_dataset
from alexnet2012.evaluation import checkpoint
from alexnet2012.training.trainer import EpochMeans, Trainer

STEPS = ("--max-steps", 20)
STUCK = Path(__file__).with_name("train_without_beginning.py")


@pytest.fixture(scope="module")
def killed(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run killed with SIGKILL once it has reported step 9, which is neither an epoch's last nor saved."""
    run = tmp_path_factory.mktemp("runs") / "killed"
    process = start(TRAIN, *SMALL, *STEPS, "--data", tree, "--out", run, "--checkpoint-every", 4)
    metrics = run / "metrics.jsonl"
    while process.poll() is None and not (metrics.exists() and '"step": 9,' in metrics.read_text()):
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    _, err = process.communicate()
    assert process.returncode == -signal.SIGKILL, err
    return run


def test_after_sigkill_losses_rows_and_events_are_those_of_a_run_never_killed(
    killed: Path, one_process: Path, tree: Path, tmp_path: Path
) -> None:
    run = shutil.copytree(killed, tmp_path / "run")
    ended = here(TRAIN, *SMALL, *STEPS, "--data", tree, "--out", run, "--checkpoint-every", 4)
    assert (ended.code, ended.err) == (0, "")
    assert "going on at step" in ended.out
    assert_same_to_the_bit(run, one_process)
    assert state(run) == ("done", 20)

    events = EventAccumulator(str(run / "tensorboard")).Reload()
    for name, steps in (("loss", list(range(1, 21))), ("val_top1_error", [6, 12, 18])):
        assert [event.step for event in events.Scalars(name)] == steps
    assert [event.value for event in events.Scalars("loss")] == pytest.approx(list(losses(run).values()))
    assert [event.step for event in events.Images("conv1 kernels")][-1] == 20


def test_after_sigkill_two_processes_go_on(killed: Path, one_process: Path, tree: Path, tmp_path: Path) -> None:
    run = shutil.copytree(killed, tmp_path / "run")
    ended = on_ranks(2, TRAIN, *SMALL, *STEPS, "--data", tree, "--out", run)
    assert ended.code == 0 and "going on at step" in ended.out, ended.err
    assert losses(run) == pytest.approx(losses(one_process), rel=1e-4)
    assert list(losses(run)) == list(range(1, 21))
    means, expected = ([row["train_loss"] for row in rows(each) if "train_loss" in row] for each in (run, one_process))
    assert means == pytest.approx(expected, rel=1e-4)


def test_a_broken_last_checkpoint_costs_the_steps_behind_it_only(
    killed: Path, one_process: Path, tree: Path, tmp_path: Path
) -> None:
    run = shutil.copytree(killed, tmp_path / "run")
    assert here(TRAIN, *SMALL, "--max-steps", 17, "--data", tree, "--out", run).code == 0
    newest = max(run.glob("checkpoints/step-*.pt"))
    newest.write_bytes(newest.read_bytes()[:-100])
    ended = here(TRAIN, *SMALL, *STEPS, "--data", tree, "--out", run)
    assert ended.code == 0 and "going on at step" in ended.out
    assert ended.err.count("\n") == ended.err.count("passed over") == 1
    assert_same_to_the_bit(run, one_process)


def test_named_checkpoints_are_enough_to_go_on(killed: Path, one_process: Path, tree: Path, tmp_path: Path) -> None:
    """Whoever tidies the numbered ones away, or copies the named ones alone, loses nothing."""
    run = shutil.copytree(killed, tmp_path / "run")
    assert here(TRAIN, *SMALL, "--max-steps", 17, "--data", tree, "--out", run).code == 0
    for path in run.glob("checkpoints/step-*.pt"):
        path.unlink()
    (run / "checkpoints" / "step-000000099.pt").mkdir()
    ended = here(TRAIN, *SMALL, *STEPS, "--data", tree, "--out", run)
    (warning,) = ended.err.splitlines()
    assert ended.code == 0 and warning.startswith(f"warning: {run}/checkpoints/step-000000099.pt: is not a file")
    assert "going on at step 17" in ended.out
    assert_same_to_the_bit(run, one_process)


def test_a_stop_at_an_epochs_end_puts_the_validation_off(
    one_process: Path, tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "asked_to_stop", lambda trainer: True)
        for step in (6, 12):
            assert here(TRAIN, *SMALL, "--max-steps", 12, "--data", tree, "--out", run).code == 0
            assert state(run) == ("preempted", step)
            assert [row["step"] for row in rows(run) if "val_top1_error" in row] == list(range(6, step, 6))
            patch.setattr(Trainer, "asked_to_stop", asked_after(6))
    with monkeypatch.context() as patch:  # the validation is done and its row written, but no checkpoint behind it
        patch.setattr(checkpoint, "save", no_space)
        assert here(TRAIN, *SMALL, "--max-steps", 13, "--data", tree, "--out", run).code == 2
        assert rows(run)[-1]["step"] == 13
    assert "going on at step 12" in here(TRAIN, *SMALL, *STEPS, "--data", tree, "--out", run).out
    assert_same_to_the_bit(run, one_process)


def test_a_run_preempted_at_its_last_step_draws_no_figures_but_the_same_command_does(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Preempted before the last validation, then within it, then while it draws."""
    run, figures = tmp_path / "run", tmp_path / "run" / "figures"
    flags = (*SMALL, "--epochs", 1, "--data", tree, "--out", run)

    def validate(trainer: Trainer) -> bool:
        trainer.stop.signal = signal.SIGTERM
        return validated(trainer)

    def unreadable(*_: object) -> None:
        raise InputError("image.png: cannot be read")

    validated = Trainer.validate
    for name, replaced in (("asked_to_stop", lambda trainer: True), ("validate", validate)):
        with monkeypatch.context() as patch:
            patch.setattr(Trainer, name, replaced)
            assert here(TRAIN, *flags).code == 0
        assert state(run) == ("preempted", 6) and not list(figures.iterdir())
    with monkeypatch.context() as patch:
        patch.setattr("alexnet2012.reporting.figures.gallery.save_figures", unreadable)
        assert_refused(here(TRAIN, *flags), "image.png")
    assert state(run) == ("failed", 6)
    ended = here(TRAIN, *flags)
    assert (ended.code, ended.err) == (0, "")
    assert state(run) == ("done", 6) and len(list(figures.iterdir())) == 8
    drawn = {path: path.stat().st_mtime_ns for path in figures.iterdir()}
    assert here(TRAIN, *flags).code == 0
    assert {path: path.stat().st_mtime_ns for path in figures.iterdir()} == drawn
    assert [row["step"] for row in rows(run) if "val_top1_error" in row] == [6]


def no_space(path: Path, contents: dict) -> None:
    raise OSError(28, "No space left on device")


def asked_after(step: int) -> Callable[[Trainer], bool]:
    return lambda trainer: trainer.step > step


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1])
def test_a_run_asked_to_stop_before_its_first_step_leaves_at_once(number: int, tree: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    process = start(STUCK, *SMALL, "--data", tree, "--out", run)
    while process.poll() is None and not (run / "config.json").exists():
        time.sleep(0.01)
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, "")
    assert "at once" in out
    assert state(run) == ("preempted", 0)


def test_statistics_of_other_data_are_measured_again(tree: Path, tmp_path: Path) -> None:
    """The data grew after a run that was stopped before its first checkpoint."""
    run, data = tmp_path / "run", shutil.copytree(tree, tmp_path / "data")
    assert here(TRAIN, *SMALL, "--max-steps", 1, "--data", data, "--out", run).code == 0
    shutil.rmtree(run / "checkpoints")
    shutil.copy(data / "train" / "class0" / "0.JPEG", data / "train" / "class0" / "new.JPEG")
    assert here(TRAIN, *SMALL, "--max-steps", 1, "--data", data, "--out", run).code == 0
    assert Statistics.load(run / "statistics.npz").images == 41


def test_no_image_behind_the_last_step_is_read(tree: Path, tmp_path: Path) -> None:
    """An image of step 4 is spoilt once the statistics, which need all images, are there."""
    run, data = tmp_path / "run", shutil.copytree(tree, tmp_path / "data")
    flags = (*SMALL, "--data", data, "--out", run)
    assert here(TRAIN, *flags, "--max-steps", 2).code == 0
    train = open_dataset(data, "train")
    plan = TrainingPlan(paper_recipe(epochs=4), len(train), 6, 0, Statistics.none(), 4)
    bad = Path(train.name(int(plan.augmentations(3).index[0])))
    bad.write_bytes(b"no image")
    ended = here(TRAIN, *flags, "--max-steps", 3)
    assert (ended.code, ended.err) == (0, "")
    assert_refused(here(TRAIN, *flags, "--max-steps", 4), bad)


def edit_config(run: Path, edit: Callable[[dict], object]) -> None:
    config = json.loads((run / "config.json").read_text())
    edit(config)
    (run / "config.json").write_text(json.dumps(config))


def edit_checkpoints(run: Path, edit: Callable[[dict], object]) -> None:
    for path in (run / "checkpoints").glob("*.pt"):
        saved = checkpoint.load(path)
        edit(saved)
        checkpoint.save(path, saved)


def test_a_run_of_a_version_that_knew_less_goes_on(one_process: Path, tree: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert here(TRAIN, *SMALL, "--max-steps", 8, "--data", tree, "--out", run).code == 0
    edit_config(run, lambda config: config["settings"].pop("recipe.plateau_patience"))
    edit_checkpoints(run, lambda saved: saved["recipe"].pop("plateau_patience"))
    assert "going on at step 8" in here(TRAIN, *SMALL, *STEPS, "--data", tree, "--out", run).out
    assert_same_to_the_bit(run, one_process)


def test_a_run_of_other_random_streams_evaluates_and_exports_but_does_not_go_on(
    one_process: Path, tree: Path, tmp_path: Path
) -> None:
    """Version 1 named no version."""
    run = shutil.copytree(one_process, tmp_path / "run")
    edit_checkpoints(run, lambda saved: saved.pop("streams"))
    refusal = "its run drew from version 1 of the random streams, this alexnet2012 draws from version 2"
    command = (TRAIN, *SMALL, "--data", tree, "--out", run)
    assert_refused(here(*command), run / "checkpoints" / "step-000000020.pt", refusal, "training cannot go on")
    edit_config(run, lambda config: config.pop("streams"))
    assert_refused(here(*command), run / "config.json", refusal, "training cannot go on")
    assert len(rows(run)) == len(rows(one_process))

    last = run / "checkpoints" / "last.pt"
    evaluated = here(ROOT / "launch" / "evaluate.py", last, "--data", tree, "--loader", "pillow")
    assert (evaluated.code, evaluated.err) == (0, "")
    exported = here(ROOT / "launch" / "export.py", last, "--safetensors", tmp_path / "net.safetensors")
    assert (exported.code, exported.err) == (0, "")


def test_damaged_rows_cost_nothing_but_themselves(killed: Path, one_process: Path, tree: Path, tmp_path: Path) -> None:
    run = shutil.copytree(killed, tmp_path / "run")
    with (run / "metrics.jsonl").open("ab") as metrics:
        metrics.write(b'{"step": 4, "loss": "\xff"}\n[]\n{"step": 9, "epo')
    ended = here(TRAIN, *SMALL, *STEPS, "--data", tree, "--out", run)
    assert (ended.code, ended.err) == (0, f"warning: {run / 'metrics.jsonl'}: 3 damaged rows are dropped\n")
    assert "going on at step" in ended.out
    assert_same_to_the_bit(run, one_process)


@pytest.fixture(scope="module")
def pieces(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run in pieces, what may change between them changing."""
    run = tmp_path_factory.mktemp("runs") / "pieces"
    for begins, flags in (
        ("", ("--max-steps", 5)),
        (", going on at step 5", ("--max-steps", 6, "--workers", 2)),
        (", going on at step 6", ("--max-steps", 13, "--checkpoint-every", 3, "--placement", "together")),
        (", going on at step 13", ("--time-limit", 1e-6)),
        (", going on at step 14", STEPS),
    ):
        ended = here(TRAIN, *SMALL, *flags, "--data", tree, "--out", run)
        assert (ended.code, ended.err) == (0, "")
        assert f"run      {run}{begins}\n" in ended.out
        if "--time-limit" in flags:
            assert state(run) == ("preempted", 14)
    return run


def test_a_run_in_pieces_is_the_run_in_one(pieces: Path, one_process: Path) -> None:
    assert_same_to_the_bit(pieces, one_process)


def test_a_cosine_in_pieces_is_the_one_in_one(tree: Path, tmp_path: Path) -> None:
    whole, run = tmp_path / "whole", tmp_path / "run"
    for out, steps in ((whole, 4), (run, 2), (run, 4)):
        flags = ("--schedule", "cosine", "--data", tree, "--out", out, "--max-steps", steps)
        assert here(TRAIN, *SMALL, *flags).code == 0
    assert_same_to_the_bit(run, whole)
    steps = 24  # four epochs of six
    expected = [0.001 * (1 + math.cos(math.pi * step / steps)) / 2 for step in range(4)]
    assert [row["lr"] for row in rows(run)] == pytest.approx(expected, rel=1e-12)


def test_a_bf16_run_in_pieces_is_the_one_in_one_and_goes_on_in_fp32(tree: Path, tmp_path: Path) -> None:
    """Its checkpoints hold float32."""
    whole, run = tmp_path / "whole", tmp_path / "run"
    for out, steps in ((whole, 4), (run, 2), (run, 4)):
        flags = ("--precision", "bf16", "--data", tree, "--out", out, "--max-steps", steps)
        ended = here(TRAIN, *SMALL, *flags)
        assert (ended.code, ended.err) == (0, "")
    assert_same_to_the_bit(run, whole)
    assert {value.dtype for value in tensors(last(run)).values()} == {torch.float32}
    edit_config(run, lambda config: config["settings"].update(precision="fp32"))
    edit_checkpoints(run, lambda saved: saved["settings"].update(precision="fp32"))
    ended = here(TRAIN, *SMALL, "--data", tree, "--out", run, "--max-steps", 5)
    assert (ended.code, ended.err) == (0, "")
    assert list(losses(run)) == [1, 2, 3, 4, 5]


def test_a_checkpoint_without_the_schedules_state_is_refused(one_process: Path, tree: Path, tmp_path: Path) -> None:
    run = shutil.copytree(one_process, tmp_path / "run")
    edit_config(run, lambda config: config["settings"].update(schedule="plateau"))
    edit_checkpoints(run, lambda saved: saved["schedule"].pop("best", None))
    ended = here(TRAIN, *SMALL, "--schedule", "plateau", "--data", tree, "--out", run)
    assert_refused(ended, run / "checkpoints" / "step-000000020.pt", "its schedule has no best")


def test_an_epochs_row_holds_the_means_of_its_steps(one_process: Path) -> None:
    """Every step has a row here. ``assert_same_to_the_bit`` compares these means for the runs that were stopped."""
    steps = {row["step"]: row for row in rows(one_process) if "loss" in row}
    for row in rows(one_process):
        if "train_loss" in row:
            of_epoch = [steps[step] for step in range(row["step"] - 5, row["step"] + 1)]
            assert row["train_loss"] == pytest.approx(sum(step["loss"] for step in of_epoch) / 6, rel=1e-12)
            assert row["train_top1_error"] == pytest.approx(sum(step["batch_top1_error"] for step in of_epoch) / 6)
            assert 0 < row["val_loss"] < 2
    assert [row["step"] for row in rows(one_process) if "train_loss" in row] == [6, 12, 18]


def test_a_short_batch_weighs_less_in_the_means_of_its_epoch() -> None:
    means = EpochMeans()
    means.add(6, 1.0, 0.5)
    means.add(3, 4.0, 1.0)
    assert means.row(9) == {"train_loss": 2.0, "train_top1_error": pytest.approx(100 * 6 / 9)}


def test_an_epoch_begun_by_an_older_version_has_no_mean_of_a_part(tree: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert here(TRAIN, *SMALL, "--max-steps", 3, "--data", tree, "--out", run).code == 0
    (newest,) = run.glob("checkpoints/step-*.pt")
    saved = {name: value for name, value in checkpoint.load(newest).items() if name not in ("format", "epoch_means")}
    checkpoint.save(newest, saved)
    assert here(TRAIN, *SMALL, "--max-steps", 12, "--data", tree, "--out", run).code == 0
    reported = {row["step"]: "train_loss" in row for row in rows(run) if "val_loss" in row}
    assert reported == {6: False, 12: True}


def test_the_best_checkpoint_is_the_epoch_of_the_lowest_error(pieces: Path) -> None:
    validated = [row for row in rows(pieces) if "val_top1_error" in row]
    lowest = min(validated, key=lambda row: row["val_top1_error"])  # the first of equals
    best = checkpoint.load(pieces / "checkpoints" / "best.pt")
    assert (best["step"], best["best_top1_error"]) == (lowest["step"], lowest["val_top1_error"])
    assert last(pieces)["best_top1_error"] == lowest["val_top1_error"]
    assert last(pieces)["step"] == 20


@pytest.mark.parametrize("steps", [STEPS, ("--max-steps", 6)])
def test_a_finished_run_says_so(one_process: Path, tree: Path, steps: tuple[str, int]) -> None:
    before = (one_process / "metrics.jsonl").read_text()
    ended = here(TRAIN, *SMALL, *steps, "--data", tree, "--out", one_process)
    assert (ended.code, ended.err) == (0, "")
    assert "already trained to step 20" in ended.out
    assert (one_process / "metrics.jsonl").read_text() == before


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        (("--seed", 1), "seed 0, not 1"),
        (("--lr", 0.002), "lr 0.001, not 0.002"),
        (("--width", 0.125), "width 0.0625, not 0.125"),
        (("--batch-size", 8), "batch-size 6, not 8"),
        (("--epochs", 5), "epochs 4, not 5"),
        (("--schedule", "constant"), "schedule steps, not constant"),
        (("--precision", "bf16"), "precision fp32, not bf16"),
        (("--data", "sample"), "data"),
        (("--no-lrn",), "lrn True, not False"),
        (("--recipe", "source"), "recipe paper, not source"),
    ],
    ids=str,
)
def test_other_settings_are_refused_by_name(
    one_process: Path, tree: Path, flags: tuple[object, ...], named: str
) -> None:
    ended = here(TRAIN, *SMALL, "--data", tree, "--out", one_process, *flags)
    assert_refused(ended, f"holds a run with {named}")
