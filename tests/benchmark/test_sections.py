"""What the sections time does the work that they say."""

from __future__ import annotations

import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest
import torch

from alexnet2012.benchmark import exchange, growth, loading, lrn, training_step
from alexnet2012.benchmark.synthetic import prepared_and_files
from alexnet2012.data import open_dataset
from alexnet2012.network.summary import describe
from alexnet2012.recipe import paper_recipe

CPU = torch.device("cpu")


def test_operations_of_a_step_are_the_references() -> None:
    assert training_step.operations(paper_recipe()) == pytest.approx(4.14e9, rel=0.005)


def test_the_product_has_as_many_operations_as_a_step(monkeypatch: pytest.MonkeyPatch) -> None:
    done, mm = [], torch.mm

    def count(a: torch.Tensor, b: torch.Tensor, out: torch.Tensor | None = None) -> torch.Tensor:
        if out is None:  # of the layers, which are counted on the way
            return mm(a, b)
        done.append(2 * a.shape[0] * a.shape[1] * b.shape[1])
        return out

    monkeypatch.setattr(torch, "mm", count)
    training_step.product(8, CPU, "fp32")()
    assert sum(done) == pytest.approx(8 * training_step.operations(paper_recipe()), rel=0.005)


def test_their_lrn_is_the_same_function() -> None:
    x, gradient = torch.randn(2, 48, 5, 5) * 50, torch.randn(2, 48, 5, 5)
    x.requires_grad_()
    ours, theirs = lrn.LocalResponseNorm(), lrn.their_lrn()
    torch.testing.assert_close(ours(x), theirs(x))
    for passed in ("backward", "both"):
        (one,), (other,) = (lrn.work(one, x, gradient, passed)() for one in (ours, theirs))
        torch.testing.assert_close(one, other)


def test_the_usual_net_has_the_usual_number_of_parameters() -> None:
    """An ungrouped net of the paper's kernels: 62,378,344."""
    with torch.device("meta"):
        net = training_step.usual_net()
    assert sum(weight.numel() for weight in net.parameters()) == 62_378_344


def test_the_exchanges_are_those_of_the_net() -> None:
    sent = exchange.sent(1, CPU)
    assert [x.numel() for x in sent] == [layer.exchanged for layer in describe(paper_recipe()) if layer.exchanged][:-1]


def test_a_step_without_communication_computes_the_same_shapes() -> None:
    mirror = exchange.Mirror(1)
    assert mirror.gather_channels([torch.zeros(2, 3, 4, 4)], "conv3")[0].shape == (2, 6, 4, 4)
    assert mirror.gather_logits([torch.zeros(2, 4)], "fc8", 7).shape == (2, 7)


def test_loaders_read_the_same_files(tmp_path: Path) -> None:
    with prepared_and_files(images=32) as (prepared, files):
        shards, tree = open_dataset(prepared, "train"), open_dataset(files, "train")
        assert sorted(shards[i] for i in range(32)) == sorted(tree[i] for i in range(32))
        assert 26_000 < sum(len(shards[i][0]) for i in range(32)) / 32 < 32_000  # bytes: ImageNet's have 29,000
        loading.decoding(files, 2)()
    assert not prepared.exists()


def test_a_larger_index_repeats_the_same_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with prepared_and_files(images=32) as (prepared, _):
        monkeypatch.chdir(prepared.parent)
        for images in (40, 1000):
            growth.enlarge(Path(prepared.name), tmp_path, images)
            large, small = open_dataset(tmp_path, "train"), open_dataset(prepared, "train")
            assert len(large) == images
            assert large[images - 1] == small[(images - 1) % 32]
        assert len(small) == 32


def test_the_memory_of_an_index_is_seen_from_a_larger_process_too(tmp_path: Path) -> None:
    with prepared_and_files(images=32) as (prepared, _):
        held = b"1" * 10**9  # written, so that it is held
        growth.enlarge(prepared, tmp_path, 10**6)
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
            _, megabytes = process.submit(growth.opened, tmp_path, 10**6).result()
        assert len(held) / 1e6 > megabytes > 10
