"""ILSVRC-2012 as people have it, as one list of images: official archives, extracted trees, Kaggle's download.

Archives are never unpacked: an image is a range of bytes in a file, whether its own, a tar, or a tar in a tar.
"""

from __future__ import annotations

import csv
import hashlib
import io
import os
import tarfile
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from scipy.io import loadmat

from alexnet2012.data.class_names import in_words
from alexnet2012.errors import InputError

TRAIN, VAL, DEVKIT = "ILSVRC2012_img_train.tar", "ILSVRC2012_img_val.tar", "ILSVRC2012_devkit_t12.tar.gz"
GROUND_TRUTH = "ILSVRC2012_validation_ground_truth.txt"  # in the devkit, beside meta.mat
MD5 = {  # of the official archives
    TRAIN: "1d675b47d978889d74fa0da5fadfb00e",
    VAL: "29b22e2961454d5413ddabcf34fc5622",
    DEVKIT: "fa75699e90414af021442c21a62c3abf",
}
OFFICIAL = {"train": 1_281_167, "val": 50_000, "classes": 1_000}  # images, images, classes of ILSVRC-2012
SUFFIXES = (".jpeg", ".jpg", ".png")  # of images, in any case
TREES = (".", "ILSVRC/Data/CLS-LOC")  # where train/ and val/ may lie: as extracted, Kaggle's
LOST_LINK = "a link to nothing; restore what it points at, or remove it"
KEY_BYTES = 96  # what the header of a tar's member holds, less the suffix


class File(NamedTuple):
    """Bytes of the source that should be an image."""

    key: str  # its file name without suffix: the same in every layout
    wnid: str  # its class; empty while only a table knows it
    path: str  # the file that holds it: its own, or an archive
    offset: int  # bytes
    length: int  # bytes

    def __str__(self) -> str:
        return f"{self.path}: {self.key} at byte {self.offset}" if self.offset else self.path

    def read(self) -> bytes:
        """The bytes. Raises InputError when they cannot be read, or are fewer than when listed."""
        try:
            with Path(self.path).open("rb") as file:
                file.seek(self.offset)
                content = file.read(self.length)
        except OSError as error:
            raise InputError(f"{self}: cannot be read ({error.strerror})") from error
        if len(content) < self.length:
            raise InputError(f"{self}: has become shorter since it was listed")
        return content


@dataclass(frozen=True)
class Source:
    """Every image of both splits, sorted by key, whatever the layout."""

    directory: Path
    images: dict[str, list[File]]  # by split: train, val
    wnids: list[str]  # sorted: a label is an index into them
    words: list[str]  # of each class: the source's, else those of ILSVRC-2012, else the wnid itself

    @property
    def archives(self) -> list[Path]:
        """The official archives among the source's files."""
        return [path for name in MD5 if (path := self.directory / name).is_file()]

    def fingerprint(self) -> str:
        """SHA-256 over every image's key, class and length: equal for all layouts of the same images."""
        digest = hashlib.sha256()
        for split, images in self.images.items():
            digest.update(f"{split} {len(images)}\n".encode())
            for file in images:
                digest.update(os.fsencode(f"{file.key} {file.wnid} {file.length}\n"))
        return digest.hexdigest()


@dataclass(frozen=True)
class Truth:
    """What the devkit or Kaggle's tables say."""

    origin: Path
    validation: dict[str, str]  # key -> wnid
    words: dict[str, str]  # wnid -> words


def open_source(directory: str | Path) -> Source:
    """Recognise the layout under ``directory`` and list its images. Raises InputError naming what is missing."""
    directory = Path(directory)
    if not directory.is_dir():
        what = "not a directory" if directory.exists() else "no such directory"
        raise InputError(f"{directory}: {what}; SOURCE holds the archives, or train/ and val/")
    truth = _read_devkit(directory) or _read_kaggle(directory) or Truth(directory, {}, {})
    try:
        train, val = list(_training_files(directory)), _label(_validation_files(directory), truth)
    except OSError as error:
        raise InputError(f"{error.filename or directory}: cannot be read ({error.strerror})") from error
    wnids = sorted({file.wnid for file in train})
    if truth.words and (different := sorted(truth.words.keys() ^ set(wnids))):
        raise InputError(
            f"{truth.origin}: lists {len(truth.words)} classes, the training images have {len(wnids)}; only one has "
            f"{different[0]}: the wrong devkit, or training images are missing"
        )
    if strangers := {file.wnid for file in val} - set(wnids):
        raise InputError(f"{directory}: validation images of {min(strangers)}, which has no training images")
    images = {"train": _in_order(train), "val": _in_order(val)}
    if empty := [split for split in images if not images[split]]:
        raise InputError(f"{directory}: has no {empty[0]} images (.JPEG, .jpg, .png)")
    return Source(directory, images, wnids, in_words(truth.words.get(wnid, wnid) for wnid in wnids))


def md5(path: Path) -> str:
    """The MD5 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "md5").hexdigest()


def _in_order(files: list[File]) -> list[File]:
    """Sorted by key. Raises InputError naming a file whose key is taken, or cannot be that of a tar's member."""
    files.sort()
    for file, after in pairwise(files):
        if file.key == after.key:
            raise InputError(f"{file} and {after}: two images of one name; rename one")
    for file in files:
        if "." in file.key or len(os.fsencode(file.key)) > KEY_BYTES:
            raise InputError(f"{file}: rename it; a name has at most {KEY_BYTES} bytes, and its suffix's dot alone")
    return files


def _training_files(directory: Path) -> Iterator[File]:
    archive = directory / TRAIN
    if archive.is_file():
        for name, offset, length in _tar_members(archive):
            if name.suffix == ".tar" and not name.name.startswith("."):
                yield from _tar_images(archive, offset, offset + length, wnid=name.stem)
    else:
        for folder in _subfolders(_find_tree(directory, "train", TRAIN)):
            yield from _folder_images(folder, wnid=folder.name)


def _validation_files(directory: Path) -> Iterator[File]:
    archive = directory / VAL
    if archive.is_file():
        yield from _tar_images(archive)
    else:
        tree = _find_tree(directory, "val", VAL)
        yield from _folder_images(tree)
        for folder in _subfolders(tree):
            yield from _folder_images(folder, wnid=folder.name)


def _find_tree(directory: Path, split: str, archive: str) -> Path:
    for root in TREES:
        if (tree := directory / root / split).is_dir():
            return tree
    raise InputError(f"{directory}: has no {archive}, no {split}/ and no {TREES[1]}/{split}/")


def _subfolders(folder: Path) -> list[Path]:
    paths = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    for path in paths:
        if path.is_symlink() and not path.exists():
            raise InputError(f"{path}: {LOST_LINK}")
    return [path for path in paths if path.is_dir()]


def _folder_images(folder: Path, wnid: str = "") -> Iterator[File]:
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir() and wnid and not entry.name.startswith("."):
                raise InputError(f"{entry.path}: a folder within a class; move its images up, or remove it")
            if not _is_image(name := PurePosixPath(entry.name)) or entry.is_dir():
                continue
            if not entry.is_file():
                raise InputError(f"{entry.path}: {LOST_LINK}")
            yield File(name.stem, wnid, entry.path, 0, entry.stat().st_size)


def _tar_images(archive: Path, start: int = 0, stop: int | None = None, wnid: str = "") -> Iterator[File]:
    path = str(archive)
    for name, offset, length in _tar_members(archive, start, stop):
        if _is_image(name):
            yield File(name.stem, wnid, path, offset, length)


def _is_image(name: PurePosixPath) -> bool:
    return name.suffix.lower() in SUFFIXES and not name.name.startswith(".")


def _tar_members(path: Path, start: int = 0, stop: int | None = None) -> Iterator[tuple[PurePosixPath, int, int]]:
    """(name, offset, length) of each file in the tar between two bytes of ``path``; offsets count from byte 0.

    Raises InputError with the offset where the archive is damaged or, cut short, lacks its end.
    """
    with path.open("rb") as file:
        file.seek(start)
        end = start
        with suppress(tarfile.TarError, OverflowError, ValueError), tarfile.open(fileobj=file, mode="r:") as tar:
            for member in tar:
                end = tar.offset
                if stop is not None and end >= stop:
                    break  # past its own end, which it lacks
                if member.islnk() or member.issym():
                    raise InputError(f"{path}: {member.name} is a link; put its file in the archive")
                if member.isfile():
                    yield PurePosixPath(member.name), member.offset_data, member.size
        file.seek(end)
        whole = file.read(tarfile.BLOCKSIZE) == bytes(tarfile.BLOCKSIZE)  # tarfile takes garbage for the end, too
        if not whole or (stop is not None and end >= stop):
            size = path.stat().st_size
            raise InputError(f"{path}: cut short or damaged at byte {min(end, size)} of {size}; download it again")


def _label(files: Iterator[File], truth: Truth) -> list[File]:
    """Give every validation image its class; where folders tell it too, both must agree."""
    labelled = []
    for file in files:
        wnid = truth.validation.get(file.key, file.wnid)
        if not wnid:
            raise InputError(f"{file}: no label in {truth.origin}; SOURCE needs {DEVKIT} or LOC_val_solution.csv")
        if file.wnid not in ("", wnid):
            raise InputError(f"{file}: in the folder of {file.wnid}, but {truth.origin} says {wnid}")
        labelled.append(file._replace(wnid=wnid))
    if absent := truth.validation.keys() - {file.key for file in labelled}:
        raise InputError(f"{truth.origin}: {len(absent)} of its images are missing, the first {min(absent)}")
    return labelled


def _read_devkit(directory: Path) -> Truth | None:
    """The devkit, packed or not. It numbers the classes in an order of its own, not that of the sorted wnids."""
    archive, folder = directory / DEVKIT, directory / DEVKIT.removesuffix(".tar.gz") / "data"
    if not archive.is_file() and not folder.is_dir():
        return None
    origin = archive if archive.is_file() else folder
    try:
        if origin == archive:
            meta, truth = _read_members(archive, "meta.mat", GROUND_TRUTH)
        else:
            meta, truth = ((folder / name).read_bytes() for name in ("meta.mat", GROUND_TRUTH))
        synsets = loadmat(io.BytesIO(meta), squeeze_me=True)["synsets"]
        leaves = synsets[synsets["num_children"] == 0]  # the others are groups of classes
        wnids = dict(zip(leaves["ILSVRC2012_ID"].tolist(), leaves["WNID"].tolist(), strict=True))
        words = dict(zip(leaves["WNID"].tolist(), leaves["words"].tolist(), strict=True))
        numbers = [int(number) for number in truth.split()]
        return Truth(origin, {f"ILSVRC2012_val_{i:08d}": wnids[n] for i, n in enumerate(numbers, start=1)}, words)
    except Exception as error:  # a damaged gzip, tar or MATLAB file raises whatever its reader meets
        raise InputError(
            f"{origin}: damaged, or not the devkit of ILSVRC2012 ({error!r}); download it again"
        ) from error


def _read_members(archive: Path, *names: str) -> list[bytes]:
    """Contents of the files of these names, in memory. Raises KeyError when one is missing."""
    with tarfile.open(archive, "r:gz") as tar:
        members = {PurePosixPath(member.name).name: member for member in tar if member.isfile()}
        return [file.read() for name in names if (file := tar.extractfile(members[name]))]


def _read_kaggle(directory: Path) -> Truth | None:
    """``LOC_val_solution.csv`` (``ImageId,PredictionString``: the wnid, then boxes) and ``LOC_synset_mapping.txt``."""
    origin, mapping = directory / "LOC_val_solution.csv", directory / "LOC_synset_mapping.txt"
    if not origin.is_file():
        return None
    try:
        with origin.open(newline="", encoding="utf-8-sig") as file:
            rows = [(row["ImageId"], row["PredictionString"].split()[0]) for row in csv.DictReader(file)]
    except (OSError, ValueError, LookupError, AttributeError, csv.Error) as error:
        raise InputError(f"{origin}: not Kaggle's table of labels ({error!r}); download it again") from error
    if twice := [key for key, times in Counter(key for key, _ in rows).items() if times > 1]:
        raise InputError(f"{origin}: {twice[0]} has two rows; download it again")
    try:
        lines = mapping.read_text(encoding="utf-8").splitlines() if mapping.is_file() else []
        return Truth(origin, dict(rows), dict(line.split(" ", 1) for line in lines if line.strip()))
    except (OSError, ValueError) as error:
        kind = type(error).__name__
        raise InputError(f"{mapping}: not Kaggle's table of words ({kind}); download it again") from error
