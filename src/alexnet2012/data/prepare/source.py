"""ILSVRC-2012 as people have it, as one list of images: official archives, extracted trees, Kaggle's download.

Archives are never unpacked: an image is a range of bytes in a file, whether its own, a tar, or a tar in a tar.
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path, PurePosixPath
from typing import BinaryIO, NamedTuple

from alexnet2012.core.errors import InputError
from alexnet2012.core.guarded_files import is_file, open_file, read_bytes
from alexnet2012.data.dataset import in_words
from alexnet2012.data.datasets import LOST_LINK
from alexnet2012.data.matlab_file import read_structs
from alexnet2012.data.prepare.archive import Member, members
from alexnet2012.recipe import CLASSES

TRAIN, VAL, DEVKIT = "ILSVRC2012_img_train.tar", "ILSVRC2012_img_val.tar", "ILSVRC2012_devkit_t12.tar.gz"
GROUND_TRUTH = "ILSVRC2012_validation_ground_truth.txt"  # in the devkit, beside meta.mat
MD5 = {  # of the official archives
    TRAIN: "1d675b47d978889d74fa0da5fadfb00e",
    VAL: "29b22e2961454d5413ddabcf34fc5622",
    DEVKIT: "fa75699e90414af021442c21a62c3abf",
}
OFFICIAL = {"train": 1_281_167, "val": 50_000, "classes": CLASSES}  # images, images, classes of ILSVRC-2012
SUFFIXES = (".jpeg", ".jpg", ".png")  # of images, in any case
TREES = (".", "ILSVRC/Data/CLS-LOC")  # where train/ and val/ may lie: as extracted, Kaggle's
DEVKIT_BYTES, TABLE_BYTES = 2**26, 2**28  # at most, unpacked: the devkit has 4 MB, Kaggle's table 5 MB
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
    named_in: Path  # the file of the words


def open_source(directory: str | Path) -> Source:
    """Recognise the layout under ``directory`` and list its images. Raises InputError naming what is missing."""
    directory = Path(directory)
    if not directory.is_dir():
        what = "not a directory" if directory.exists() else "no such directory"
        raise InputError(f"{directory}: {what}; SOURCE holds the archives, or train/ and val/")
    try:
        truth = _read_devkit(directory) or _read_kaggle(directory) or Truth(directory, {}, {}, directory)
        train, val = list(_training_files(directory)), _label(_validation_files(directory), truth)
    except OSError as error:
        raise InputError(f"{error.filename or directory}: cannot be read ({error.strerror})") from error
    wnids = sorted({file.wnid for file in train})
    if truth.words and (different := sorted(truth.words.keys() ^ set(wnids))):
        raise InputError(
            f"{truth.named_in}: lists {len(truth.words)} classes, the training images have {len(wnids)}; only one has "
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
    if is_file(archive):
        with open_file(archive) as file:
            for member in _plain(members(file, archive), archive, (".tar",)):
                end = member.offset + member.length
                yield from _archived_images(file, archive, member.offset, end, wnid=member.name.stem)
    else:
        for folder in _subfolders(_find_tree(directory, "train", TRAIN)):
            yield from _folder_images(folder, wnid=folder.name)


def _validation_files(directory: Path) -> Iterator[File]:
    archive = directory / VAL
    if is_file(archive):
        with open_file(archive) as file:
            yield from _archived_images(file, archive)
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
            name = PurePosixPath(entry.name)
            if name.suffix.lower() not in SUFFIXES or name.name.startswith(".") or entry.is_dir():
                continue
            if not entry.is_file():
                raise InputError(f"{entry.path}: {LOST_LINK}")
            yield File(name.stem, wnid, entry.path, 0, entry.stat().st_size)


def _archived_images(
    file: BinaryIO, path: Path, start: int = 0, stop: int | None = None, wnid: str = ""
) -> Iterator[File]:
    for member in _plain(members(file, path, start, stop), path, SUFFIXES):
        yield File(member.name.stem, wnid, str(path), member.offset, member.length)


def _plain(listed: Iterator[Member], path: Path, suffixes: tuple[str, ...]) -> Iterator[Member]:
    """Members that are files with one of ``suffixes``, without what macOS adds. Raises InputError naming any other."""
    for member in listed:
        if member.odd:
            raise InputError(f"{path}: {member.name} is {member.odd}; put its file in the archive")
        if member.name.name.startswith("._") or member.name.name == ".DS_Store":
            continue
        if member.name.suffix.lower() not in suffixes:
            expected = ", ".join(suffixes)
            raise InputError(f"{path}: {member.name} is not one of {expected}; rename it or remove it from the archive")
        yield member


def _label(files: Iterator[File], truth: Truth) -> list[File]:
    """Assign a class to every validation image; a folder that names one too must name the same."""
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
    packed = is_file(archive)
    if not packed and not folder.is_dir():
        return None
    origin = archive if packed else folder
    try:
        if packed:
            meta, truth = _read_packed(archive, "meta.mat", GROUND_TRUTH)
        else:
            meta, truth = (read_bytes(folder / name, DEVKIT_BYTES) for name in ("meta.mat", GROUND_TRUTH))
        synsets = read_structs(meta, "synsets", ("ILSVRC2012_ID", "WNID", "words", "num_children"), DEVKIT_BYTES)
        leaves = [synset[:3] for synset in synsets if synset[3] == 0]  # the others are groups of classes
        wnids = {number: str(wnid) for number, wnid, _ in leaves}
        words = {str(wnid): str(of_class) for _, wnid, of_class in leaves}
        if not all(isinstance(text, str) and text.strip() for _, *texts in leaves for text in texts):
            raise ValueError("a class without words")
        numbers = [int(number) for number in truth.split()]
        validation = {f"ILSVRC2012_val_{i:08d}": wnids[n] for i, n in enumerate(numbers, start=1)}
        return Truth(origin, validation, words, origin)
    except Exception as error:  # a damaged gzip, tar or MATLAB file raises what its reader does not expect
        raise InputError(
            f"{origin}: damaged, or not the devkit of ILSVRC2012 ({error!r}); download it again"
        ) from error


def _read_packed(archive: Path, *names: str) -> list[bytes]:
    """Contents of the files of these names in a .tar.gz. Raises KeyError for a missing one, ValueError for too much."""
    with open_file(archive) as file, gzip.GzipFile(fileobj=file) as unpacked:
        content = unpacked.read(DEVKIT_BYTES + 1)
    if len(content) > DEVKIT_BYTES:
        raise ValueError(f"more than {DEVKIT_BYTES} bytes")
    found = {member.name.name: member for member in members(io.BytesIO(content), archive) if not member.odd}
    return [content[found[name].offset :][: found[name].length] for name in names]


def _read_kaggle(directory: Path) -> Truth | None:
    """``LOC_val_solution.csv`` (``ImageId,PredictionString``: the wnid, then boxes) and ``LOC_synset_mapping.txt``."""
    origin, mapping = directory / "LOC_val_solution.csv", directory / "LOC_synset_mapping.txt"
    if not is_file(origin):
        return None
    try:
        table = io.StringIO(read_bytes(origin, TABLE_BYTES).decode("utf-8-sig"), newline="")
        rows = [(row["ImageId"], row["PredictionString"].split()[0]) for row in csv.DictReader(table)]
    except (ValueError, LookupError, AttributeError, csv.Error) as error:
        raise InputError(f"{origin}: not Kaggle's table of labels ({error!r}); download it again") from error
    if twice := [key for key, times in Counter(key for key, _ in rows).items() if times > 1]:
        raise InputError(f"{origin}: {twice[0]} has two rows; download it again")
    return Truth(origin, dict(rows), _read_words(mapping) if is_file(mapping) else {}, mapping)


def _read_words(mapping: Path) -> dict[str, str]:
    """wnid -> words. Raises InputError for a table that is empty, or has a line without words or a class twice."""
    try:
        lines = [line for line in read_bytes(mapping, TABLE_BYTES).decode().split("\n") if line.strip()]
    except ValueError as error:
        raise InputError(f"{mapping}: not Kaggle's table of words ({error}); download it again") from error
    words = {wnid: of_class.strip() for wnid, _, of_class in (line.partition(" ") for line in lines)}
    if not lines or len(words) < len(lines) or not all(words.values()):
        reason = "is empty" if not lines else "has a line without words, or a class twice"
        raise InputError(f"{mapping}: {reason}; download it again, or remove it: classes then go by their own names")
    return words
