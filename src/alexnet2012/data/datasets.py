"""The kinds of data set: trees of images, arrays, prepared shards, and those known by name (``data.DATASETS``)."""

from __future__ import annotations

import contextlib
import gzip
import os
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from alexnet2012.core.errors import InputError
from alexnet2012.core.guarded_files import open_file, read_bytes
from alexnet2012.data import DATASETS
from alexnet2012.data.dataset import IMAGE_BYTES, Dataset, in_words
from alexnet2012.data.pixels import pnm
from alexnet2012.data.shards import ShardDataset, is_prepared
from alexnet2012.data.statistics import Statistics

LOST_LINK = "a link to nothing, or not a file; restore what it points at, or remove it"
SUFFIXES = (b".jpeg", b".jpg", b".png")  # of images, in any case
IDX_BYTES = 2**28  # at most, of a file of Fashion-MNIST, which has 47 MB unpacked
SAMPLE = Path(__file__).parent / "sample"
DEBIAN_FASHION_MNIST = Path("/usr/share/datasets/fashion-mnist")
FASHION_CLASSES = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip


class ArrayDataset(Dataset):
    """Images held as a uint8 array, (n, h, w) grey or (n, h, w, 3) RGB, handed out as PGM or PPM bytes."""

    raw = True

    def __init__(
        self,
        pixels: NDArray[np.uint8],
        labels: NDArray[np.integer],
        classes: list[str],
        origin: str,
        training: Callable[[], Dataset] | None,
        kept: Path | None = None,
    ) -> None:
        """``kept``: a file of the training split's statistics."""
        super().__init__(labels, classes, training)
        self.pixels, self.origin, self.kept = pixels, origin, kept
        self.statistics_kept = kept is not None

    @property
    def statistics(self) -> Statistics:
        if self._statistics is None and self.kept:
            self._statistics = Statistics.load(self.kept)
        return super().statistics

    def encoded(self, index: int) -> bytes:
        return pnm(self.pixels[index])

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
        name = self._names[self._ends[index] : self._ends[index + 1]]
        return self.directory / self.folders[self.labels[index]] / os.fsdecode(name)

    def encoded(self, index: int) -> bytes:
        return read_bytes(self.path(index), IMAGE_BYTES)

    def name(self, index: int) -> str:
        return str(self.path(index))

    def identity(self) -> bytes:
        return self._names + self._ends.tobytes()


def open_dataset(data: str | Path, split: str) -> Dataset:
    """Open a split, ``train`` or ``val``, of one of ``DATASETS`` by its name, or of a directory: ``./sample`` is one.

    A directory holds prepared shards, or ``train/<class>/*`` and ``val/<class>/*`` (.JPEG, .jpg, .png); where there
    is no ``val/``, ``test/`` is taken for it. The training split needs neither.
    Raises InputError when there is no such data set or it cannot be used.
    """
    if split not in ("train", "val"):
        raise InputError(f"split {split}: must be train or val")
    if isinstance(data, str) and data in DATASETS:
        return DATASETS[data](split)
    directory = Path(data)
    if not directory.is_dir():
        raise InputError(f"{directory}: no such directory; --data takes a directory or one of {', '.join(DATASETS)}")
    if not any(directory.iterdir()):
        raise InputError(f"{directory}: is empty; it must hold train/<class>/ and val/<class>/ or prepared shards")
    return ShardDataset(directory, split) if is_prepared(directory) else _open_tree(directory, split)


def _open_idx(directory: Path, split: str) -> Dataset:
    """Fashion-MNIST in its own format."""
    prefix = directory / ("train" if split == "train" else "t10k")
    origin = f"{prefix}-images-idx3-ubyte.gz"
    pixels, labels = _read_idx(Path(origin), 3), _read_idx(Path(f"{prefix}-labels-idx1-ubyte.gz"), 1)
    if len(pixels) != len(labels) or pixels.shape[1:] != (28, 28) or labels.max(initial=0) >= len(FASHION_CLASSES):
        raise InputError(f"{origin}: damaged (its images are not those of its labels); install it again")
    training = None if split == "train" else partial(_open_idx, directory, "train")
    kept = directory / "statistics.npz" if directory == SAMPLE else None
    return ArrayDataset(pixels, labels, list(FASHION_CLASSES), origin, training, kept)


def _read_idx(path: Path, axes: int) -> NDArray[np.uint8]:
    """The array of a packed IDX file: a word of type, a word a size, all big-endian; then bytes."""
    try:
        with open_file(path) as packed, gzip.GzipFile(fileobj=packed) as file:
            content = file.read(IDX_BYTES)
        _, *sizes = np.frombuffer(content, ">i4", 1 + axes).tolist()
        return np.frombuffer(content, np.uint8, offset=4 * (1 + axes)).reshape(sizes)
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise InputError(f"{path}: damaged ({error}); install it again") from error


def open_fashion_mnist(split: str) -> Dataset:
    """Debian's, or torchvision's."""
    if DEBIAN_FASHION_MNIST.is_dir():
        return _open_idx(DEBIAN_FASHION_MNIST, split)
    return _open_torchvision("fashion-mnist", "FashionMNIST", "apt install dataset-fashion-mnist", split)


def _open_torchvision(name: str, kind: str, advice: str, split: str) -> Dataset:
    """A data set of torchvision's in ``data/<name>``, downloaded if absent."""
    from torchvision import datasets

    root = Path("data") / name
    try:  # CIFAR-10 comes as pickles: torchvision loads them only when their md5 is the published one
        with _leaving_no_empty_folder(root):
            images = getattr(datasets, kind)(root, train=split == "train", download=True)
    except Exception as error:  # of the network, or of torchvision's readers
        reason = " ".join(str(error).split())
        raise InputError(f"{name}: not in {root}, and cannot be downloaded ({reason}); {advice}") from error
    training = None if split == "train" else partial(_open_torchvision, name, kind, advice, "train")
    pixels, labels = np.asarray(images.data), np.asarray(images.targets)
    return ArrayDataset(pixels, labels, list(images.classes), f"{name} {split}", training)


@contextlib.contextmanager
def _leaving_no_empty_folder(root: Path) -> Iterator[None]:
    """On an error, remove what is empty of the folders made since, ``root`` and its parent among them."""
    made = next((folder for folder in (root.parent, root) if not folder.exists()), None)
    try:
        yield
    except BaseException:
        for folder, _, _ in os.walk(made, topdown=False) if made else ():
            with contextlib.suppress(OSError):
                Path(folder).rmdir()
        raise


open_sample = partial(_open_idx, SAMPLE)
open_cifar10 = partial(_open_torchvision, "cifar10", "CIFAR10", "put cifar-10-python.tar.gz into data/cifar10")


def _open_tree(directory: Path, split: str) -> Dataset:
    folder = "val" if (directory / "val").is_dir() or not (directory / "test").is_dir() else "test"
    train = _class_names(directory / "train")
    val = _class_names(directory / folder) if split == "val" or (directory / folder).is_dir() else train
    if different := sorted(set(train) ^ set(val)):
        there, missing = ("train", folder) if different[0] in train else (folder, "train")
        raise InputError(f"{directory}: class {different[0]} is in {there}/ but not in {missing}/")
    if len(train) < 2:
        raise InputError(f"{directory / 'train'}: holds {len(train)} class folder; at least two are needed")
    training = None if split == "train" else partial(_open_tree, directory, "train")
    return TreeDataset(directory / ("train" if split == "train" else folder), train, training)


@contextlib.contextmanager
def _naming_unreadable(directory: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise InputError(f"{directory}: cannot be read ({error.strerror})") from error


def _class_names(directory: Path) -> list[str]:
    """The class folders of one split, sorted."""
    if not directory.is_dir():
        raise InputError(
            f"{directory}: no such directory; the data must hold train/<class>/ and val/<class>/ "
            "(training with --val-fraction needs no val/)"
        )
    with _naming_unreadable(directory), os.scandir(directory) as entries:
        names = sorted(entry.name for entry in entries if not entry.name.startswith(".") and _is_folder(entry))
    if not names:
        raise InputError(f"{directory}: no class folders; data_prep/prepare_imagenet.py reads ImageNet's other layouts")
    return names


def _is_folder(entry: os.DirEntry[str]) -> bool:
    if entry.is_symlink() and not Path(entry.path).exists():  # a loop too
        raise InputError(f"{entry.path}: {LOST_LINK}")
    return entry.is_dir()


def _image_names(directory: Path) -> list[bytes]:
    """The image files of one class, sorted; folders, hidden files and other suffixes are ignored.

    A link to nothing, or to what is not a file, counts: reading it names it.
    """
    with _naming_unreadable(directory), os.scandir(os.fsencode(directory)) as entries:
        images = (entry for entry in entries if entry.name.lower().endswith(SUFFIXES) and entry.name[:1] != b".")
        names = sorted(entry.name for entry in images if not entry.is_dir(follow_symlinks=False))
    if not names:
        raise InputError(f"{directory}: no .JPEG, .jpg or .png file in this class folder")
    return names
