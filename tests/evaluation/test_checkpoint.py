"""Checkpoint files: whole or refused, never run as code, and named so that a run always finds the newest whole one."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from checkpoints import run_contents, some_statistics
from running import tensors

from alexnet2012 import AlexNet, paper_recipe, recipe, source_recipe
from alexnet2012.core.errors import InputError
from alexnet2012.distributed.layout import Layout
from alexnet2012.evaluation import checkpoint
from alexnet2012.network.build import parameter_shapes
from alexnet2012.network.reference import NETS
from alexnet2012.training import PaperSGD, checkpoint_store
from alexnet2012.training.checkpoint_store import CheckpointStore
from alexnet2012.training.optimizer import parameter_groups

CONTENTS = run_contents(step=7)
WEIGHT = "towers.1.conv3.weight"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    checkpoint.save(tmp_path / "file.pt", CONTENTS)
    return tmp_path / "file.pt"


def trained_net(seed: int) -> tuple[AlexNet, PaperSGD]:
    net = AlexNet(source_recipe(width=1 / 16), classes=5, seed=seed)
    optimizer = PaperSGD(parameter_groups(net, net.recipe), 0.01)
    net(60 * torch.randn(2, 3, 224, 224), step=0).square().sum().backward()
    optimizer.step()
    return net, optimizer


def test_what_is_saved_is_loaded(file: Path) -> None:
    saved = checkpoint.load(file)
    assert all(torch.equal(value, tensors(CONTENTS)[name]) for name, value in tensors(saved).items())
    assert (saved["recipe"], saved["step"], saved["format"]) == (CONTENTS["recipe"], 7, checkpoint.FORMAT)


def test_a_save_that_fails_leaves_the_old_file(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(contents: Any, stream: Any) -> None:
        stream.write(b"half a ")
        raise OSError(28, "No space left on device")

    before = file.read_bytes()
    monkeypatch.setattr(torch, "save", fail)
    with pytest.raises(OSError, match="No space"):
        checkpoint.save(file, CONTENTS)
    assert file.read_bytes() == before


def test_the_whole_nets_weights_and_velocities_go_through_a_file(tmp_path: Path) -> None:
    net, optimizer = trained_net(seed=1)
    of_run = run_contents(recipe=source_recipe(width=1 / 16))
    checkpoint.save(tmp_path / "net.pt", {**of_run, **checkpoint_store.gather_net(net, optimizer, Layout())})
    saved = checkpoint.load(tmp_path / "net.pt")
    assert saved["weights"].keys() == saved["optimizer"]["velocity"].keys() == dict(net.named_parameters()).keys()

    other, other_optimizer = trained_net(seed=2)
    checkpoint_store.restore_net(other, other_optimizer, saved)
    for weight, expected in zip(other.parameters(), net.parameters(), strict=True):
        assert torch.equal(weight, expected)
        assert torch.equal(other_optimizer.velocity(weight), optimizer.velocity(expected))
        assert optimizer.velocity(expected).abs().max() > 0


def test_what_is_gathered_is_a_copy_that_training_cannot_change() -> None:
    net, optimizer = trained_net(seed=1)
    gathered = checkpoint_store.gather_net(net, optimizer, Layout())
    before = {name: value.clone() for name, value in gathered["weights"].items()}
    optimizer.step()
    assert all(torch.equal(value, before[name]) for name, value in gathered["weights"].items())
    assert any(not torch.equal(value, before[name]) for name, value in net.named_parameters())


def test_velocities_of_an_older_version_are_the_state_of_its_optimizer(tmp_path: Path) -> None:
    for optimizer, kind in (("paper", "velocity"), ("sgd", "momentum_buffer")):
        older = run_contents(recipe=paper_recipe(width=1 / 16, optimizer=optimizer))
        older["velocities"] = older.pop("optimizer")["velocity"]
        checkpoint.save(tmp_path / "older.pt", older)
        saved = checkpoint.load(tmp_path / "older.pt")
        assert "velocities" not in saved and saved["optimizer"].keys() == {kind}
        assert saved["optimizer"][kind].keys() == saved["weights"].keys()
        checkpoint.refuse_incomplete(saved, tmp_path / "older.pt")


@pytest.mark.parametrize(
    ("rule", "kinds"), [(torch.optim.Adam, {"step", "exp_avg", "exp_avg_sq"}), (torch.optim.SGD, set())]
)
def test_the_state_of_torchs_optimizers_goes_through_a_file_and_on_to_the_same_bits(
    rule: type[torch.optim.Optimizer], kinds: set[str], tmp_path: Path
) -> None:
    whole, stopped, resumed = (AlexNet(paper_recipe(width=1 / 16), classes=5) for _ in range(3))
    train(whole, rule(whole.parameters(), lr=1e-3), range(4))
    optimizer = rule(stopped.parameters(), lr=1e-3)
    train(stopped, optimizer, range(2))
    checkpoint.save(tmp_path / "net.pt", run_contents() | checkpoint_store.gather_net(stopped, optimizer, Layout()))
    optimizer = rule(resumed.parameters(), lr=1e-3)
    saved = checkpoint.load(tmp_path / "net.pt")
    assert saved["optimizer"].keys() == kinds
    checkpoint_store.restore_net(resumed, optimizer, saved)
    train(resumed, optimizer, range(2, 4))
    assert all(map(torch.equal, resumed.parameters(), whole.parameters()))


def train(net: AlexNet, optimizer: torch.optim.Optimizer, steps: range) -> None:
    for step in steps:
        optimizer.zero_grad()
        images = 60 * torch.randn(2, 3, 224, 224, generator=torch.Generator().manual_seed(step))
        net(images, step=step).square().mean().backward()
        optimizer.step()


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (lambda weight: [weight], "history of towers.0.conv1.weight: a list, neither a number nor a tensor"),
        (lambda weight: weight.norm(), "history: neither of the shape of conv1.weight nor equal in both towers"),
        (lambda weight: weight.double(), "the history of towers.0.conv1.weight are torch.float64"),
    ],
)
def test_state_that_another_layout_could_not_resume_from_is_refused_by_name(value: Any, said: str) -> None:
    net, optimizer = trained_net(seed=1)
    for weight in net.parameters():
        optimizer.state[weight]["history"] = value(weight.detach())
    with pytest.raises(InputError, match=f"the state of PaperSGD cannot be saved: {said}"):
        checkpoint_store.gather_net(net, optimizer, Layout())


def test_the_recipe_and_the_statistics_go_through_a_file(tmp_path: Path) -> None:
    recipe = source_recipe(width=1 / 16).varied("no-lrn")
    statistics = some_statistics(seed=3)
    contents = {**run_contents(recipe=recipe), **checkpoint.describe_data(["v", "w", "x", "y", "z"], statistics)}
    checkpoint.save(tmp_path / "file.pt", contents)
    saved = checkpoint.load(tmp_path / "file.pt")
    assert checkpoint.recipe_in(saved) == recipe
    assert saved["class_names"] == ["v", "w", "x", "y", "z"]
    for name, value in vars(checkpoint.statistics_in(saved)).items():
        assert np.array_equal(value, vars(statistics)[name])


def changed(path: Path, *keys: str, value: Any) -> None:
    """Replace one thing in a checkpoint; None takes it away."""
    saved = dict(torch.load(path, weights_only=True))
    inner = saved
    for key in keys[:-1]:
        inner[key] = inner = dict(inner[key])
    if value is None:
        del inner[keys[-1]]
    else:
        inner[keys[-1]] = value
    torch.save(saved, path)


def doubled(value: Any, times: int) -> Any:
    """A small file of 2**times values: a tuple or list that holds one twice, and so on; a text as long."""
    for _ in range(times):
        value = value + value if isinstance(value, str) else type(value)((value, value))
    return value


def with_value(value: float) -> torch.Tensor:
    tensor = CONTENTS["weights"][WEIGHT].clone()
    tensor[1, 2, 0, 1] = value
    return tensor


@pytest.mark.parametrize(
    ("keys", "value", "said"),
    [
        (["weights", WEIGHT], with_value(torch.nan), f"the weights of {WEIGHT} are not finite"),
        (["optimizer", "velocity", WEIGHT], with_value(torch.inf), f"the velocity of {WEIGHT} are not finite"),
        (["optimizer", "velocity", WEIGHT], None, "velocity: conv3.weight of one tower is missing"),
        (["optimizer", "velocity", "conv9.weight"], torch.zeros(1), "velocity: conv9.weight is of another net"),
        (["optimizer", "velocity"], "text", "optimizer.*velocity.* is str, not dict"),
        (["weights", WEIGHT], CONTENTS["weights"][WEIGHT].int(), f"the weights of {WEIGHT} are torch.int32 of shape"),
        (
            ["weights", WEIGHT],
            CONTENTS["weights"][WEIGHT].to_sparse(),
            f"the weights of {WEIGHT} are not a dense tensor",
        ),
        (
            ["weights", WEIGHT],
            CONTENTS["weights"][WEIGHT].to("meta"),
            f"the weights of {WEIGHT} are not a dense tensor",
        ),
        (
            ["weights", WEIGHT],
            torch.zeros(1),
            r"are torch.float32 of shape \(1,\), not torch.float32 of \(12, 16, 3, 3\)",
        ),
        (["weights", WEIGHT], torch.zeros(1).expand(12, 16, 3, 3), f"the weights of {WEIGHT} repeat their values"),
        (["weights", WEIGHT], "text", f"the weights of {WEIGHT} are not a dense tensor"),
        (["weights", WEIGHT], None, f"weights: {WEIGHT} is missing"),
        (["weights", "conv9.weight"], torch.zeros(1), "weights: conv9.weight is of another net"),
        (["classes"], 10**9, "5 class names for 1000000000 classes"),
        (["class_names"], ["a", "b", "c", "d"], "4 class names for 5 classes"),
        (["class_names"], ["a", "b", "c", "d", 5], r"class_names.*4. is int, not str"),
        (["class_names"], "abcde", "class_names.* is str, not list"),
        (["statistics"], None, "it has no 'statistics'"),
        (["statistics", "mean"], torch.full((256, 256, 3), torch.nan), "mean has values from nan"),
        (["statistics", "mean"], torch.zeros(256, 256), "mean has shape"),
        (["statistics", "mean"], torch.zeros(2, 2, 3), "a mean image of side 2, for images of 256"),
        (["statistics", "images"], "many", r"images.* is str, not Tensor"),
        (["recipe", "width"], float("nan"), "recipe field width is nan"),
        (["recipe", "kernels"], "many", "recipe field kernels is 'many'"),
        (["recipe", "kernels"], (10**9,) * 5, r"kernels 1e\+09: must be at least 1"),
        (["recipe", "kernels"], doubled((0,), 60), r"recipe field kernels is \(\("),
        (["recipe", "name"], doubled([], 60), r"recipe field name is \[\["),
        (["weights", doubled("paddings", 20)], 1, "weights: .{300,600}$"),
        (["best_top1_error"], doubled([], 60), r"best_top1_error.* is \[\["),
        (["recipe", "conv1_edge"], 10**7, r"conv1_edge 1e\+07: must be at least 0 and at most 32"),
        (["recipe", "crop_size"], 192, "recipe: images of 192 pixels"),
        (["epoch_means"], {"images": 3, "loss": "much"}, "epoch_means.* is {"),
        (["epoch_means"], {"steps": 3}, "epoch_means.* is {"),
        (["validation_pending"], 1, "validation_pending.* is int, not bool"),
        (["epochs_since_best"], "3", "epochs_since_best.* is '3'"),
        (["recipe", "lrn"], 1, "recipe field lrn is 1"),
        (["step"], -1, "step.* is -1"),
        (["best_top1_error"], float("nan"), "best_top1_error.* is nan"),
        (["schedule"], {"best": float("nan")}, "schedule.* is .*nan"),
    ],
)
def test_contents_that_no_run_writes_are_named(file: Path, keys: list[str], value: Any, said: str) -> None:
    changed(file, *keys, value=value)
    with pytest.raises(InputError, match=said) as refusal:
        checkpoint.load(file)
    assert str(refusal.value).startswith(f"{file}: ")


def test_a_checkpoint_that_bursts_when_unpacked_is_refused(file: Path) -> None:
    with zipfile.ZipFile(file) as archive:
        contents = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in contents.items():
            archive.writestr(name, content)
    with pytest.raises(InputError, match="not a whole checkpoint"):
        checkpoint.load(file)


def test_a_recipe_of_a_newer_version_is_refused() -> None:
    with pytest.raises(InputError, match="colour_of_the_bikeshed") as refusal:
        checkpoint.recipe_in({"recipe": {doubled("colour_of_the_bikeshed", 20): 1}})
    assert len(str(refusal.value)) < 1000


@pytest.mark.parametrize(("change", "said"), [({}, ""), ({"crop_size": 28}, "fc10"), ({"channels": 1}, "channel")])
def test_a_reference_net_is_loaded_unless_it_cannot_read_its_images(
    change: dict[str, int], said: str, tmp_path: Path
) -> None:
    published = dataclasses.replace(NETS["19pct"].recipe(), mean_subtracted=False)
    weights = {name: torch.zeros(shape) for name, shape in parameter_shapes(published, 5).items()}
    contents = {
        "recipe": dataclasses.asdict(published) | change,
        "weights": weights,
        "optimizer": {"velocity": weights},
    }
    checkpoint.save(tmp_path / "net.pt", {**CONTENTS, **contents})
    with pytest.raises(InputError, match=said) if said else contextlib.nullcontext():
        assert checkpoint.load(tmp_path / "net.pt")["classes"] == 5


def test_a_recipe_of_an_older_version_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(recipe.RENAMED, "mass", "momentum")
    monkeypatch.setitem(recipe.REMOVED, "bells", (1, 2))
    assert checkpoint.recipe_in({"recipe": {"mass": 0.8, "bells": (1, 2)}}) == paper_recipe(momentum=0.8)
    with pytest.raises(InputError, match="unknown recipe fields bells"):
        checkpoint.recipe_in({"recipe": {"bells": (1, 3)}})


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def alter(path: Path) -> None:
    """One bit of a tensor, where only a checksum sees it."""
    content = bytearray(path.read_bytes())
    content[content.index(CONTENTS["statistics"]["mean"].numpy().tobytes()) + 2002] ^= 1
    path.write_bytes(content)


def overwrite(content: bytes) -> Any:
    return lambda path: path.write_bytes(content)


class Harm:
    """What a pickle runs when it is loaded."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("harm",)


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (Path.unlink, "no such checkpoint file"),
        (cut, "not a whole checkpoint"),
        (alter, "checksum"),
        (overwrite(b""), "not a whole checkpoint"),
        (overwrite(b"step 7 of a diary\n" * 99), "not a whole checkpoint"),
        (overwrite(pickle.dumps({"format": 1})), "not a whole checkpoint"),
        (lambda path: torch.save({"state_dict": {}}, path), "not a checkpoint of this project"),
        (lambda path: torch.save([1, 2], path), "not a checkpoint of this project"),
        (lambda path: torch.save({**CONTENTS, "format": 1, "more": Harm()}, path), "not a whole checkpoint"),
        (lambda path: zipfile.ZipFile(path, "w").close(), "not a whole checkpoint"),
        (lambda path: torch.save({**CONTENTS, "format": checkpoint.FORMAT + 1}, path), "is newer than"),
    ],
)
def test_what_is_no_whole_checkpoint_is_refused_by_name(
    file: Path, spoil: Any, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(file.parent)
    spoil(file)
    with pytest.raises(InputError, match=said) as refusal:
        checkpoint.load(file)
    assert str(file) in str(refusal.value)
    assert "\n" not in str(refusal.value)
    assert not (file.parent / "harm").exists()


def contents(step: int) -> dict[str, Any]:
    return {**CONTENTS, "step": step}


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def test_the_last_ones_are_kept_under_their_names(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path, keep=2)
    assert store.newest() == (None, [])
    store.save(contents(5), ["last.pt", "best.pt"])
    for step in (6, 7, 1_000):
        store.save(contents(step), ["last.pt"])
    store.wait()
    assert names(tmp_path) == ["best.pt", "last.pt", "step-000000007.pt", "step-000001000.pt"]
    assert [checkpoint.load(tmp_path / name)["step"] for name in ("best.pt", "last.pt")] == [5, 1_000]
    assert store.newest() == (tmp_path / "step-000001000.pt", [])


def test_a_broken_newest_is_passed_over_and_said(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path, keep=3)
    for step in (5, 6):
        store.save(contents(step), ["last.pt"])
    store.wait()
    cut(tmp_path / "step-000000006.pt")
    newest, broken = store.newest()
    assert newest == tmp_path / "step-000000005.pt"
    assert ["step-000000006.pt" in line for line in broken] == [True]
    cut(tmp_path / "step-000000005.pt")
    with pytest.raises(InputError, match="no whole checkpoint among 3"):
        store.newest()


@pytest.mark.parametrize("spoil", [os.mkfifo, os.mkdir, lambda path: path.symlink_to("/dev/zero")])
def test_a_checkpoint_that_is_no_file_is_passed_over_and_said(spoil: Any, tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path, keep=1)
    spoil(tmp_path / "step-000000002.pt")
    spoil(tmp_path / "step-000000009.pt")
    store.save(contents(5), ["best.pt"])
    store.refuse_unsaved()
    newest, broken = store.newest()
    assert newest == tmp_path / "step-000000005.pt"
    assert [line.partition(";")[0] for line in broken] == [f"{tmp_path / 'step-000000009.pt'}: is not a file"]


def test_a_checkpoint_that_is_not_finite_is_passed_over_and_said(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path, keep=3)
    assert store.last_good() == "none"
    store.save(contents(5), [])
    velocity = {**CONTENTS["optimizer"]["velocity"], WEIGHT: with_value(torch.inf)}
    store.save({**contents(6), "optimizer": {"velocity": velocity}}, [])
    store.wait()
    said = f"{tmp_path / 'step-000000006.pt'}: the velocity of {WEIGHT} are not finite; passed over"
    assert store.newest() == (tmp_path / "step-000000005.pt", [said])
    assert store.last_good() == str(tmp_path / "step-000000005.pt")


@pytest.mark.parametrize(
    "error", [ValueError("no such\nthing"), MemoryError(), RuntimeError("c10 says much"), OSError()]
)
def test_whatever_ends_the_writer_is_reported(
    error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object) -> None:
        raise error

    store = CheckpointStore(tmp_path, keep=3)
    monkeypatch.setattr(checkpoint, "save", fail)
    store.save(contents(5), ["last.pt"])
    with pytest.raises(InputError, match=r"step-000000005.pt: not saved \(.+\); with that mended"):
        store.refuse_unsaved()
    warning = capfd.readouterr().err
    assert warning.startswith("warning: ") and warning.count("\n") == 1


def no_space(descriptor: int) -> None:
    raise OSError(28, "No space left on device")


def test_a_full_disk_costs_that_checkpoint_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    store = CheckpointStore(tmp_path, keep=3)
    store.save(contents(5), ["last.pt"])
    store.wait()
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", no_space)
        store.save(contents(6), ["last.pt"])
        store.wait()
    assert "not saved" in capfd.readouterr().err
    assert names(tmp_path) == ["last.pt", "step-000000005.pt"]
    store.save(contents(7), ["last.pt"])
    store.wait()
    assert checkpoint.load(tmp_path / "last.pt")["step"] == 7
