"""Error rates on the command line: counted as by hand in every layout, averaged, refused in one line."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from checkpoints import NARROW, by_hand, error_by_hand, nats_by_hand, write_checkpoint
from running import ROOT, Ended, here, on_ranks, write_tree

from alexnet2012 import paper_recipe
from alexnet2012.data import open_dataset
from alexnet2012.evaluation.predictions import Predictions

EVALUATE = ROOT / "launch" / "evaluate.py"
HOW = ("--loader", "pillow", "--workers", 1, "--batch-size", 6)


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Seven classes; 21 validation images: batches of 6, the last of 3 leaves a replica of four processes one."""
    return write_tree(tmp_path_factory.mktemp("tree"), classes=7, train=1, val=3)


@pytest.fixture(scope="module")
def nets(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    directory = tmp_path_factory.mktemp("nets")
    return [write_checkpoint(directory / f"{seed}.pt", open_dataset(tree, "val"), seed) for seed in (0, 1)]


def read(path: Path) -> Any:
    return json.loads(path.read_text())


def assert_equal_errors(one: Path, other: Path, tolerance: float) -> None:
    """Of each net, of the average and of its centre crop."""
    for found, expected in zip(rates_in(one), rates_in(other), strict=True):
        assert found == pytest.approx(expected, rel=tolerance)


def rates_in(path: Path) -> list[dict[str, float]]:
    errors = read(path)
    nested = [*errors.pop("each"), errors.pop("centre_crop", {}), errors]
    return [{name: value for name, value in rates.items() if name != "file"} for rates in nested]


@pytest.mark.parametrize("crops", [1, 10])
def test_two_nets_alone_and_averaged_equal_a_plain_loop(
    tree: Path, nets: list[Path], crops: int, tmp_path: Path
) -> None:
    files = {
        "--json": tmp_path / "errors.json",
        "--predictions": tmp_path / "kept.npz",
        "--centre-predictions": tmp_path / "centre.npz",
        "--per-class": tmp_path / "c.csv",
    }
    ended = here(
        EVALUATE, *nets, "--data", tree, "--crops", crops, *HOW, *(word for pair in files.items() for word in pair)
    )
    assert (ended.code, ended.err) == (0, "")
    val = open_dataset(tree, "val")
    alone = [by_hand(path, val, crops) for path in nets]
    errors = read(tmp_path / "errors.json")
    assert (errors["images"], errors["crops"]) == (21, crops)
    for reported, outputs in zip([*errors["each"], errors], [*alone, np.mean(alone, 0)], strict=True):
        assert reported["top1_error"] == pytest.approx(error_by_hand(outputs, val.labels, 1))
        assert reported["top5_error"] == pytest.approx(error_by_hand(outputs, val.labels, 5))
        assert reported["loss"] == pytest.approx(nats_by_hand(outputs, val.labels), rel=1e-4)
    np.testing.assert_allclose(Predictions.load(files["--predictions"]).probabilities, np.mean(alone, 0), atol=1e-4)
    centre = Predictions.load(files["--centre-predictions"])
    assert centre.crops == 1
    if crops == 10:
        assert vars(centre.error_rates()) == pytest.approx(errors["centre_crop"])
    by_class = list(csv.DictReader(files["--per-class"].read_text().splitlines()))
    assert sum(float(row["top1_error"]) for row in by_class) / 7 == pytest.approx(errors["top1_error"], abs=1e-3)


@pytest.fixture(scope="module")
def one_process(tree: Path, nets: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where one process left ``errors.json`` and ``kept.npz`` of ten crops."""
    return assess_into(tmp_path_factory.mktemp("one"), lambda *flags: here(EVALUATE, *flags), tree, nets)


def assess_into(directory: Path, start: Callable[..., Ended], tree: Path, nets: list[Path], *flags: object) -> Path:
    files = ("--json", directory / "errors.json", "--predictions", directory / "kept.npz")
    ended = start(*nets, "--data", tree, "--crops", 10, *HOW, *files, *flags)
    assert ended.code == 0, ended.err
    return directory


@pytest.mark.parametrize(("processes", "placement"), [(4, "split"), (2, "together")], ids=["two pairs", "replicas"])
def test_every_layout_counts_every_image_once(
    processes: int, placement: str, tree: Path, nets: list[Path], one_process: Path, tmp_path: Path
) -> None:
    start = partial(on_ranks, processes, EVALUATE)
    assess_into(tmp_path, start, tree, nets, "--placement", placement)
    assert_equal_errors(tmp_path / "errors.json", one_process / "errors.json", 1e-4)
    one, many = (Predictions.load(directory / "kept.npz") for directory in (one_process, tmp_path))
    np.testing.assert_allclose(many.probabilities, one.probabilities, atol=1e-4)


def test_kept_predictions_average_to_the_same_errors(tree: Path, nets: list[Path], tmp_path: Path) -> None:
    kept = [tmp_path / f"{path.stem}.npz" for path in nets]
    for path, file in zip(nets, kept, strict=True):
        assert here(EVALUATE, path, "--data", tree, *HOW, "--predictions", file).code == 0
    weights = ("--weights", 2, 1)
    assert here(EVALUATE, *nets, "--data", tree, *HOW, *weights, "--json", tmp_path / "nets.json").code == 0
    assert here(EVALUATE, "--average", *kept, *weights, "--json", tmp_path / "files.json").code == 0
    assert_equal_errors(tmp_path / "files.json", tmp_path / "nets.json", 1e-6)


def test_bad_input_is_one_line_and_code_2(tree: Path, nets: list[Path], tmp_path: Path) -> None:
    cut, foreign, other = tmp_path / "cut.pt", tmp_path / "foreign.pt", write_tree(tmp_path / "other", 6, 1, 3)
    cut.write_bytes(nets[0].read_bytes()[:5000])
    torch.save({"model": {}}, foreign)
    renamed = write_tree(tmp_path / "renamed", 7, 1, 1)
    for split in ("train", "val"):
        (renamed / split / "class3").rename(renamed / split / "class3b")
    data = ("--data", tree)
    recipe = paper_recipe(width=NARROW, image_size=240, crop_offsets=17)
    smaller = write_checkpoint(tmp_path / "smaller.pt", open_dataset(tree, "val"), recipe=recipe)
    kept = [tmp_path / "tree.npz", tmp_path / "other.npz"]
    assert here(EVALUATE, nets[0], *data, *HOW, "--predictions", kept[0]).code == 0
    Predictions(np.eye(7, dtype=np.float32), np.arange(7), ["x"] * 7, 1, "elsewhere").save(kept[1])
    for flags, reason in (
        ((cut, *data), f"{cut}: not a whole checkpoint"),
        ((tmp_path, *data), f"{tmp_path}: no such checkpoint"),
        ((foreign, *data), f"{foreign}: not a checkpoint of this project"),
        ((nets[0], "--data", other), f"--data {other}: has 6 classes, the checkpoint's net 7"),
        ((nets[0], "--data", renamed), "class 3 is 'class3b', the checkpoint's is 'class3'"),
        ((nets[0], smaller, *data), f"{smaller}: reads images of 240 pixels"),
        (("--average", *kept), f"{kept[1]}: for another data set"),
        (("--average", cut), f"{cut}: not predictions"),
        (("--average", kept[0], "--weights", 1, 2), "--weights: 2 given for 1"),
        (("--average", kept[0], "--crops", 10), "--crops: says nothing to --average"),
        ((), "give either checkpoints or --average"),
        ((nets[0], *data, "--json", tmp_path / "absent" / "a.json"), "--json: "),
        ((nets[0], *data, "--crops", 5), "--crops: invalid choice"),
        ((nets[0], *data, "--batch-size", 0), "--batch-size"),
        ((nets[0], *data, "--threads", 100_000), "--threads 100000: must be"),
    ):
        ended = here(EVALUATE, *flags)
        assert (ended.code, ended.out) == (2, ""), flags
        assert ended.err.startswith("error: ") and ended.err.count("\n") == 1 and reason in ended.err
