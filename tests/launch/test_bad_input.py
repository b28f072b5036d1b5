"""Bad input: one line that names it and says what to do, and exit code 2."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from running import SMALL, TRAIN, Ended, assert_refused, here, on_ranks, torchrun, write_tree

from alexnet2012.training.run_directory import RunDirectory

CLASSES = 3


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A small tree of a test's own, to spoil."""
    return write_tree(tmp_path / "tree", CLASSES, train=4, val=2)


def train(tree: Path, *flags: object) -> Ended:
    return here(TRAIN, *SMALL, "--data", tree, "--out", tree.parent / "run", *flags)


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ("--recipe alexnet", "--recipe alexnet: must be one of paper, source"),
        ("--width 0.3", "--width 0.3: conv1 would have 14.4 kernels"),
        ("--width 0", "--width 0"),
        ("--epochs 0", "--epochs 0"),
        ("--batch-size 0", "--batch-size 0"),
        ("--batch-size -6", "--batch-size -6"),
        ("--batch-size 13", "the training split has 12 images"),
        ("--lr 0", "--lr 0"),
        ("--lr nan", "--lr nan"),
        ("--seed -1", "--seed -1"),
        ("--seed 9223372036854775808", "--seed 9223372036854775808"),
        ("--max-steps 0", "--max-steps 0"),
        ("--workers 0", "--workers 0"),
        ("--threads 100000", "--threads 100000: must be at least 1 and at most 1024"),
        ("--log-every 0", "--log-every 0"),
        ("--checkpoint-every 0", "--checkpoint-every 0"),
        ("--keep 0", "--keep 0"),
        ("--time-limit 0", "--time-limit 0"),
        ("--time-limit nan", "--time-limit nan: must be above 0"),
        ("--warmup-epochs 4", "--warmup-epochs 4"),
        ("--schedule never", "--schedule never"),
        ("--loader ffcv", "--loader"),
        ("--precision fp8", "--precision"),
        ("--precision tf32", "--precision tf32: only CUDA devices have it"),
        ("--placement apart", "--placement"),
        ("--exchange-at conv5", "--exchange-at"),
        ("--without conv1", "--without"),
        ("--activation gelu", "--activation"),
        ("--no-exchange --one-tower", "run one of them at a time"),
        ("--one-tower --exchange-at conv4", "--one-tower: has no other tower to exchange with"),
        ("--epochs many", "--epochs"),
        ("--epochs", "--epochs"),
        ("--epoch 4", "--epoch"),
        ("--gpus 8", "--gpus"),
        ("surplus", "surplus"),
    ],
)
def test_flags(tree: Path, flags: str, said: str) -> None:
    assert_refused(train(tree, *flags.split()), said)
    assert not (tree.parent / "run").exists()


def test_a_data_directory_that_is_not_there(tmp_path: Path) -> None:
    assert_refused(train(tmp_path / "nowhere"), tmp_path / "nowhere", "no such directory")


@pytest.mark.parametrize("name", ["sampel", "data/imagenet"])
def test_a_data_set_of_no_such_name(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert_refused(here(TRAIN, *SMALL, "--data", name), name, "sample, fashion-mnist, cifar10")


def spoil_all(tree: Path) -> None:
    shutil.rmtree(tree)
    tree.mkdir()


def empty_a_class(tree: Path) -> None:
    for image in (tree / "train" / "class1").iterdir():
        image.rename(image.with_suffix(".txt"))


def leave_one_class(tree: Path) -> None:
    for split in ("train", "val"):
        for name in ("class0", "class1"):
            shutil.rmtree(tree / split / name)


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (spoil_all, "tree: is empty"),
        (lambda tree: shutil.rmtree(tree / "val"), "tree/val: no such directory"),
        (lambda tree: shutil.rmtree(tree / "val" / "class1"), "class class1 is in train/ but not in val/"),
        (lambda tree: shutil.rmtree(tree / "train" / "class2"), "class class2 is in val/ but not in train/"),
        (empty_a_class, "tree/train/class1: no .JPEG"),
        (leave_one_class, "holds 1 class folder; at least two are needed"),
    ],
)
def test_data_that_cannot_be_used(tree: Path, spoil: Callable[[Path], None], said: str) -> None:
    spoil(tree)
    assert_refused(train(tree), said)
    assert not (tree.parent / "run").exists()


@pytest.mark.parametrize("content", [b"", b"no image", None], ids=["empty", "text", "cut"])
@pytest.mark.parametrize("split", ["train", "val"])
def test_a_file_that_is_no_image_is_named_and_its_repair_lets_the_run_go_on(
    tree: Path, split: str, content: bytes | None
) -> None:
    file = tree / split / "class1" / "0.JPEG"
    image = file.read_bytes()
    file.write_bytes(image[: len(image) // 2] if content is None else content)
    assert_refused(train(tree, "--max-steps", 2), file)  # an epoch has two steps
    file.write_bytes(image)
    assert train(tree, "--max-steps", 2).code == 0


def test_out_below_a_file(tree: Path) -> None:
    (tree.parent / "file").touch()
    ended = here(TRAIN, *SMALL, "--data", tree, "--out", tree.parent / "file" / "run")
    assert_refused(ended, f"--out {tree.parent / 'file' / 'run'}: cannot be used")


def test_out_that_is_no_run(tree: Path) -> None:
    assert_refused(here(TRAIN, *SMALL, "--data", tree, "--out", tree), f"--out {tree}: not empty and no run")


def test_out_whose_configuration_is_broken(tree: Path) -> None:
    (tree.parent / "run").mkdir()
    (tree.parent / "run" / "config.json").write_text('{"settings": {"da')
    assert_refused(train(tree), "config.json: cannot be read")


@pytest.fixture
def run(tree: Path) -> Path:
    """A run of one step."""
    assert train(tree, "--max-steps", 1).code == 0
    return tree.parent / "run"


def test_out_where_another_run_is_writing(run: Path, tree: Path) -> None:
    with contextlib.closing(RunDirectory(run)) as other:
        other.take()
        assert_refused(train(tree), f"--out {run}: another run is writing there (process {os.getpid()} on ")


def test_a_checkpoint_of_another_number_of_classes(run: Path, tree: Path) -> None:
    for split in ("train", "val"):
        shutil.copytree(tree / split / "class0", tree / split / "class3")
    assert_refused(train(tree), run, "of 3 classes, the data has 4")


def test_a_checkpoint_of_another_width(run: Path, tree: Path) -> None:
    wider = (*SMALL, "--data", tree, "--out", tree.parent / "wider", "--width", 0.125)
    assert here(TRAIN, *wider, "--max-steps", 1).code == 0
    shutil.copytree(run / "checkpoints", tree.parent / "wider" / "checkpoints", dirs_exist_ok=True)
    assert_refused(here(TRAIN, *wider), tree.parent / "wider", "of width 0.0625, not 0.125")


@pytest.mark.parametrize(
    ("change", "said"),
    [({"step": 2**62}, f"of step {2**62}, the run has 8"), ({"epoch_means": {"loss": "much"}}, "no whole checkpoint")],
)
def test_a_checkpoint_that_no_run_writes(run: Path, tree: Path, change: dict[str, object], said: str) -> None:
    """A run's steps are 4 epochs of 2."""
    for path in run.glob("checkpoints/*.pt"):
        torch.save({**torch.load(path, weights_only=True), **change}, path)
    ended = train(tree)
    assert ended.code == 2 and said in ended.err


def test_a_checkpoint_of_a_newer_format(run: Path, tree: Path) -> None:
    (newest,) = run.glob("checkpoints/step-*.pt")
    torch.save({**torch.load(newest, weights_only=True), "format": 99}, newest)
    assert_refused(train(tree), newest, "format 99 is newer than")


def lines_of_ours(ended: Ended) -> list[str]:
    return [line for line in ended.err.splitlines() if line.startswith(("error:", "warning:"))]


def test_under_torchrun_rank_0_reports_once_and_first(tree: Path) -> None:
    flags = ("--placement", "together", "--batch-size", "5")
    ended = torchrun(2, TRAIN, *SMALL, "--data", tree, "--out", tree.parent / "run", *flags)
    assert ended.code == 1
    (line,) = lines_of_ours(ended)
    assert "--batch-size 5: does not divide among 2 replicas" in line
    assert ended.err.index(line) < ended.err.index("ChildFailedError")
    assert not (tree.parent / "run").exists()


def test_an_odd_number_of_processes_is_reported_once(tree: Path) -> None:
    ended = on_ranks(3, TRAIN, *SMALL, "--data", tree, "--out", tree.parent / "run")
    assert ended.codes[0] == 2
    (line,) = ended.err.splitlines()
    assert "3 processes cannot hold a tower each in pairs" in line
    assert not (tree.parent / "run").exists()
