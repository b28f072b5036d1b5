"""A net from a checkpoint, asked about pictures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from checkpoints import by_hand, write_checkpoint
from PIL import Image
from running import write_tree

import alexnet2012
from alexnet2012 import paper_recipe, source_recipe
from alexnet2012.core.errors import InputError
from alexnet2012.data import Dataset, open_dataset
from alexnet2012.evaluation import checkpoint
from alexnet2012.evaluation.model import TrainedAlexNet


@pytest.fixture(scope="module")
def val(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return open_dataset(write_tree(tmp_path_factory.mktemp("tree"), classes=6, train=1, val=1), "val")


@pytest.fixture(scope="module")
def path(val: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("net") / "net.pt", val)


@pytest.fixture(scope="module")
def net(path: Path) -> TrainedAlexNet:
    return alexnet2012.load_checkpoint(path, "cpu")


def test_a_checkpoint_brings_all_that_is_needed(net: TrainedAlexNet, path: Path, val: Dataset) -> None:
    saved = checkpoint.load(path)
    assert not net.training and isinstance(net, alexnet2012.AlexNet)
    assert net.recipe == checkpoint.recipe_in(saved) and net.class_names == val.classes
    np.testing.assert_array_equal(net.statistics.mean, saved["statistics"]["mean"])
    assert set(net.state_dict()) == set(saved["weights"])
    for name, weight in net.named_parameters():
        assert torch.equal(weight, saved["weights"][name])


@pytest.mark.parametrize("crops", [1, 10])
def test_guesses_are_those_of_a_plain_loop(net: TrainedAlexNet, path: Path, val: Dataset, crops: int) -> None:
    expected = by_hand(path, val, crops)
    for guesses, row in zip(net.predict([val.name(index) for index in range(6)], crops=crops), expected, strict=True):
        named = [val.classes.index(guess.name) for guess in guesses]  # near ties may stand in either order
        assert len(set(named)) == 5
        np.testing.assert_allclose([guess.probability for guess in guesses], row[named], atol=1e-4)
        np.testing.assert_allclose(row[named], np.sort(row)[:0:-1], atol=1e-4)


def test_pictures_come_as_paths_or_as_images_one_or_many(net: TrainedAlexNet, val: Dataset) -> None:
    file = val.name(0)
    with Image.open(file) as image:
        one, same, many = net.predict(image, top=3), net.predict(file, top=3), net.predict([image, Path(file)], top=3)
    assert one == same and len(one) == 3
    assert [[guess.name for guess in guesses] for guesses in many] == 2 * [[guess.name for guess in one]]
    assert net.predict([]) == []


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK", "YCbCr", "I;16"])
def test_a_picture_of_any_mode(net: TrainedAlexNet, mode: str) -> None:
    assert len(net.predict(Image.new(mode, (300, 280)), crops=1)) == 5


def test_what_is_no_picture_is_named(net: TrainedAlexNet, tmp_path: Path) -> None:
    (tmp_path / "text.jpg").write_text("no picture")
    for bad in (tmp_path / "text.jpg", tmp_path / "absent.jpg", tmp_path):
        with pytest.raises(InputError, match=f"{bad}: not a readable image"):
            net.predict(bad)
    with pytest.raises(ValueError, match="crops=5"):
        net.predict([], crops=5)
    with pytest.raises(ValueError, match="top=0"):
        net.predict([], top=0)
    for bad in (np.zeros((256, 256, 3), np.uint8), b"bytes", [1]):
        with pytest.raises(TypeError, match="give paths or PIL images"):
            net.predict(bad)


@pytest.mark.parametrize(
    "recipe",
    [source_recipe(width=1 / 16), paper_recipe(width=1 / 16).varied("one-tower")],
    ids=["source", "one-tower"],
)
def test_nets_of_other_recipes(recipe: alexnet2012.Recipe, val: Dataset, tmp_path: Path) -> None:
    path = write_checkpoint(tmp_path / "net.pt", val, recipe=recipe)
    net = alexnet2012.load_checkpoint(path, "cpu")
    pixels = torch.from_numpy(np.stack([np.asarray(Image.open(val.name(0)).convert("RGB").resize((256, 256)))]))
    assert net.recipe == recipe and net.probabilities(pixels).sum().item() == pytest.approx(1)


def test_what_is_no_checkpoint_is_named(path: Path, tmp_path: Path) -> None:
    cut, foreign, lacking = (tmp_path / name for name in ("cut.pt", "foreign.pt", "lacking.pt"))
    cut.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    torch.save({"state_dict": {}}, foreign)
    saved = checkpoint.load(path)
    saved["weights"].pop("towers.1.fc7.bias")
    checkpoint.save(lacking, saved)
    reasons = {cut: "not a whole", tmp_path: "no such", foreign: "of this project", lacking: "towers.1.fc7.bias"}
    for file, reason in reasons.items():
        with pytest.raises(InputError, match=reason) as refusal:
            alexnet2012.load_checkpoint(file)
        assert str(refusal.value).startswith(str(file)) and "\n" not in str(refusal.value)
