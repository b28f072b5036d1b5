"""What a run reads of its own directory."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from running import write_tree

from alexnet2012 import paper_recipe
from alexnet2012.core.errors import InputError
from alexnet2012.data import open_dataset
from alexnet2012.distributed.layout import Layout
from alexnet2012.training.run import training_statistics
from alexnet2012.training.run_directory import RunDirectory
from alexnet2012.training.settings import Settings


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def spoil(path: Path) -> None:
    arrays = dict(np.load(path))
    arrays["mean"][3, 4, 1] = np.nan
    np.savez(path, **arrays)


@pytest.mark.parametrize("damage", [cut, spoil, lambda path: path.write_bytes(b""), Path.unlink])
def test_damaged_statistics_are_measured_anew(damage: Callable[[Path], object], tmp_path: Path) -> None:
    train = open_dataset(write_tree(tmp_path / "tree", classes=2, train=2, val=1), "train")
    run, settings = RunDirectory(tmp_path), Settings(str(tmp_path / "tree"), paper_recipe(), loader="pillow")
    measured = training_statistics(train, Layout(), run, settings)
    whole = run.statistics.read_bytes()
    damage(run.statistics)
    again = training_statistics(train, Layout(), run, settings)
    assert np.array_equal(again.mean, measured.mean) and run.statistics.read_bytes() == whole


@pytest.mark.parametrize("make", [os.mkfifo, Path.mkdir, lambda path: path.symlink_to("/dev/zero")])
def test_what_is_no_file_of_statistics_is_named(make: Callable[[Path], object], tmp_path: Path) -> None:
    train = open_dataset(write_tree(tmp_path / "tree", classes=2, train=1, val=1), "train")
    make(tmp_path / "statistics.npz")
    with pytest.raises(InputError, match=r"statistics.npz: is not a file"):
        training_statistics(train, Layout(), RunDirectory(tmp_path), Settings("tree", paper_recipe(), loader="pillow"))


def test_the_sample_is_the_embedded_one_whatever_lies_in_the_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    named = {name: Settings(name, paper_recipe()).identity()["data"] for name in ("sample", "fashion-mnist", "cifar10")}
    for name in named:
        (tmp_path / name).mkdir()
        assert Settings(name, paper_recipe()).identity()["data"] == named[name] == name
        assert Settings(f"./{name}", paper_recipe()).identity()["data"] == str(tmp_path / name)
