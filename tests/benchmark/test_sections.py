"""What the sections time does the work that they say."""

from __future__ import annotations

import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from alexnet2012.benchmark import compare, exchange, growth, loading, lrn, parts, training_step
from alexnet2012.benchmark.synthetic import prepared_and_files, refuse_small, write_ppm
from alexnet2012.core.errors import InputError
from alexnet2012.data import open_dataset
from alexnet2012.data.dataset import load
from alexnet2012.network.summary import describe
from alexnet2012.recipe import paper_recipe
from alexnet2012.reporting.figures.roofline import draw_parts

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


def test_the_ppm_set_has_the_pixels_of_the_jpeg_set(tmp_path: Path) -> None:
    with prepared_and_files(images=16) as (prepared, files):
        raw, of_jpegs = open_dataset(write_ppm(files, tmp_path / "ppm"), "train"), open_dataset(prepared, "train")
        pixels, others = ({load(of, i)[0].tobytes() for i in range(16)} for of in (raw, of_jpegs))
        assert raw.raw and pixels == others
        with pytest.raises(InputError, match=r"ppm: holds PPMs; one of JPEGs is timed"):
            refuse_small(tmp_path / "ppm")


def test_threads_begun_on_one_core_stay_there() -> None:
    before = os.sched_getaffinity(0)
    with compare.on_one_core(), ThreadPoolExecutor(1) as pool:
        assert len(pool.submit(os.sched_getaffinity, 0).result()) == 1
    assert os.sched_getaffinity(0) == before


COMMAND = """
import json, sys, time
from pathlib import Path
time.sleep(0.2)
print("run", "step 1/60  epoch 1", sep="\\n", flush=True)
run = Path(sys.argv[sys.argv.index("--out") + 1])
run.mkdir()
rows = [{"step": step, "data_wait": 0.5 if step <= 20 else 0.01} for step in range(1, 61)] + [{"step": 60}]
(run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\\n" for row in rows))
"""


def test_the_start_is_timed_and_the_wait_read_after_it(tmp_path: Path) -> None:
    command = tmp_path / "train.py"
    command.write_text(COMMAND)
    first, wait = loading.start_figures(command)
    assert 0.2 < first.ours < first.theirs == 6 and first.unit == "s" and first.ratio == first.theirs / first.ours > 1
    assert (wait.ours, wait.theirs, wait.unit) == (pytest.approx(1), 2, "%")
    command.write_text("raise SystemExit(1)")
    with pytest.raises(InputError, match=r"start: .*train.py failed"):
        list(loading.start_figures(command))


def test_a_step_is_divided_into_its_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "paper_recipe", lambda **numbers: paper_recipe(width=0.0625, **numbers))
    monkeypatch.setattr(parts, "BATCH", {"cpu": 4})
    step = parts.parts_of_step(CPU, "fp32")
    assert step.keys() == {*parts.PARTS.values(), parts.REST} and all(spent > 0 for spent in step.values())
    assert list(step.values()) == sorted(step.values(), reverse=True)
    figure = draw_parts("a step", {"fp32": step, "bf16": step})
    assert len(figure.axes) == 2 and len(figure.axes[0].patches) == len(step)


def test_the_scaled_peer_has_a_quarter_of_the_kernels_and_neurons() -> None:
    net = training_step.scaled_torchvision(0.25)
    shapes = [tuple(weight.shape[:2]) for name, weight in net.named_parameters() if name.endswith("weight")]
    assert shapes == [(16, 3), (48, 16), (96, 48), (64, 96), (64, 64), (1024, 2304), (1024, 1024), (1000, 1024)]
    assert net(torch.zeros(1, 3, 224, 224)).shape == (1, 1000)
