"""Images to time loaders on, where there are no others: as many bytes as ImageNet's, and as hard to decode."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from alexnet2012.core.errors import InputError
from alexnet2012.core.threads import cores
from alexnet2012.data import Dataset, open_dataset
from alexnet2012.data.prepare.shards import Settings, prepare
from alexnet2012.data.prepare.source import open_source
from alexnet2012.data.shards import MANIFEST

IMAGES, CLASSES, SIDE = 2048, 16, 256
DRAWN = 64  # different ones: the others are cut from them
SLOPE = 1.57  # amplitude falls with frequency to this power: JPEGs of about 29 KB, as ImageNet's were when prepared


@contextmanager
def prepared_and_files(directory: Path | None = None, images: int = IMAGES) -> Iterator[tuple[Path, Path]]:
    """A prepared set, ``directory`` or one made here, and its first images as a tree of single JPEG files."""
    with TemporaryDirectory(prefix="alexnet2012-") as name:
        place = Path(name)
        if directory is None:
            directory = place / "prepared"
            write_tree(place / "drawn", images)
            prepare(open_source(place / "drawn"), directory, Settings(), cores(), False, lambda images: None)
        write_files(open_dataset(directory, "train"), place / "files", images)
        yield directory, place / "files"


def write_ppm(files: Path, directory: Path) -> Path:
    """A prepared set of the tree ``files``, its pixels as they are."""
    prepare(open_source(files), directory, Settings(encoding="ppm"), cores(), False, lambda images: None)
    return directory


def refuse_small(directory: Path) -> None:
    """Raises InputError for what is no prepared set of JPEGs, of as many training images as are timed."""
    if not (directory / MANIFEST).is_file():
        raise InputError(f"--data {directory}: not a prepared set; make one with data_prep/prepare_imagenet.py")
    train = open_dataset(directory, "train")
    if train.raw:
        raise InputError(f"--data {directory}: holds PPMs; one of JPEGs is timed, and PPMs made of it")
    if (count := len(train)) < IMAGES:
        raise InputError(f"--data {directory}: has {count} training images; {IMAGES} are timed")


def write_files(dataset: Dataset, directory: Path, images: int) -> None:
    """The first of ``dataset``, byte for byte, as ``train/<class>/<number>.JPEG``; one a class in ``val`` too."""
    for index in range(min(images, len(dataset))):
        encoded, label = dataset[index]
        for split in ("train", "val"):
            path = directory / split / f"n{label:08d}" / f"{split}{index}.JPEG"
            path.parent.mkdir(parents=True, exist_ok=True)
            if split == "train" or not any(path.parent.iterdir()):
                path.write_bytes(encoded)


def write_tree(directory: Path, images: int) -> None:
    """``images`` training images, and one a class to validate on."""
    random = np.random.default_rng(2012)
    drawn = [draw(random, 2 * SIDE) for _ in range(DRAWN)]
    for index in range(images + CLASSES):
        split = "train" if index < images else "val"
        folder = directory / split / f"n{index % CLASSES:08d}"
        folder.mkdir(parents=True, exist_ok=True)
        top, left = random.integers(0, SIDE, 2)
        cut = drawn[index % DRAWN][top : top + SIDE, left : left + SIDE]
        Image.fromarray(cut).save(folder / f"{split}{index}.JPEG", quality=95)


def draw(random: np.random.Generator, side: int) -> NDArray[np.uint8]:
    """Noise (side, side, 3) with the spectrum of photographs, its channels mostly alike."""
    frequency = np.hypot(*np.meshgrid(np.fft.fftfreq(side), np.fft.rfftfreq(side), indexing="ij")) + 1 / side
    waves = np.fft.rfft2(random.standard_normal((3, side, side))) / frequency**SLOPE
    planes = np.fft.irfft2(waves)
    planes /= planes.std()
    colors = 127 + 45 * planes[0] + 12 * planes
    return colors.clip(0, 255).astype(np.uint8).transpose(1, 2, 0)
