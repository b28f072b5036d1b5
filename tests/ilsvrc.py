"""A synthetic ILSVRC-2012: ten classes, every oddity of the real one, written in each layout people have it in."""

from __future__ import annotations

import functools
import io
import tarfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.io import savemat

from alexnet2012.data.prepare import workers as preparation_workers
from alexnet2012.data.prepare.shards import Settings, prepare
from alexnet2012.data.prepare.source import open_source

WNIDS = [
    f"n{number:08d}"
    for number in (1440764, 1443537, 1530575, 2085620, 2123045, 2510455, 3000684, 3584254, 7753592, 9835506)
]
WORDS = [f"thing {number}, Res {number}" for number in range(10)]
DEVKIT_ORDER = [7, 2, 9, 0, 5, 1, 8, 3, 6, 4]  # ILSVRC2012_ID i + 1 is class DEVKIT_ORDER[i]: not sorted by wnid
SIZES = [(500, 375), (375, 500), (333, 500), (40, 500), (500, 40), (256, 256), (300, 257), (17, 23), (640, 427)]
LARGE = (3000, 2000)
TRUNCATED = f"{WNIDS[4]}_2"
CMYK, PNG, GREY, ROTATED, BIG = (f"{WNIDS[k]}_1" for k in (1, 2, 3, 5, 6))


@dataclass(frozen=True)
class Ilsvrc:
    """The images, as bytes."""

    train: dict[str, bytes]  # key -> file; the key begins with the wnid
    val: dict[str, bytes]
    labels: dict[str, int]  # of both: the truth


@functools.cache
def images(truncated: bool = False) -> Ilsvrc:
    """60 training images, 20 for validation. ``truncated``: one ends too soon."""
    random = np.random.default_rng(2012)
    train, labels = {}, {}
    for label, wnid in enumerate(WNIDS):
        for number in range(6):
            key = f"{wnid}_{number}"
            train[key], labels[key] = _image(random, key), label
    val = {}
    for number in range(1, 21):
        key = f"ILSVRC2012_val_{number:08d}"
        val[key], labels[key] = _image(random, key), int(random.integers(10))
    if truncated:
        train[TRUNCATED] = train[TRUNCATED][: len(train[TRUNCATED]) // 2]
    return Ilsvrc(train, val, labels)


def write_archives(directory: Path, ilsvrc: Ilsvrc) -> Path:
    """The three official archives: a tar of class tars, a tar, a packed devkit."""
    directory.mkdir(exist_ok=True)
    with tarfile.open(directory / "ILSVRC2012_img_train.tar", "w") as outer:
        for wnid in reversed(WNIDS):
            inner = _tar({f"{key}.JPEG": file for key, file in ilsvrc.train.items() if key.startswith(wnid)})
            _add(outer, f"{wnid}.tar", inner)
    val = _tar({f"{key}.JPEG": file for key, file in ilsvrc.val.items()})
    (directory / "ILSVRC2012_img_val.tar").write_bytes(val)
    with tarfile.open(directory / "ILSVRC2012_devkit_t12.tar.gz", "w:gz") as devkit:
        for name, content in devkit_files(ilsvrc).items():
            _add(devkit, f"ILSVRC2012_devkit_t12/{name}", content)
    return directory


def write_tree(directory: Path, ilsvrc: Ilsvrc) -> Path:
    """``train/<wnid>/`` and ``val/<wnid>/``."""
    for split, files in (("train", ilsvrc.train), ("val", ilsvrc.val)):
        for key, file in files.items():
            _write(directory / split / WNIDS[ilsvrc.labels[key]] / f"{key}.JPEG", file)
    return directory


def write_flat_with_devkit(directory: Path, ilsvrc: Ilsvrc) -> Path:
    """A flat ``val/``, and the devkit unpacked."""
    _write_flat(directory, ilsvrc)
    for name, content in devkit_files(ilsvrc).items():
        _write(directory / "ILSVRC2012_devkit_t12" / name, content)
    return directory


def write_flat_with_table(directory: Path, ilsvrc: Ilsvrc) -> Path:
    """A flat ``val/``, and Kaggle's tables."""
    _write_flat(directory, ilsvrc)
    _write_tables(directory, ilsvrc)
    return directory


def write_kaggle(directory: Path, ilsvrc: Ilsvrc) -> Path:
    """Kaggle's download, unpacked."""
    _write_flat(directory / "ILSVRC/Data/CLS-LOC", ilsvrc)
    _write_tables(directory, ilsvrc)
    return directory


def devkit_files(ilsvrc: Ilsvrc) -> dict[str, bytes]:
    """``meta.mat`` with groups among its synsets, and the ground truth in the devkit's numbers."""
    fields = (
        "ILSVRC2012_ID",
        "WNID",
        "words",
        "gloss",
        "num_children",
        "children",
        "wordnet_height",
        "num_train_images",
    )
    rows = [(i + 1, WNIDS[k], WORDS[k], "a thing", 0, [], 0, 6) for i, k in enumerate(DEVKIT_ORDER)]
    rows += [(11 + i, f"n0000000{i}", "group", "things", 2, [2 * i + 1, 2 * i + 2], 1, 0) for i in range(3)]
    synsets = np.zeros((len(rows), 1), [(name, object) for name in fields])
    for i, row in enumerate(rows):
        synsets[i, 0] = row
    meta = io.BytesIO()
    savemat(meta, {"synsets": synsets})
    numbers = {k: i + 1 for i, k in enumerate(DEVKIT_ORDER)}
    truth = "".join(f"{numbers[ilsvrc.labels[key]]}\n" for key in sorted(ilsvrc.val))
    return {
        "data/meta.mat": meta.getvalue(),
        "data/ILSVRC2012_validation_ground_truth.txt": truth.encode(),
        "readme.txt": b"ILSVRC2012",
    }


def prepare_forking(source: Path, out: Path, settings: Settings) -> None:
    """Prepare, in a process to be killed: its workers are forked, so that no server must first import all."""
    preparation_workers.START = "fork"
    prepare(open_source(source), out, settings, 2, False, lambda images: None)


def _image(random: np.random.Generator, key: str) -> bytes:
    """A smooth coloured picture, of one of ``SIZES``; a few keys name the oddities."""
    size = LARGE if key == BIG else SIZES[random.integers(len(SIZES))]
    picture = Image.fromarray(random.integers(0, 256, (6, 8, 3), dtype=np.uint8)).resize(size, Image.Resampling.BICUBIC)
    file = io.BytesIO()
    if key == CMYK:
        picture.convert("CMYK").save(file, "JPEG")
    elif key == PNG:
        picture.convert("RGBA").save(file, "PNG")
    elif key == GREY:
        picture.convert("L").save(file, "JPEG")
    elif key == ROTATED:
        exif = Image.Exif()
        exif[0x0112] = 6  # orientation: turned by 90 degrees
        picture.save(file, "JPEG", exif=exif, comment=b"a comment")
    else:
        picture.save(file, "JPEG", quality=90)
    return file.getvalue()


def _write_flat(directory: Path, ilsvrc: Ilsvrc) -> None:
    for key, file in ilsvrc.train.items():
        _write(directory / "train" / WNIDS[ilsvrc.labels[key]] / f"{key}.JPEG", file)
    for key, file in ilsvrc.val.items():
        _write(directory / "val" / f"{key}.JPEG", file)


def _write_tables(directory: Path, ilsvrc: Ilsvrc) -> None:
    rows = [f"{key},{WNIDS[ilsvrc.labels[key]]} 1 2 30 40 {WNIDS[0]} 5 6 7 8 " for key in reversed(ilsvrc.val)]
    _write(directory / "LOC_val_solution.csv", "\n".join(["ImageId,PredictionString", *rows, ""]).encode())
    lines = [f"{wnid} {words}\n" for wnid, words in zip(WNIDS, WORDS, strict=True)]
    _write(directory / "LOC_synset_mapping.txt", "".join(lines).encode())


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def _tar(files: dict[str, bytes]) -> bytes:
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        for name, content in files.items():
            _add(tar, name, content)
    return archive.getvalue()


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    tar.addfile(info, io.BytesIO(content))
