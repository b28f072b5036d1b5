"""fc7 in a file, and the search through it."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from checkpoints import write_checkpoint
from running import write_tree

from alexnet2012 import load_checkpoint
from alexnet2012.core.errors import InputError
from alexnet2012.data import open_dataset
from alexnet2012.data.dataset import load, spread
from alexnet2012.evaluation import features
from alexnet2012.evaluation.evaluate import EvaluationSettings
from alexnet2012.evaluation.features import features_file, nearest


def test_the_file_holds_fc7_of_every_image_in_order(tmp_path: Path) -> None:
    train = open_dataset(write_tree(tmp_path / "tree", classes=3, train=3, val=1), "train")
    net = load_checkpoint(write_checkpoint(tmp_path / "net.pt", train), "cpu")
    train = train.with_statistics(net.statistics)
    path = features_file(net, train, tmp_path, EvaluationSettings(batch_size=4))
    rows = np.load(path, mmap_mode="r")
    for index in range(len(train)):
        pixels = load(train, index)[0][16:240, 16:240].astype(np.float32) - net.statistics.mean[16:240, 16:240]
        with torch.no_grad():
            expected = net(torch.from_numpy(pixels.transpose(2, 0, 1)[None].copy()), return_features=True)[1]["fc7"]
        np.testing.assert_allclose(rows[index], expected[0], atol=1e-4)
    before = path.stat().st_mtime_ns
    assert features_file(net, train, tmp_path, EvaluationSettings(batch_size=4)) == path
    assert path.stat().st_mtime_ns == before  # found, not extracted again
    assert features_file(net, spread(train, 4), tmp_path, EvaluationSettings()) != path
    other = dataclasses.replace(net.statistics, mean=net.statistics.mean + 1)
    assert features_file(net, train.with_statistics(other), tmp_path, EvaluationSettings()) != path


@pytest.mark.parametrize("damage", ["emptied", "cut", "flipped"])
def test_a_damaged_file_is_made_anew(damage: str, tmp_path: Path) -> None:
    train = open_dataset(write_tree(tmp_path / "tree", classes=3, train=1, val=1), "train")
    net = load_checkpoint(write_checkpoint(tmp_path / "net.pt", train), "cpu")
    train = train.with_statistics(net.statistics)
    path = features_file(net, train, tmp_path, EvaluationSettings())
    whole = path.read_bytes()
    flipped = whole[:-100] + bytes([whole[-100] ^ 1]) + whole[-99:]
    path.write_bytes({"emptied": b"", "cut": whole[:-4], "flipped": flipped}[damage])
    assert features_file(net, train, tmp_path, EvaluationSettings()) == path
    assert path.read_bytes() == whole
    path.unlink()
    path.mkdir()
    with pytest.raises(InputError, match=f"{path.name}: is not a file"):
        features_file(net, train, tmp_path, EvaluationSettings())


def test_the_nearest_are_those_of_all_distances(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(features, "ROWS", 7)
    random = np.random.default_rng(0)
    rows, queries = random.random((100, 12), np.float32), random.random((3, 12), np.float32)
    np.save(tmp_path / "rows.npy", rows)
    distances, found = nearest(torch.from_numpy(queries), tmp_path / "rows.npy", 6)
    all_distances = np.sqrt(((queries[:, None].astype(np.float64) - rows) ** 2).sum(2))
    np.testing.assert_array_equal(found, all_distances.argsort(1)[:, :6])
    np.testing.assert_allclose(distances, np.sort(all_distances, 1)[:, :6], rtol=1e-5)


def test_chosen_images_are_spread_over_the_data_set(tmp_path: Path) -> None:
    train = open_dataset(write_tree(tmp_path, classes=3, train=4, val=1), "train").with_statistics(None)
    chosen = spread(train, 3)
    assert [chosen[index] for index in range(3)] == [train[index] for index in (2, 6, 10)]
    assert chosen.name(1) == train.name(6)
    assert spread(train, 12) is train
