"""One, two and four processes, and replicas of both towers, train the same net."""

from __future__ import annotations

import functools
import json
from pathlib import Path

import pytest
import torch
from running import SMALL, TRAIN, here, last, losses, on_ranks, rows, tensors, torchrun, write_tree

from alexnet2012.evaluation import checkpoint

EVALUATE = TRAIN.with_name("evaluate.py")
HOLDINGS = Path(__file__).with_name("train_and_record_holdings.py")
ADAM = Path(__file__).with_name("train_with_adam.py")
COMPILED = Path(__file__).with_name("train_compiled.py")
GOLDEN = Path(__file__).with_name("golden_losses.json")
LAYOUTS = {"two": (2, ()), "four": (4, ()), "together": (2, ("--placement", "together"))}


@pytest.fixture(scope="module", params=LAYOUTS)
def other(request: pytest.FixtureRequest, tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of ``one_process`` in another layout."""
    processes, flags = LAYOUTS[request.param]
    run = tmp_path_factory.mktemp("runs") / request.param
    ended = on_ranks(processes, HOLDINGS, *SMALL, *flags, "--data", tree, "--out", run, "--max-steps", 20)
    assert ended.code == 0, ended.err
    return run


def test_losses_are_those_of_one_process(one_process: Path, other: Path) -> None:
    """Dropout, crops, reflections and colour noise on; five classes. Float32 sums in another order: 1e-4."""
    expected = losses(one_process)
    assert list(expected) == list(range(1, 21))
    assert losses(other) == pytest.approx(expected, rel=1e-4)


def test_weights_and_velocities_are_those_of_one_process(one_process: Path, other: Path) -> None:
    """Losses of 20 small steps would not show a gradient counted twice; velocities do.

    To 1 % of a tensor's largest: conv1's biases sum 3,025 places that nearly cancel, in float32 in another order.
    """
    expected, saved = tensors(last(one_process)), tensors(last(other))
    assert saved.keys() == expected.keys()
    for name, value in expected.items():
        assert (saved[name] - value).abs().max() <= 0.01 * value.abs().max(), name


def test_adam_goes_on_in_one_layout_from_what_the_other_saved(tree: Path, tmp_path: Path) -> None:
    whole, run = tmp_path / "whole", tmp_path / "run"
    flags = (*SMALL, "--data", tree, "--out")
    assert here(ADAM, *flags, whole, "--max-steps", 6).code == 0
    assert here(ADAM, *flags, run, "--max-steps", 2).code == 0
    ended = on_ranks(2, ADAM, *flags, run, "--max-steps", 4)
    assert ended.code == 0, ended.err
    kinds = {"step", "exp_avg", "exp_avg_sq"}
    assert last(run)["optimizer"].keys() == kinds
    assert all(last(run)["optimizer"][kind].keys() == last(whole)["weights"].keys() for kind in kinds)
    assert {step.item() for step in last(run)["optimizer"]["step"].values()} == {4}
    assert here(ADAM, *flags, run, "--max-steps", 6).code == 0
    assert losses(run) == pytest.approx(losses(whole), rel=1e-4)


@pytest.fixture(scope="module")
def in_bf16(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("runs") / "bf16"
    ended = here(TRAIN, *SMALL, "--precision", "bf16", "--data", tree, "--out", run, "--max-steps", 8)
    assert (ended.code, ended.err) == (0, "")
    return run


@pytest.mark.parametrize("layout", ["two", "together"])
def test_in_bf16_losses_are_those_of_one_process(layout: str, in_bf16: Path, tree: Path, tmp_path: Path) -> None:
    """Replicas add their gradients in float32, one process rounds their sum to eight bits."""
    flags = (*SMALL, "--precision", "bf16", "--data", tree, "--out", tmp_path / "run", "--max-steps", 8)
    processes, placement = LAYOUTS[layout]
    ended = on_ranks(processes, TRAIN, *flags, *placement)
    assert ended.code == 0, ended.err
    assert losses(tmp_path / "run") == pytest.approx(losses(in_bf16), rel=1e-3)


def test_in_bf16_losses_are_near_those_in_fp32(in_bf16: Path, one_process: Path) -> None:
    expected = losses(one_process)
    assert losses(in_bf16) == pytest.approx({step: expected[step] for step in range(1, 9)}, rel=1e-2)


def test_adam_trains_in_bf16(tree: Path, tmp_path: Path) -> None:
    """With gradients that torch has converted for it: near its steps in fp32."""
    for precision in ("fp32", "bf16"):
        flags = ("--precision", precision, "--data", tree, "--out", tmp_path / precision, "--max-steps", 4)
        ended = here(ADAM, *SMALL, *flags)
        assert ended.code == 0, ended.err
    assert losses(tmp_path / "bf16") == pytest.approx(losses(tmp_path / "fp32"), rel=2e-2)
    assert losses(tmp_path / "bf16") != losses(tmp_path / "fp32")


def test_validation_counts_every_image_once(one_process: Path, other: Path) -> None:
    """The mean loss tells: an image counted twice, or in the place of another, moves it by 1.6e-6 or more."""
    expected, found = ({row["step"]: row for row in rows(run) if "val_loss" in row} for run in (one_process, other))
    assert list(expected) == list(found) == [6, 12, 18]
    for step, ours in expected.items():
        assert found[step]["val_loss"] == pytest.approx(ours["val_loss"], rel=0, abs=5e-7)
        assert found[step]["train_loss"] == pytest.approx(ours["train_loss"], rel=1e-4)
        assert ours["val_top5_error"] == found[step]["val_top5_error"] == 0  # of five classes
        assert abs(ours["val_top1_error"] - found[step]["val_top1_error"]) <= 100 / 15 + 1e-9  # one near tie of 15


def test_a_net_of_one_tower_is_whole_in_each_process_by_itself(tree: Path, tmp_path: Path) -> None:
    how = ("--data", tree, "--loader", "pillow", "--batch-size", 6)
    trained = on_ranks(2, TRAIN, *how, "--out", tmp_path / "run", "--net", "lenet-relu", "--max-steps", 1)
    assert trained.code == 0, trained.err
    assert "2 processes, the net in each process, 2 replicas" in trained.out
    last = tmp_path / "run" / "checkpoints" / "last.pt"
    evaluated = on_ranks(2, EVALUATE, last, *how, "--json", tmp_path / "two.json")
    assert evaluated.code == 0, evaluated.err
    assert "2 processes, the net in each process, 2 replicas" in evaluated.out
    assert "; 1 threads a process" in evaluated.out
    assert here(EVALUATE, last, *how, "--json", tmp_path / "one.json").code == 0
    one, two = (json.loads((tmp_path / f"{name}.json").read_text()) for name in ("one", "two"))
    assert two["loss"] == pytest.approx(one["loss"], rel=0, abs=1e-6)  # as above: every image once
    assert (two["top1_error"], two["top5_error"], two["images"]) == (one["top1_error"], one["top5_error"], 15)


def test_each_process_holds_its_towers_and_nothing_else(one_process: Path, other: Path) -> None:
    whole = set(checkpoint.load(one_process / "checkpoints" / "last.pt")["weights"])
    held = [json.loads(path.read_text()) for path in sorted(other.glob("held-*.json"))]
    assert len(held) == LAYOUTS[other.name][0]
    for rank, names in enumerate(held):
        own = {name for name in whole if other.name == "together" or name.startswith(f"towers.{rank % 2}.")}
        assert set(names["parameters"]) == set(names["velocities"]) == own


def test_the_losses_are_the_recorded_ones_in_one_process_and_in_two(tmp_path: Path) -> None:
    """On the sample."""
    recorded = dict(enumerate(json.loads(GOLDEN.read_text())["losses"], start=1))
    flags = (*SMALL, "--workers", 2, "--data", "sample", "--batch-size", 16, "--max-steps", 20)
    one, two = tmp_path / "one", tmp_path / "two"
    ended = here(TRAIN, *flags, "--out", one)
    assert (ended.code, ended.err) == (0, "")
    assert losses(one) == pytest.approx(recorded, rel=1e-4)

    ended = torchrun(2, TRAIN, *flags, "--out", two)
    assert ended.code == 0, ended.err
    assert losses(two) == pytest.approx(recorded, rel=1e-4)


def test_a_short_batch_is_the_same_in_two_replicas_of_which_one_has_no_row_of_it(tmp_path: Path) -> None:
    """Recipe source: 25 images in batches of 8, 8, 8 and 1, which is replica 1's; replica 0 reports."""
    data = write_tree(tmp_path / "data", train=5)
    flags = (*SMALL, "--recipe", "source", "--data", data, "--batch-size", 8, "--max-steps", 5)
    one, two = tmp_path / "one", tmp_path / "two"
    ended = here(TRAIN, *flags, "--out", one), on_ranks(2, TRAIN, *flags, "--placement", "together", "--out", two)
    assert [each.code for each in ended] == [0, 0], ended
    assert list(losses(one)) == [1, 2, 3, 4, 5] and losses(two) == pytest.approx(losses(one), rel=1e-4)


def test_dali_feeds_one_process_and_two_alike(one_process: Path, tree: Path, tmp_path: Path) -> None:
    """Resized pixels differ from Pillow's by a rounding, so the Pillow loader's losses are near, not equal."""
    flags = (*SMALL, "--loader", "dali", "--data", tree, "--max-steps", 8)
    one, two = tmp_path / "one", tmp_path / "two"
    ended = here(TRAIN, *flags, "--out", one), on_ranks(2, TRAIN, *flags, "--out", two)
    assert [each.code for each in ended] == [0, 0], ended
    assert losses(two) == pytest.approx(losses(one), rel=1e-4)
    with_torch = losses(one_process)
    assert losses(one) == pytest.approx({step: with_torch[step] for step in range(1, 9)}, rel=0.01)


@pytest.mark.parametrize(("processes", "precision"), [(1, "fp32"), (2, "fp32"), (1, "bf16")])
def test_a_compiled_net_computes_the_same(
    processes: int, precision: str, one_process: Path, in_bf16: Path, tree: Path, tmp_path: Path
) -> None:
    """Traced with inductor's graphs, executed by torch: the C++ alone would take minutes."""
    flags = (*SMALL, "--data", tree, "--out", tmp_path / "run", "--max-steps", 8, "--compile", "--precision", precision)
    ended = on_ranks(processes, COMPILED, *flags)
    assert ended.code == 0, ended.err
    graphs = 1 if processes == 1 else 9  # of a rank: the net, or the padded images and the layers between the crossings
    assert ended.out.count("traced a graph") == graphs * processes and "recompile" not in ended.err
    expected = losses(one_process if precision == "fp32" else in_bf16)
    tolerance = 1e-4 if precision == "fp32" else 1e-2
    assert losses(tmp_path / "run") == pytest.approx({step: expected[step] for step in range(1, 9)}, rel=tolerance)


def test_a_net_that_cannot_be_compiled_is_reported(tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_compiler(graph: object, inputs: object) -> None:
        raise OSError("no compiler here")

    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend=no_compiler))
    ended = here(TRAIN, *SMALL, "--data", tree, "--out", tmp_path / "run", "--max-steps", 2, "--compile")
    assert ended.code == 2 and "no compiler here" in ended.err and ended.err.count("\n") == 1
    assert "error: --compile: torch cannot compile the net here" in ended.err


@pytest.mark.cuda
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_cuda_graphs_compute_the_same(precision: str, tree: Path, tmp_path: Path) -> None:
    """Eight steps past the warm-up of CUDA graphs, whose replays then stand for the kernels."""
    flags = (*SMALL, "--data", tree, "--max-steps", 16, "--precision", precision)
    for name, more in (("eager", ()), ("compiled", ("--compile",))):
        ended = here(TRAIN, *flags, "--out", tmp_path / name, *more)
        assert (ended.code, ended.err) == (0, "")
    tolerance = 1e-4 if precision == "fp32" else 2e-2
    assert losses(tmp_path / "compiled") == pytest.approx(losses(tmp_path / "eager"), rel=tolerance)
