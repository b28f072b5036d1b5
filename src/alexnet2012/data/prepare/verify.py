"""Does a prepared set hold what its source does? Everything is read again; nothing in the set is written."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from alexnet2012.core.errors import InputError
from alexnet2012.core.guarded_files import Damaged
from alexnet2012.data.pixels import SIDE, decode, open_image
from alexnet2012.data.prepare.archive import Member, members
from alexnet2012.data.prepare.shards import Settings, Shard, plan_shards
from alexnet2012.data.prepare.source import MD5, OFFICIAL, Source, md5
from alexnet2012.data.prepare.workers import count_image, run
from alexnet2012.data.shards import (
    ADVICE,
    MANIFEST,
    PPM_BYTES,
    PPM_HEADER,
    SUFFIXES,
    ShardDataset,
    read_manifest,
)
from alexnet2012.data.statistics import Sums

CHECKSUMS, LABELS = "shards with the manifest's checksum", "images and labels that are the source's"
INDEXED, DECODED = "images where the index says", "images that decode"


class Check(NamedTuple):
    """One line of the report."""

    what: str
    found: int | str
    expected: int | str

    @property
    def holds(self) -> bool:
        return self.found == self.expected


@dataclass
class Findings:
    """Of reading a shard again."""

    problems: list[tuple[str, str]] = field(default_factory=list)  # (check that fails, shard and image)
    sums: Sums = field(default_factory=Sums)  # of the images that decode


class StoredImage(NamedTuple):
    """As the tar has it, whatever the index says."""

    key: str
    label: str
    offset: int  # bytes
    length: int  # bytes


def verify(
    source: Source, directory: Path, workers: int, progress: Callable[[int], object]
) -> tuple[list[Check], list[str]]:
    """Compare the prepared set with ``source``: (checks, problems by name).

    ``progress`` is called with the number of images read. Raises InputError when the set cannot even be opened.
    """
    settings = read_manifest(directory)["settings"]
    chosen = Settings(
        **{setting.name: settings[setting.name] for setting in fields(Settings) if setting.name in settings}
    )
    shards = plan_shards(source, directory, chosen)
    stored = {split: ShardDataset(directory, split) for split in source.images}
    if (listed := sum(len(dataset.shards) for dataset in stored.values())) != len(shards):
        raise InputError(f"{directory / MANIFEST}: lists {listed} shards, the source makes {len(shards)}; {ADVICE}")
    problems, training = [], Sums()
    for shard, found in run(check_shard, shards, workers, progress):
        problems += found.problems
        if shard.split == "train":
            training.merge(found.sums)
    failed, images = Counter(check for check, _ in problems), sum(map(len, stored.values()))
    checks = [
        *_counts(source, stored),
        Check(CHECKSUMS, len(shards) - failed[CHECKSUMS], len(shards)),
        *(Check(check, images - failed[check], images) for check in (LABELS, INDEXED, DECODED)),
        Check("statistics", "equal" if _equal(training, stored["train"]) else "different", "equal"),
    ]
    return checks, sorted(problem for _, problem in problems)


def check_archives(source: Source) -> list[Check]:
    """MD5 of the official archives against the published ones. Takes minutes for their 145 GB."""
    return [Check(f"MD5 of {path.name}", md5(path), MD5[path.name]) for path in source.archives]


def check_shard(shard: Shard) -> Findings:
    """Read one shard from its first byte to its last and hold it against the source, the index and the manifest."""
    manifest = read_manifest(shard.directory)
    entries, unreadable = manifest["splits"][shard.split]["shards"], set(manifest["unreadable"])
    first = sum(entry["images"] for entry in entries[: shard.number])
    rows = ShardDataset(shard.directory, shard.split).index[first : first + entries[shard.number]["images"]]
    expected = [
        (file.key, label)
        for file, label in zip(shard.files, shard.labels, strict=True)
        if f"{shard.split}/{file.key}" not in unreadable
    ]
    found, encoding = Findings(), shard.settings.encoding
    with shard.path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        file.seek(0)
        images = _stored_images(file, SUFFIXES[encoding])
        if digest != entries[shard.number]["sha256"]:
            found.problems.append((CHECKSUMS, f"{shard.path}: its checksum is not the manifest's"))
        if not len(images) == len(rows) == len(expected):
            counts = f"{len(images)} images, {len(rows)} in the index, {len(expected)} expected"
            found.problems.append((INDEXED, f"{shard.path}: {counts}"))
        for (key, label), row, image in zip(expected, rows.tolist(), images, strict=False):
            name = f"{shard.path}: {key}"
            if (image.key, image.label) != (key, str(label)):
                found.problems.append((LABELS, f"{name} of class {label} is {image.key} of class {image.label}"))
            if row != (shard.number, image.offset, image.length, label):
                found.problems.append((INDEXED, f"{name}: the index has another place or class"))
            if (pixels := _decode_stored(os.pread(file.fileno(), image.length, image.offset), encoding)) is None:
                found.problems.append((DECODED, f"{name}: no whole RGB {encoding.upper()} of {SIDE}x{SIDE}"))
            else:
                found.sums.add(pixels[None])
            count_image()
    return found


def _stored_images(file: BinaryIO, suffix: str) -> list[StoredImage]:
    """Every pair of members, up to where the tar is damaged."""
    listed: list[Member] = []
    with suppress(Damaged):
        listed += members(file, Path())
    images = []
    for image, label in zip(listed[::2], listed[1::2], strict=False):
        key, text = image.name.stem, os.pread(file.fileno(), label.length, label.offset)
        paired = (str(image.name), str(label.name)) == (f"{key}.{suffix}", f"{key}.cls")
        name = key if paired else str(image.name)
        images.append(StoredImage(name, text.decode("latin-1"), image.offset, image.length))
    return images


def _decode_stored(encoded: bytes, encoding: str) -> NDArray[np.uint8] | None:
    """Pixels (256, 256, 3), or None if it is anything but a whole RGB image of that size and ``encoding``."""
    if encoding == "ppm":
        return decode(encoded) if len(encoded) == PPM_BYTES and encoded.startswith(PPM_HEADER) else None
    try:
        with open_image(encoded) as image:
            as_stored = (image.format, image.mode, image.size) == ("JPEG", "RGB", (SIDE, SIDE))
        return decode(encoded) if as_stored else None
    except Exception:  # Pillow's are many
        return None


def _counts(source: Source, stored: dict[str, ShardDataset]) -> list[Check]:
    """Against ILSVRC-2012, if its classes and validation images are as many; else against the source itself."""
    own = {split: len(files) for split, files in source.images.items()} | {"classes": len(source.wnids)}
    official = (own["classes"], own["val"]) == (OFFICIAL["classes"], OFFICIAL["val"])
    expected = dict(OFFICIAL if official else own)
    for name in read_manifest(stored["train"].directory)["unreadable"]:
        expected[name.partition("/")[0]] -= 1  # left out as asked
    return [
        Check("training images", len(stored["train"]), expected["train"]),
        Check("validation images", len(stored["val"]), expected["val"]),
        Check("classes", len(stored["train"].classes), expected["classes"]),
    ]


def _equal(training: Sums, dataset: ShardDataset) -> bool:
    """Whether ``statistics.npz`` is what ``training`` gives."""
    if not training.images:
        return False
    again, kept = training.statistics(), dataset.statistics
    return again.images == kept.images and all(
        np.array_equal(getattr(again, name), getattr(kept, name)) for name in ("mean", "covariance")
    )
