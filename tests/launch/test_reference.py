"""Reference nets, trained by the same command."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path

import pytest
import torch
from PIL import Image
from running import ROOT, TRAIN, assert_same_to_the_bit, here, losses, rows

from alexnet2012.data import open_dataset
from alexnet2012.evaluation import checkpoint
from alexnet2012.evaluation.model import load_checkpoint

EVALUATE = ROOT / "launch" / "evaluate.py"
LENET = ("--net", "lenet-relu", "--data", "sample", "--loader", "torch", "--workers", "1", "--log-every", "1")


@pytest.mark.parametrize(
    ("flags", "line"),
    [
        (("--net", "d2l", "--no-lrn"), "--net d2l: its lrn cannot be changed; it takes --width, --activation"),
        (("--net", "d2l", "--recipe", "source"), "--net d2l: has no --recipe"),
        (("--net", "torchvision", "--width", "0.5"), "its width cannot be changed; it takes --activation, --dropout"),
        (("--net", "19pct", "--dropout", "0.2"), "--net 19pct: its dropout cannot be changed; it takes --activation"),
        (("--init", "he"), "--init he: the 2012 net's are normal, wider with --wide-init; name another --net"),
        (("--image-size", "96"), "images of 96 pixels and 3 channels reach fc6 as 2x2"),
        (("--no-dropout", "--dropout", "0.3"), "--no-dropout: another flag changes the same; leave one of them out"),
        (("--augment", "zoom"), "--augment zoom: must be of flip, crop, color, or none"),
        (("--net", "lenet", "--augment", "color"), "grey images have no mean image or --augment color"),
        (("--net", "19pct", "--weight-decay", "-1"), "--weight-decay -1: must be at least 0"),
        (("--net", "vgg"), "invalid choice: 'vgg'"),
        (("--val-fraction", "1.5"), "--val-fraction 1.5: must be above 0 and below 1"),
        (("--early-stop", "0"), "--early-stop 0: must be above 0"),
    ],
)
def test_bad_input_is_one_line(flags: tuple[str, ...], line: str) -> None:
    ended = here(TRAIN, "--data", "sample", *flags)
    assert ended.code == 2
    assert line in ended.err
    assert len(ended.err.splitlines()) == 1


@pytest.mark.parametrize(("net", "parameters"), [("d2l", "46,764,746"), ("lenet", "61,706"), ("2012", "56,909,194")])
def test_describe_knows_them(net: str, parameters: str) -> None:
    ended = here(TRAIN, "--net", net, "--data", "sample", "--describe")
    assert (ended.code, ended.err) == (0, "")
    assert parameters in ended.out and "initial weights, seed 0" in ended.out


def test_a_run_of_lenet_resumes_exactly_and_is_evaluated(tmp_path: Path) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert here(TRAIN, *LENET, "--out", whole, "--max-steps", 4).code == 0
    for steps in (2, 4):
        ended = here(TRAIN, *LENET, "--out", parts, "--max-steps", steps)
        assert ended.code == 0 and ("going on at step 2" in ended.out) == (steps == 4)
    assert losses(whole) == losses(parts)
    saved, resumed = (checkpoint.load(run / "checkpoints" / "last.pt") for run in (whole, parts))
    assert all(torch.equal(weight, resumed["weights"][name]) for name, weight in saved["weights"].items())

    net = load_checkpoint(whole / "checkpoints" / "last.pt", "cpu")
    picture = Image.open(io.BytesIO(open_dataset("sample", "val")[0][0]))
    (best,) = net.predict(picture, top=1)
    assert best.name in net.class_names
    assert net.predict(picture) == net.predict(picture, crops=1)


def test_a_net_trained_without_crops_is_evaluated_with_its_one_crop(tmp_path: Path) -> None:
    assert here(TRAIN, *LENET, "--out", tmp_path / "run", "--max-steps", 1).code == 0
    errors = {}
    for crops in (1, 10):
        net, file = tmp_path / "run" / "checkpoints" / "last.pt", tmp_path / f"{crops}.json"
        words = ("--data", "sample", "--crops", crops, "--loader", "pillow", "--json", file)
        ended = here(EVALUATE, net, *words, *["--quiet"] * (crops == 1))
        assert (ended.code, ended.err) == (0, "") and ended.out.endswith("1000 images\n")
        assert ("net      " in ended.out) == (crops == 10)
        assert ("crops    1: trained without crops" in ended.out) == (crops == 10)
        errors[crops] = json.loads(file.read_text())
    assert errors[10] == errors[1]
    assert errors[10]["crops"] == 1


def test_a_batch_is_shown_before_training_and_a_fraction_to_validate_on_needs_no_folder(
    tree: Path, tmp_path: Path
) -> None:
    data, run = tmp_path / "data", tmp_path / "run"
    data.mkdir()
    (data / "train").symlink_to(tree / "train")
    words = (*LENET, "--data", data, "--batch-size", 8, "--epochs", 1, "--out", run)
    ended = here(TRAIN, *words, "--show-batch")
    assert ended.code == 2 and "data/val: no such directory" in ended.err and "--val-fraction" in ended.err
    words = (*words, "--val-fraction", "0.2")
    assert here(TRAIN, *words, "--describe").code == 0 and not run.exists()
    ended = here(TRAIN, *words, "--show-batch")
    assert (ended.code, ended.err) == (0, "")
    assert ended.out.splitlines()[-2:] == [str(run / "figures" / f"first-batch.{suffix}") for suffix in ("png", "pdf")]
    assert not any((run / "checkpoints").iterdir())
    ended = here(TRAIN, *words)
    assert ended.code == 0 and "32 training and 8 validation images" in ended.out


def test_early_stopping_ends_a_run_for_good(tree: Path, tmp_path: Path) -> None:
    """At rate 1e-9 no epoch is better than the first. Eight of 40 images are held back."""
    words = (*LENET, "--data", tree, "--lr", "1e-9", "--val-fraction", "0.2", "--batch-size", "16", "--early-stop", "2")
    ended = here(TRAIN, *words, "--out", tmp_path / "run")
    assert ended.code == 0, ended.err
    epochs = [row["epoch"] for row in rows(tmp_path / "run") if "val_top1_error" in row]
    assert epochs == [1, 2, 3]
    lines = ended.out.splitlines()
    assert [line.rpartition("; ")[2] for line in lines if line.startswith("epoch ")][1:] == [
        "no better error for 1 of 2 epochs", "no better error for 2 of 2 epochs",
    ]  # fmt: skip
    assert re.fullmatch(r"loss \d\.\d{3}, train acc [01]\.\d{3}, val acc [01]\.\d{3}, \d+\.\d examples/sec", lines[-2])
    assert lines[-1].startswith("done") and lines[-1].endswith("no better validation error for 2 epochs")
    again = here(TRAIN, *words, "--out", tmp_path / "run")
    assert "already trained" in again.out


def test_the_monitored_loss_decides_on_the_end_and_the_best_checkpoint(tree: Path, tmp_path: Path) -> None:
    run, words = tmp_path / "run", (*LENET, "--data", tree, "--batch-size", "16", "--lr", "0.001")
    ended = here(TRAIN, *words, "--monitor", "loss", "--min-delta", "9", "--early-stop", "2", "--out", run, "--quiet")
    assert ended.code == 0, ended.err
    assert re.fullmatch(r"loss .* test acc .* examples/sec\n", ended.out)  # the result alone
    assert json.loads((run / "state.json").read_text())["reason"] == "no better validation loss for 2 epochs"
    measured = {row["step"]: row["val_loss"] for row in rows(run) if "val_loss" in row}
    assert len(measured) == 3
    best = checkpoint.load(run / "checkpoints" / "best.pt")
    assert (measured[best["step"]], best["best_top1_error"]) == (min(measured.values()),) * 2
    last = checkpoint.load(run / "checkpoints" / "last.pt")
    assert (last["patience_best"], last["epochs_since_best"]) == (next(iter(measured.values())), 2)


def test_a_net_of_cifar10_trains_its_whole_schedule_and_resumes_exactly(tree: Path, tmp_path: Path) -> None:
    """40 images in batches of 8: two epochs on 32 of them, two on all; the rate drops after 3.5 and 3.75 epochs."""
    flags = ("--net", "conv-local-13pct-lrn", "--data", tree, "--epochs", 4, "--batch-size", 8, *LENET[4:])
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    ended = here(TRAIN, *flags, "--out", whole, "--max-steps", 17)
    assert ended.code == 0, ended.err
    for steps in (7, 17):
        ended = here(TRAIN, *flags, "--out", parts, "--max-steps", steps)
        assert ended.code == 0 and ("going on at step 7" in ended.out) == (steps == 17)
    assert_same_to_the_bit(parts, whole)
    lr = [row["lr"] for row in rows(whole) if "loss" in row]
    assert lr == pytest.approx([1e-3] * 15 + [1e-4] + [1e-5])
    assert [row["step"] for row in rows(whole) if "val_top1_error" in row] == [4, 8, 13]
    assert load_checkpoint(whole / "checkpoints" / "last.pt", "cpu").statistics.mean.shape == (32, 32, 3)


def test_tanh_without_decay(tree: Path, tmp_path: Path) -> None:
    flags = ("--net", "19pct", "--data", tree, "--activation", "tanh", "--weight-decay", 0, "--lr", 0.01, *LENET[4:])
    ended = here(TRAIN, *flags, "--batch-size", 8, "--max-steps", 1, "--out", tmp_path / "run")
    assert ended.code == 0, ended.err
    settings = json.loads((tmp_path / "run" / "config.json").read_text())["settings"]
    assert (settings["recipe.activation"], settings["recipe.weight_decay"], settings["recipe.weight_decays"]) == (
        "tanh", 0.0, [],
    )  # fmt: skip
    assert (settings["recipe.lr"], settings["recipe.bias_lr"]) == (0.01, 0.02)
