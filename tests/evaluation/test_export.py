"""The net in other programs' forms: grouped convolutions, safetensors, ONNX."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from checkpoints import NARROW, write_checkpoint
from running import write_tree
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from alexnet2012 import AlexNet, Recipe, load_checkpoint, paper_recipe, source_recipe
from alexnet2012.core.errors import InputError
from alexnet2012.data import Dataset, open_dataset
from alexnet2012.data.dataset import load
from alexnet2012.evaluation import checkpoint
from alexnet2012.evaluation.export import (
    groups,
    metadata,
    onnx_difference,
    save_grouped,
    save_onnx,
    save_safetensors,
    save_with_weights_of,
    to_grouped,
)
from alexnet2012.network.reference import NETS, ReferenceNet


@pytest.fixture(scope="module")
def val(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return open_dataset(write_tree(tmp_path_factory.mktemp("tree"), classes=5, train=1, val=2), "val")


@pytest.fixture(scope="module")
def path(val: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("net") / "net.pt", val)


class SingleDeviceNet(nn.Module):
    """The paper's net as others write it, LRN within halves of the channels."""

    def __init__(self, shapes: dict[str, torch.Size], grouped: dict[str, int]) -> None:
        super().__init__()
        strides = {"conv1": 4}
        paddings = {"conv1": 0, "conv2": 2, "conv3": 1, "conv4": 1, "conv5": 1}
        for layer in grouped:
            out, reads, *size = shapes[f"{layer}.weight"]
            module = (
                nn.Conv2d(
                    reads * grouped[layer], out, size[0], strides.get(layer, 1), paddings[layer], 1, grouped[layer]
                )
                if size
                else nn.Linear(reads, out)
            )
            self.add_module(layer, module)
        self.lrn = nn.LocalResponseNorm(5, 5e-4, 0.75, 2.0)  # torch takes the mean

    def norm(self, x: Tensor) -> Tensor:
        return torch.cat([self.lrn(half) for half in x.chunk(2, 1)], 1)

    def forward(self, x: Tensor) -> Tensor:
        pool = nn.MaxPool2d(3, 2)
        x = pool(self.norm(self.conv1(nn.functional.pad(x, (0, 3, 0, 3))).relu()))
        x = pool(self.norm(self.conv2(x).relu()))
        x = pool(self.conv5(self.conv4(self.conv3(x).relu()).relu()).relu())
        x = self.fc6(x.flatten(1)).relu() / 2
        return self.fc8(self.fc7(x).relu() / 2)


def some_images(count: int) -> Tensor:
    return 255 * torch.rand(count, 3, 224, 224, generator=torch.Generator().manual_seed(1)) - 128


def test_shapes_of_the_paper_s_net() -> None:
    with torch.device("meta"):
        shapes = {name: tuple(weight.shape) for name, weight in to_grouped(AlexNet(paper_recipe())).items()}
    assert shapes["conv1.weight"] == (96, 3, 11, 11)
    assert shapes["conv2.weight"] == (256, 48, 5, 5)
    assert shapes["conv3.weight"] == (384, 256, 3, 3)
    assert shapes["conv4.weight"] == (384, 192, 3, 3)
    assert shapes["conv5.weight"] == (256, 192, 3, 3)
    assert (shapes["fc6.weight"], shapes["fc7.weight"]) == ((4096, 9216), (4096, 4096))
    assert (shapes["fc8.weight"], shapes["fc8.bias"]) == ((1000, 4096), (1000,))


def test_a_single_device_net_with_the_grouped_weights_is_the_same_net(path: Path, tmp_path: Path) -> None:
    net = load_checkpoint(path, "cpu")
    save_grouped(net, tmp_path / "grouped.safetensors")
    weights = load_file(tmp_path / "grouped.safetensors")
    with safe_open(tmp_path / "grouped.safetensors", "pt") as file:
        about = file.metadata()
    assert json.loads(about["class_names"]) == net.class_names and about["lrn"] == "within towers"
    other = SingleDeviceNet({name: weight.shape for name, weight in weights.items()}, json.loads(about["groups"]))
    other.load_state_dict(weights)
    with torch.no_grad():
        torch.testing.assert_close(other(some_images(4)), net(some_images(4)), atol=1e-4, rtol=1e-4)


def test_the_whole_net_keeps_its_names(path: Path, tmp_path: Path) -> None:
    net = load_checkpoint(path, "cpu")
    save_safetensors(net, tmp_path / "net.safetensors")
    with safe_open(tmp_path / "net.safetensors", "pt") as file:
        recipe = Recipe(
            **{k: tuple(v) if isinstance(v, list) else v for k, v in json.loads(file.metadata()["recipe"]).items()}
        )
    again = AlexNet(recipe, net.classes, seed=9)
    again.load_state_dict(load_file(tmp_path / "net.safetensors"))
    for name, weight in net.named_parameters():
        assert torch.equal(again.get_parameter(name), weight)


@pytest.mark.parametrize("grey", [False, True])
def test_a_safetensors_file_is_a_checkpoint_too(grey: bool, path: Path, val: Dataset, tmp_path: Path) -> None:
    net, file = load_checkpoint(path, "cpu"), tmp_path / "net.safetensors"
    if grey:
        net.statistics.mean[...] = net.statistics.mean[..., :1]
    save_safetensors(net, file)
    assert file.stat().st_mode & 0o044  # others may read it, as the umask of tests allows
    again = load_checkpoint(file, "cpu")
    assert (again.recipe, again.class_names, again.classes) == (net.recipe, net.class_names, 5)
    for name, value in vars(net.statistics).items():
        expected = value.astype(np.float32) if name == "mean" else value
        np.testing.assert_array_equal(getattr(again.statistics, name), expected)
    pixels = torch.from_numpy(load(val, 3, 256)[0].copy())[None]
    assert torch.equal(again.probabilities(pixels), net.probabilities(pixels))
    mean_bytes = 4 * 256 * 256 * (1 if grey else 3)
    assert file.stat().st_size < 4 * sum(w.numel() for w in net.parameters()) + 4 / 3 * mean_bytes + 10_000


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("project", "another", "not a checkpoint of this project"),
        ("recipe", "[" * 100_000, "not a whole checkpoint"),
        ("recipe", '{"width": 0.0625, "towers": 1}', "weights: towers.1.conv1.bias is of another net"),
        ("class_names", '["a", "b"]', "not torch.float32 of|not float32 of"),
        ("mean", "AAAA", "not a whole checkpoint"),
        ("mean_shape", "[1, 1, 65536]", "mean has shape|not a whole checkpoint"),
        ("checkpoint_format", "2", "format 2 is newer than 1"),
        ("groups", "{}", "holds grouped weights"),
    ],
)
def test_a_safetensors_file_of_other_contents_is_refused(
    key: str, value: str, said: str, path: Path, tmp_path: Path
) -> None:
    net, file = load_checkpoint(path, "cpu"), tmp_path / "net.safetensors"
    save_file({name: weight.detach().contiguous() for name, weight in net.named_parameters()}, file, metadata(net))
    assert load_checkpoint(file, "cpu").classes == 5
    save_file(load_file(file), file, metadata(net) | {key: value})
    with pytest.raises(InputError, match=said) as refusal:
        load_checkpoint(file, "cpu")
    assert str(refusal.value).startswith(f"{file}: ")


def test_torchvision_s_net_loads_into_torchvision(val: Dataset, tmp_path: Path) -> None:
    from torchvision.models import alexnet

    recipe, file = NETS["torchvision"].recipe(), tmp_path / "net.safetensors"
    net = load_checkpoint(write_checkpoint(tmp_path / "net.pt", val, recipe=recipe), "cpu")
    save_safetensors(net, file)
    theirs = alexnet(num_classes=5).eval()
    theirs.load_state_dict(load_file(file))
    images = torch.rand(1, 3, 224, 224, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = net(images)
        torch.testing.assert_close(theirs(images), expected)
        assert torch.equal(load_checkpoint(file, "cpu")(images), expected)


def test_grouped_weights_come_back_bit_by_bit(path: Path, val: Dataset, tmp_path: Path) -> None:
    save_grouped(load_checkpoint(path, "cpu"), tmp_path / "grouped.safetensors")
    other = checkpoint.load(write_checkpoint(tmp_path / "other.pt", val, seed=3))
    save_with_weights_of(other, tmp_path / "grouped.safetensors", tmp_path / "back.pt")
    back, original = load_checkpoint(tmp_path / "back.pt", "cpu"), checkpoint.load(path)["weights"]
    assert all(torch.equal(weight, original[name]) for name, weight in back.named_parameters())
    np.testing.assert_array_equal(back.statistics.mean, checkpoint.statistics_in(other).mean)


def test_weights_of_a_net_whose_lrn_may_cross_are_refused(path: Path, tmp_path: Path) -> None:
    saved, foreign = checkpoint.load(path), tmp_path / "caffe.safetensors"
    save_file({k: v.contiguous() for k, v in to_grouped(load_checkpoint(path, "cpu")).items()}, foreign)
    with pytest.raises(InputError, match="--lrn-may-cross"):
        save_with_weights_of(saved, foreign, tmp_path / "out.pt")
    save_with_weights_of(saved, foreign, tmp_path / "out.pt", lrn_may_cross=True)
    assert load_checkpoint(tmp_path / "out.pt", "cpu").classes == 5


def test_weights_that_do_not_fit_are_named(path: Path, tmp_path: Path) -> None:
    saved, bad = checkpoint.load(path), tmp_path / "bad.safetensors"
    fitting = {name: weight.detach().contiguous() for name, weight in to_grouped(load_checkpoint(path, "cpu")).items()}
    changed = {"conv2.weight": torch.zeros(16, 6, 5, 5)}  # not grouped
    lacking = {name: weight for name, weight in fitting.items() if name != "fc6.bias"}
    for weights, reason in (
        (fitting | changed, r"conv2.weight is \(16, 6, 5, 5\), in this net \(16, 3, 5, 5\)"),
        (lacking, "fc6.bias is missing"),
    ):
        save_file(weights, bad)
        with pytest.raises(InputError, match=reason):
            save_with_weights_of(saved, bad, tmp_path / "out.pt", lrn_may_cross=True)
    for weight in (fitting["conv2.weight"].int(), fitting["conv2.weight"] * torch.nan):
        save_file(fitting | {"conv2.weight": weight}, bad)
        with pytest.raises(InputError, match=f"{bad}: conv2.weight is {weight.dtype}, or not finite"):
            save_with_weights_of(saved, bad, tmp_path / "out.pt", lrn_may_cross=True)
    bad.unlink()
    os.mkfifo(bad)
    with pytest.raises(InputError, match=f"{bad}: is not a file"):
        save_with_weights_of(saved, bad, tmp_path / "out.pt")
    bad.unlink()
    bad.write_text("no tensors")
    with pytest.raises(InputError, match="not a safetensors file"):
        save_with_weights_of(saved, bad, tmp_path / "out.pt")


def test_nets_without_a_grouped_form_are_refused(val: Dataset, path: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="lenet: a net without towers"):
        groups(NETS["lenet"].recipe())
    save_grouped(load_checkpoint(path, "cpu"), tmp_path / "grouped.safetensors")
    lenet = ReferenceNet(NETS["lenet"].recipe(), len(val.classes))
    saved = {**checkpoint.load(path), "recipe": lenet.recipe.described(), "weights": lenet.state_dict()}
    with pytest.raises(InputError, match="lenet: a net without towers"):
        save_with_weights_of(saved, tmp_path / "grouped.safetensors", tmp_path / "out.pt", lrn_may_cross=True)
    with pytest.raises(InputError, match="fc6, fc7"):
        groups(paper_recipe().varied("no-exchange"))


def test_the_onnx_graph_of_the_source_recipe_is_the_net(val: Dataset, tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxscript")
    pytest.importorskip("onnxruntime")
    net = load_checkpoint(write_checkpoint(tmp_path / "net.pt", val, recipe=source_recipe(width=NARROW)), "cpu")
    norms = [tower.in_map for tower in net.held]
    assert save_onnx(net, tmp_path / "net.onnx") < 1e-4
    assert onnx_difference(net, tmp_path / "net.onnx", images=12) < 1e-4
    assert [tower.in_map for tower in net.held] == norms
    model = onnx.load(tmp_path / "net.onnx")
    assert {node.domain for node in model.graph.node} == {""}  # nothing but ONNX's own operations
    assert json.loads({entry.key: entry.value for entry in model.metadata_props}["class_names"]) == net.class_names
    for change in (1.0, torch.nan):
        with torch.no_grad():
            net.held[1].fc8.bias += change
        with pytest.raises(InputError, match="differs from the net"):
            onnx_difference(net, tmp_path / "net.onnx")
