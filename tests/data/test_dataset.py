import gzip
import io
import os
import pickle
import urllib.error
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torchvision.datasets
from PIL import Image

from alexnet2012.core.errors import InputError
from alexnet2012.data import datasets as module
from alexnet2012.data import open_dataset
from alexnet2012.data.dataset import load


def tree(root: Path, files: list[str]) -> Path:
    """Files of a few bytes each; a name ending in / is an empty folder."""
    for name in files:
        path = root / name
        path.mkdir(parents=True, exist_ok=True) if name.endswith("/") else path.parent.mkdir(
            parents=True, exist_ok=True
        )
        if not name.endswith("/"):
            path.write_bytes(name.encode())
    return root


def refusal(data: Path | str, split: str = "train") -> str:
    """The message of the InputError, one line."""
    with pytest.raises(InputError) as caught:
        open_dataset(data, split)
    assert "\n" not in str(caught.value)
    return str(caught.value)


GOOD = ["train/b/2.JPEG", "train/b/10.png", "train/a/x.jpg", "val/a/v.JPG", "val/b/v.PnG"]


def test_a_tree_is_sorted_by_class_then_name(tmp_path):
    tree(tmp_path, [*GOOD, "train/a/notes.txt", "train/a/deep/nested.jpg", "train/stray.jpg"])
    train, val = open_dataset(tmp_path, "train"), open_dataset(str(tmp_path), "val")
    assert train.classes == val.classes == ["a", "b"]
    names = [train.name(i) for i in range(len(train))]
    assert names == [str(tmp_path / "train" / name) for name in ("a/x.jpg", "b/10.png", "b/2.JPEG")]
    assert [train[i] for i in range(3)] == [(b"train/a/x.jpg", 0), (b"train/b/10.png", 1), (b"train/b/2.JPEG", 1)]
    assert [val[i][1] for i in range(len(val))] == [0, 1]
    assert not train.square256


def test_a_test_folder_is_taken_where_there_is_no_val(tmp_path):
    files = ["train/b/2.png", "train/a/x.png", "test/a/v.png", "test/b/v.png"]
    data = tree(tmp_path / "data", files)
    assert open_dataset(data, "val").name(1) == str(data / "test" / "b" / "v.png")
    assert "class c is in test/ but not in train/" in refusal(tree(tmp_path / "other", [*files, "test/c/1.png"]))
    both = tree(tmp_path / "both", [*files, "val/a/1.png", "val/b/1.png"])
    assert len(open_dataset(both, "val")) == 2 and open_dataset(both, "val")[0][0] == b"val/a/1.png"


def test_a_training_split_needs_no_other(tmp_path):
    assert len(open_dataset(tree(tmp_path, ["train/a/1.jpg", "train/b/1.jpg"]), "train")) == 2


def test_names_that_are_no_text_are_read(tmp_path):
    tree(tmp_path, GOOD)
    strange = os.fsdecode(b"\xff\xfe.jpg")
    (tmp_path / "train/a" / strange).write_bytes(b"content")
    train = open_dataset(tmp_path, "train")
    assert train[1] == (b"content", 0) and train.name(1).endswith(strange)


def test_a_tree_can_be_pickled(tmp_path):
    copied = pickle.loads(pickle.dumps(open_dataset(tree(tmp_path, GOOD), "val")))
    assert copied[1] == (b"val/b/v.PnG", 1)


def test_what_is_no_tree_is_refused(tmp_path):
    assert "nowhere: no such directory" in refusal(tmp_path / "nowhere")
    assert "empty" in refusal(tree(tmp_path, ["empty/"]) / "empty")
    assert "train: no such directory" in refusal(tree(tmp_path / "1", ["val/a/1.jpg", "val/b/1.jpg"]))
    assert "--val-fraction needs no val/" in refusal(tree(tmp_path / "2", ["train/a/1.jpg", "train/b/1.jpg"]), "val")
    assert "train/b: no .JPEG" in refusal(
        tree(tmp_path / "3", ["train/a/1.jpg", "train/b/1.txt", "val/a/1.jpg", "val/b/"])
    )
    assert "class c is in val/ but not in train/" in refusal(tree(tmp_path / "4", [*GOOD, "val/c/1.jpg"]))
    assert "class c is in train/ but not in val/" in refusal(tree(tmp_path / "5", [*GOOD, "train/c/1.jpg"]))
    assert "at least two" in refusal(tree(tmp_path / "6", ["train/a/1.jpg", "val/a/1.jpg"]))
    assert "val: no class folders" in refusal(tree(tmp_path / "7", ["train/a/1.jpg", "train/b/1.jpg", "val/1.jpg"]))
    assert "test: must be train or val" in refusal("sample", "test")


def test_a_file_that_went_away_is_named(tmp_path):
    dataset = open_dataset(tree(tmp_path, GOOD), "train")
    Path(dataset.name(1)).unlink()
    with pytest.raises(InputError, match=r"b/10\.png: cannot be read \(No such file"):
        dataset[1]


def test_the_sample_is_the_beginning_of_fashion_mnist():
    train, val = open_dataset("sample", "train"), open_dataset("sample", "val")
    assert (len(train), len(val)) == (6_000, 1_000)
    assert train.classes[0] == "T-shirt/top" and train.classes[9] == "Ankle boot" and len(train.classes) == 10
    encoded, label = train[0]
    with Image.open(io.BytesIO(encoded)) as image:
        assert (image.format, image.mode, image.size) == ("PPM", "L", (28, 28))
    assert label == 9 and np.bincount(train.labels).min() > 500
    assert train.name(7).endswith("train-images-idx3-ubyte.gz: image 7")


@pytest.mark.skipif(not module.DEBIAN_FASHION_MNIST.is_dir(), reason="dataset-fashion-mnist is not installed")
def test_fashion_mnist_is_debians_and_begins_with_the_sample():
    full, sample = open_dataset("fashion-mnist", "val"), open_dataset("sample", "val")
    assert len(full) == 10_000
    assert [full[i] for i in range(0, 1_000, 97)] == [sample[i] for i in range(0, 1_000, 97)]


def test_a_directory_called_like_a_data_set_is_reached_by_its_path_alone(monkeypatch, tmp_path):
    tree(tmp_path / "sample", GOOD)
    monkeypatch.chdir(tmp_path)
    assert len(open_dataset("sample", "val")) == 1_000
    assert len(open_dataset("./sample", "val")) == len(open_dataset(Path("sample"), "val")) == 2


@pytest.mark.parametrize(
    "make", [os.mkfifo, lambda path: path.symlink_to("/dev/zero"), Path.mkdir], ids=["fifo", "device", "folder"]
)
def test_what_is_no_file_is_named_where_an_image_belongs(make, tmp_path):
    tree(tmp_path, GOOD)
    (tmp_path / "train/a/x.jpg").unlink()
    make(tmp_path / "elsewhere")
    (tmp_path / "train/a/x.jpg").symlink_to("../../elsewhere")
    with pytest.raises(InputError, match=r"train/a/x.jpg: is not a file"):
        open_dataset(tmp_path, "train")[0]


@pytest.mark.parametrize("target", ["c", "nowhere"])
def test_links_to_nothing_or_to_themselves_are_named(target, tmp_path):
    tree(tmp_path, GOOD)
    (tmp_path / "train/a/another.jpg").symlink_to("another.jpg")
    with pytest.raises(InputError, match=r"another.jpg: cannot be read"):
        open_dataset(tmp_path, "train")[0]
    (tmp_path / "train/c").symlink_to(target)
    assert "train/c: a link to nothing" in refusal(tmp_path)


def test_a_name_with_control_characters_makes_one_line(tmp_path):
    tree(tmp_path, [*GOOD, "train/a/line\nbreak\x1b[31m.jpg"])
    with pytest.raises(InputError) as caught:
        load(open_dataset(tmp_path, "train"), 0)
    assert str(caught.value).isprintable() and r"line\nbreak\x1b[31m.jpg: not a readable" in str(caught.value)


def test_a_damaged_idx_file_is_named(monkeypatch, tmp_path):
    for file in module.SAMPLE.glob("t10k*.gz"):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    monkeypatch.setattr(module, "DEBIAN_FASHION_MNIST", tmp_path)
    assert len(open_dataset("fashion-mnist", "val")) == 1_000
    for damage in (lambda content: content[:-99], lambda content: b"", lambda content: gzip.compress(b"IDX")):
        for name in ("t10k-labels-idx1-ubyte.gz", "t10k-images-idx3-ubyte.gz"):
            whole = (tmp_path / name).read_bytes()
            (tmp_path / name).write_bytes(damage(whole))
            assert f"{name}: damaged" in refusal("fashion-mnist", "val")
            (tmp_path / name).write_bytes(whole)


def offline(*_args, **_settings):
    raise urllib.error.URLError("no route")


def test_sets_that_cannot_be_had_say_what_to_do(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(module, "DEBIAN_FASHION_MNIST", tmp_path / "absent")
    monkeypatch.setattr(torchvision.datasets, "FashionMNIST", offline)
    monkeypatch.setattr(torchvision.datasets, "CIFAR10", offline)
    assert "apt install dataset-fashion-mnist" in refusal("fashion-mnist")
    assert "cifar-10-python.tar.gz" in refusal("cifar10", "val")


@pytest.mark.parametrize("existing", ["", "data", "data/cifar10"])
def test_a_failed_download_leaves_no_empty_folder(existing, monkeypatch, tmp_path):
    def download(root, **_settings):
        (root / "raw").mkdir(parents=True)
        raise urllib.error.URLError("no route")

    (tmp_path / existing).mkdir(parents=True, exist_ok=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(torchvision.datasets, "CIFAR10", download)
    assert "no route" in refusal("cifar10")
    kept = {"": [], "data": ["data"], "data/cifar10": ["data", "data/cifar10", "data/cifar10/raw"]}[existing]
    assert sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")) == kept


def test_cifar10_is_torchvisions(monkeypatch):
    def cifar10(root, train, download):
        level = 10 if train else 20
        pixels = np.full((4, 32, 32, 3), level, np.uint8)
        return SimpleNamespace(data=pixels, targets=[0, 1, 1, 0], classes=["airplane", "automobile"])

    monkeypatch.setattr(torchvision.datasets, "CIFAR10", cifar10)
    val = open_dataset("cifar10", "val")
    with Image.open(io.BytesIO(val[1][0])) as image:
        assert (image.mode, image.size, image.getpixel((0, 0))) == ("RGB", (32, 32), (20, 20, 20))
    assert val[1][1] == 1 and val.classes == ["airplane", "automobile"]
    assert (val.statistics.mean == 10).all()
