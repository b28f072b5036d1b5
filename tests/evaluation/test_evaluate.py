"""The pass of a data set through a net: what is shown, how often, and how it is counted."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from checkpoints import NARROW, by_hand, error_by_hand, nats_by_hand, write_checkpoint
from running import write_tree

from alexnet2012 import load_checkpoint, paper_recipe, source_recipe
from alexnet2012.data import Dataset, open_dataset
from alexnet2012.data.datasets import TreeDataset
from alexnet2012.data.statistics import Statistics
from alexnet2012.distributed.layout import Layout
from alexnet2012.evaluation.crops import crop_offsets, crops_of
from alexnet2012.evaluation.evaluate import EvaluationSettings, assess, evaluate, evaluating, outputs, softmax
from alexnet2012.network.reference import NETS


@pytest.fixture(scope="module")
def val(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return open_dataset(write_tree(tmp_path_factory.mktemp("tree"), classes=6, train=1, val=3), "val")


def test_ten_crops_are_corners_centre_and_their_reflections() -> None:
    offsets = [(0, 0), (0, 32), (32, 0), (32, 32), (16, 16)]
    expected = [(*offset, False) for offset in offsets] + [(*offset, True) for offset in offsets]
    assert crop_offsets(paper_recipe(), 10) == expected
    assert crop_offsets(paper_recipe(), 1) == [(16, 16, False)]
    corners = {offset[:2] for offset in crop_offsets(NETS["conv-local-13pct"].recipe(), 10)}
    assert corners == {(0, 0), (0, 8), (8, 0), (8, 8), (4, 4)}


RECIPES = [paper_recipe(), source_recipe(), NETS["conv-local-13pct"].recipe()]


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.name)
@pytest.mark.parametrize("crops", [1, 10])
def test_crops_of_an_image(recipe, crops: int) -> None:
    random, side, size = np.random.default_rng(0), recipe.image_size, recipe.crop_size
    edge = (side - size) // 2
    image, mean = random.integers(0, 256, (side, side, 3)).astype(np.uint8), random.random((side, side, 3)) * 255
    on_device = dataclasses.replace(Statistics.none(), mean=mean).mean_on("cpu")
    shown = list(crops_of(torch.from_numpy(image)[None], on_device, recipe, crops))
    assert len(shown) == crops
    for view, (top, left, reflected) in zip(shown, crop_offsets(recipe, crops), strict=True):
        crop, under = image[top : top + size, left : left + size], mean[top : top + size, left : left + size]
        if reflected:
            crop, under = crop[:, ::-1], under[:, ::-1]
        expected = crop - (mean[edge : edge + size, edge : edge + size] if recipe.mean_central else under)
        np.testing.assert_allclose(view[0].permute(1, 2, 0).numpy(), expected, atol=1e-4)


@pytest.mark.parametrize("recipe", [paper_recipe(width=NARROW), source_recipe(width=NARROW)], ids=lambda r: r.name)
@pytest.mark.parametrize("crops", [1, 10])
def test_the_errors_are_those_of_a_plain_loop(recipe, crops: int, val: Dataset, tmp_path: Path) -> None:
    path = write_checkpoint(tmp_path / "net.pt", val, recipe=recipe)
    expected = by_hand(path, val, crops)
    net = load_checkpoint(path, "cpu")
    rates = evaluate(net, Layout(), val.with_statistics(net.statistics), EvaluationSettings(crops, batch_size=5))
    assert rates.images == len(val) == 18
    assert 0 < error_by_hand(expected, val.labels, 1) < 100
    assert rates.top1_error == pytest.approx(error_by_hand(expected, val.labels, 1))
    assert rates.top5_error == pytest.approx(error_by_hand(expected, val.labels, 5))
    assert rates.loss == pytest.approx(nats_by_hand(expected, val.labels), rel=1e-5)


def test_ten_crops_decode_each_image_once(val: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    net = load_checkpoint(write_checkpoint(tmp_path / "net.pt", val), "cpu")
    read: list[int] = []
    original = TreeDataset.encoded

    def counting(dataset: TreeDataset, index: int) -> bytes:
        read.append(index)
        return original(dataset, index)

    monkeypatch.setattr(TreeDataset, "encoded", counting)
    evaluate(net, Layout(), val.with_statistics(net.statistics), EvaluationSettings(10, batch_size=5))
    assert sorted(read) == list(range(len(val)))


def test_the_centre_crop_is_one_of_the_ten(val: Dataset, tmp_path: Path) -> None:
    net = load_checkpoint(write_checkpoint(tmp_path / "net.pt", val), "cpu")
    data = val.with_statistics(net.statistics)
    one, ten = (
        torch.cat(
            [scores[0] for scores, _ in outputs([net], [net.statistics], Layout(), data, EvaluationSettings(crops, 9))],
            1,
        )
        for crops in (1, 10)
    )
    torch.testing.assert_close(ten[1], one[0])
    assert not torch.allclose(ten[0], one[0])


@pytest.mark.parametrize(("keep", "rank"), [((), 0), ((1, 10), 0), ((1, 10), 1)])
def test_probabilities_are_kept_where_they_are_wanted_and_on_rank_0_alone(
    keep: tuple[int, ...], rank: int, val: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    net = load_checkpoint(write_checkpoint(tmp_path / "net.pt", val), "cpu")
    monkeypatch.setattr(Layout, "is_main", rank == 0)
    assessment = assess([net], [net.statistics], [1.0], Layout(), val, EvaluationSettings(10, 5), keep)
    assert set(assessment.predictions) == (set(keep) if rank == 0 else set())
    for crops, kept in assessment.predictions.items():
        assert kept.crops == crops and vars(kept.error_rates()) == pytest.approx(vars(assessment.average[crops]))


def test_the_mode_of_the_net_is_left_alone(val: Dataset, tmp_path: Path) -> None:
    net = load_checkpoint(write_checkpoint(tmp_path / "net.pt", val), "cpu").train()
    evaluate(net, Layout(), val.with_statistics(net.statistics), EvaluationSettings())
    assert net.training and all(tower.training for tower in net.held)
    with pytest.raises(RuntimeError, match="stop"), evaluating(net):
        raise RuntimeError("stop")
    assert net.training and torch.is_grad_enabled()


def test_a_logit_that_is_no_number_spoils_its_row_only() -> None:
    logits = torch.tensor([[1.0, 2.0, -float("inf")], [1.0, 2.0, 3.0]])
    shares = softmax(logits)
    assert shares[0].isnan().all()
    torch.testing.assert_close(shares[1], logits[1].softmax(0))
