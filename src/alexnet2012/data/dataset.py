"""What lies on disk, as an index: image i -> encoded bytes, label. No pixel is decoded here."""

from __future__ import annotations

import copy
import gzip
import io
import os
from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from alexnet2012.data.class_names import in_words
from alexnet2012.data.pixels import HELD_BYTES, HELD_SIDE, HeldImages
from alexnet2012.data.statistics import Statistics, measure
from alexnet2012.errors import InputError

SUFFIXES = (b".jpeg", b".jpg", b".png")  # of images, in any case
SAMPLE = Path(__file__).parent / "sample"
DEBIAN_FASHION_MNIST = Path("/usr/share/datasets/fashion-mnist")
FASHION_CLASSES = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip


class Dataset(ABC):
    """One split of a data set. ``d[i] -> (encoded bytes, label)``, ``d.classes``, ``d.statistics``."""

    square256 = False  # every image is 256x256: no resizing needed

    def __init__(self, labels: NDArray[np.integer], classes: list[str], training: Callable[[], Dataset] | None) -> None:
        """``training`` opens the training split; None when this is it."""
        self.labels, self.classes, self._training = labels, classes, training
        self._statistics: Statistics | None = None
        self._held: dict[int, HeldImages] = {}

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[bytes, int]:
        """The encoded image and its label."""
        return self.encoded(index), int(self.labels[index])

    @abstractmethod
    def encoded(self, index: int) -> bytes:
        """Image ``index`` as a JPEG or PNG file's bytes. Raises InputError naming a file that cannot be read."""

    @abstractmethod
    def name(self, index: int) -> str:
        """What an error calls image ``index``: its path, or where it lies."""

    @abstractmethod
    def identity(self) -> bytes:
        """What tells its images, beside their labels, from those of another set, wherever it lies; no image is read."""

    @property
    def statistics(self) -> Statistics:
        """Of the training split, whichever split this is; measured when first asked for, unless given."""
        if self._statistics is None:
            training = self._training() if self._training else self
            self._statistics = measure(training).statistics()
        return self._statistics

    def held(self, side: int) -> HeldImages | None:
        """Where its images, decoded to ``side`` pixels, are kept; None if they are not small."""
        if side > HELD_SIDE or len(self) * side**2 * 3 > HELD_BYTES:
            return None
        if side not in self._held:
            self._held.setdefault(side, HeldImages(len(self), side))
        return self._held[side]

    def with_statistics(self, statistics: Statistics) -> Dataset:
        """The same data set with these statistics, measured elsewhere."""
        other = copy.copy(self)
        other._statistics = statistics
        return other


class ArrayDataset(Dataset):
    """Images held as a uint8 array, (n, h, w) grey or (n, h, w, 3) RGB, handed out as PNG bytes."""

    def __init__(
        self,
        pixels: NDArray[np.uint8],
        labels: NDArray[np.integer],
        classes: list[str],
        origin: str,
        training: Callable[[], Dataset] | None,
    ) -> None:
        super().__init__(labels, classes, training)
        self.pixels, self.origin = pixels, origin

    def encoded(self, index: int) -> bytes:
        file = io.BytesIO()
        Image.fromarray(self.pixels[index]).save(file, "PNG", compress_level=1)
        return file.getvalue()

    def name(self, index: int) -> str:
        return f"{self.origin}: image {index}"

    def identity(self) -> bytes:
        return Path(self.origin).name.encode()


class TreeDataset(Dataset):
    """Images in ``directory/<folder>/``, a folder a class, sorted by folder, then by name; classes are in words.

    File names are one string of bytes with an array of their ends: 1.28 million take 50 MB.
    """

    def __init__(self, directory: Path, folders: list[str], training: Callable[[], Dataset] | None) -> None:
        joined, lengths, counts = [], [0], []
        for name in folders:
            files = _image_names(directory / name)
            joined.append(b"".join(files))
            lengths.extend(map(len, files))
            counts.append(len(files))
        super().__init__(np.repeat(np.arange(len(folders)), counts), in_words(folders), training)
        self.folders, self.directory, self._names, self._ends = folders, directory, b"".join(joined), np.cumsum(lengths)

    def path(self, index: int) -> Path:
        """Where image ``index`` lies."""
        name = self._names[self._ends[index] : self._ends[index + 1]]
        return self.directory / self.folders[self.labels[index]] / os.fsdecode(name)

    def encoded(self, index: int) -> bytes:
        try:
            return self.path(index).read_bytes()
        except OSError as error:
            raise InputError(f"{self.path(index)}: cannot be read ({error.strerror})") from error

    def name(self, index: int) -> str:
        return str(self.path(index))

    def identity(self) -> bytes:
        return self._names + self._ends.tobytes()


def open_dataset(data: str | Path, split: str) -> Dataset:
    """Open a split, ``train`` or ``val``, of ``sample``, ``fashion-mnist``, ``cifar10`` or a directory.

    A directory holds prepared shards, or ``train/<class>/*`` and ``val/<class>/*`` (.JPEG, .jpg, .png); where there
    is no ``val/``, ``test/`` is taken for it.
    Raises InputError when there is no such data set or it cannot be used.
    """
    if split not in ("train", "val"):
        raise InputError(f"split {split}: must be train or val")
    if str(data) == "sample":
        return _open_idx(SAMPLE, split)
    if str(data) == "fashion-mnist" and DEBIAN_FASHION_MNIST.is_dir():
        return _open_idx(DEBIAN_FASHION_MNIST, split)
    if str(data) == "fashion-mnist":
        return _open_torchvision("fashion-mnist", "FashionMNIST", split, "apt install dataset-fashion-mnist")
    if str(data) == "cifar10":
        return _open_torchvision("cifar10", "CIFAR10", split, "put cifar-10-python.tar.gz into data/cifar10")
    return _open_directory(Path(data), split)


def _open_idx(directory: Path, split: str) -> Dataset:
    """Fashion-MNIST in its own format, IDX: big-endian sizes, then bytes."""
    prefix = directory / ("train" if split == "train" else "t10k")
    with gzip.open(f"{prefix}-images-idx3-ubyte.gz") as file:
        pixels = np.frombuffer(file.read(), np.uint8, offset=16).reshape(-1, 28, 28)
    with gzip.open(f"{prefix}-labels-idx1-ubyte.gz") as file:
        labels = np.frombuffer(file.read(), np.uint8, offset=8)
    training = None if split == "train" else partial(_open_idx, directory, "train")
    return ArrayDataset(pixels, labels, list(FASHION_CLASSES), f"{prefix}-images-idx3-ubyte.gz", training)


def _open_torchvision(name: str, kind: str, split: str, advice: str) -> Dataset:
    """A data set of torchvision's in ``data/<name>``, downloaded if absent."""
    from torchvision import datasets

    root = Path("data") / name
    try:  # CIFAR-10 comes as pickles: torchvision loads them only when their md5 is the published one
        images = getattr(datasets, kind)(root, train=split == "train", download=True)
    except (OSError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{name}: not in {root}, and cannot be downloaded ({reason}); {advice}") from error
    training = None if split == "train" else partial(_open_torchvision, name, kind, "train", advice)
    pixels, labels = np.asarray(images.data), np.asarray(images.targets)
    return ArrayDataset(pixels, labels, list(images.classes), f"{name} {split}", training)


def _open_directory(directory: Path, split: str) -> Dataset:
    if not directory.is_dir():
        raise InputError(f"{directory}: no such directory; --data takes a directory, sample, fashion-mnist or cifar10")
    if not any(directory.iterdir()):
        raise InputError(f"{directory}: is empty; it must hold train/<class>/ and val/<class>/ or prepared shards")
    from alexnet2012.data.shards import ShardDataset, is_prepared  # it builds on this module

    return ShardDataset(directory, split) if is_prepared(directory) else _open_tree(directory, split)


def _open_tree(directory: Path, split: str) -> Dataset:
    folder = "val" if (directory / "val").is_dir() or not (directory / "test").is_dir() else "test"
    train, val = (_class_names(directory / name) for name in ("train", folder))
    if different := sorted(set(train) ^ set(val)):
        there, missing = ("train", folder) if different[0] in train else (folder, "train")
        raise InputError(f"{directory}: class {different[0]} is in {there}/ but not in {missing}/")
    if len(train) < 2:
        raise InputError(f"{directory / 'train'}: holds {len(train)} class folder; at least two are needed")
    training = None if split == "train" else partial(_open_tree, directory, "train")
    return TreeDataset(directory / ("train" if split == "train" else folder), train, training)


def _class_names(directory: Path) -> list[str]:
    """The class folders of one split, sorted."""
    if not directory.is_dir():
        raise InputError(f"{directory}: no such directory; the data must hold train/<class>/ and val/<class>/")
    with os.scandir(directory) as entries:
        names = sorted(entry.name for entry in entries if entry.is_dir() and not entry.name.startswith("."))
    if not names:
        raise InputError(f"{directory}: no class folders; data_prep/prepare_imagenet.py reads ImageNet's other layouts")
    return names


def _image_names(directory: Path) -> list[bytes]:
    """The image files of one class, sorted; folders, hidden files and other suffixes are ignored.

    A link to nothing counts: reading it names it.
    """
    with os.scandir(os.fsencode(directory)) as entries:
        images = (entry for entry in entries if entry.name.lower().endswith(SUFFIXES) and entry.name[:1] != b".")
        names = sorted(entry.name for entry in images if not entry.is_dir())
    if not names:
        raise InputError(f"{directory}: no .JPEG, .jpg or .png file in this class folder")
    return names
