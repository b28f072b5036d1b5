"""ImageNet to prepared shards: every image decoded once and for all, cut to 256x256 as in 2012 (P §2), and shuffled.

One worker makes a shard, from a list of images fixed beforehand, and gives it its name when it is whole. So any number
of workers, killed at any moment and started again, end with the same bytes.
"""

from __future__ import annotations

import fcntl
import io
import json
import shutil
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
import PIL
from numpy.typing import NDArray
from PIL import Image, features

from alexnet2012.core.atomic_files import atomic_write, remove_partials
from alexnet2012.core.errors import InputError
from alexnet2012.core.guarded_files import Damaged, Field, is_count, open_lock, read_json, read_npz, require
from alexnet2012.core.random_streams import Purpose, philox
from alexnet2012.data.pixels import SIDE, decode, open_image, pnm
from alexnet2012.data.prepare.source import File, Source
from alexnet2012.data.prepare.workers import count_image, run
from alexnet2012.data.shards import (
    ADVICE,
    FILES,
    INDEX,
    MANIFEST,
    UNFINISHED,
    ShardDataset,
    ShardWriter,
    read_manifest,
    seal,
)
from alexnet2012.data.statistics import SUMS, Sums

# Chosen on six of scikit-image's photographs, each at three sizes about 500x375 (JPEG quality 92), stored at 256x256
# with quality 95 (one thread; decoding by Pillow and by torchvision, medians of three loaded runs):
#   4:4:4  34.5 KB  43.6 dB  mean difference 1.2 of 255   781/s  1385/s
#   4:2:2  30.5 KB  41.9 dB                  1.4           904/s  1548/s
#   4:2:0  28.0 KB  40.6 dB                  1.6          1045/s  1445/s
# The sources are 4:2:0 themselves, and decoding is what bounds training: a fifth fewer bytes and faster.
SUBSAMPLING = "4:2:0"
BYTES_PER_IMAGE = {"jpeg": 36_000, "ppm": 198_656}  # in a shard, to check the disk's space by: of JPEGs 29,000 measured
BYTES_PER_RECORD = 1_700_000  # mostly the sum of a shard's images, 256 x 256 x 3 in int64
GREY = ("1", "L", "LA", "I", "I;16")  # Pillow's modes
RECORD = {"rows": Field(INDEX, ("rows",)), "notes": Field("U", ()), **SUMS}
NOTES = {"sha256": str, "bytes": is_count, "odd": {f"{kind}?": [str] for kind in ("cmyk", "grey", "png", "unreadable")}}


@dataclass(frozen=True)
class Settings:
    """What decides the bytes of a prepared set, its source aside. All ours."""

    quality: int = 95  # of the stored JPEGs
    seed: int = 0  # of the order
    images_per_shard: int = 2_500  # shards of about 75 MB, of PPM 500 MB: a kill loses some seconds of work
    encoding: str = "jpeg"  # or ppm: the pixels as they are


@dataclass(frozen=True)
class Shard:
    """A shard to make: images of one split, in their final order."""

    directory: Path
    split: str
    number: int  # within its split
    files: list[File]
    labels: list[int]
    settings: Settings
    skip_unreadable: bool

    @property
    def path(self) -> Path:
        return self.directory / f"{self.split}-{self.number:06d}.tar"

    @property
    def record(self) -> Path:
        """What the index, the statistics and the manifest need of this shard, kept until all are made."""
        return self.directory / UNFINISHED / f"{self.path.stem}.npz"

    @property
    def made(self) -> bool:
        """Whether it is there with its record, both whole."""
        try:
            read_record(self)
        except Damaged:
            return False
        return True


def prepare(
    source: Source,
    directory: Path,
    settings: Settings,
    workers: int,
    skip_unreadable: bool,
    progress: Callable[[int], object],
) -> dict[str, Any]:
    """Make the prepared set of ``source`` in ``directory``, or go on making it; returns its manifest.

    ``progress`` is called with how many images are done. Raises InputError for an unreadable image (unless it is to be
    skipped), a full disk, or a directory that holds anything else.
    """
    description = describe(source, settings)
    if not _finished(directory, description):
        with _claimed(directory, description):
            shards = plan_shards(source, directory, settings, skip_unreadable)
            missing = [shard for shard in shards if not shard.made]
            _check_space(directory, missing, BYTES_PER_IMAGE[settings.encoding])
            made = sum(len(shard.files) for shard in shards) - sum(len(shard.files) for shard in missing)
            for _ in run(make_shard, missing, workers, lambda images: progress(made + images)):
                pass
            _finish(directory, shards, source, description)
    shutil.rmtree(directory / UNFINISHED, ignore_errors=True)
    return read_manifest(directory)


def describe(source: Source, settings: Settings) -> dict[str, Any]:
    """All that decides a prepared set's bytes. Two sets with equal descriptions are equal."""
    encoding: dict[str, Any] = {"subsampling": SUBSAMPLING, "quality": settings.quality}
    if settings.encoding != "jpeg":
        encoding = {"encoding": settings.encoding}
    return {
        "format": 2,  # 1 drew its order from another stream
        "size": SIDE,
        "filter": "Pillow's bilinear, antialiased; shorter side to size, then the central square",
        **encoding,
        "seed": settings.seed,
        "images_per_shard": settings.images_per_shard,
        "images": {split: len(files) for split, files in source.images.items()},
        "classes": len(source.wnids),
        "source": source.fingerprint(),
    }


def plan_shards(source: Source, directory: Path, settings: Settings, skip_unreadable: bool = False) -> list[Shard]:
    """Every shard, with its images: each split in an order that its seed alone decides."""
    labels = {wnid: label for label, wnid in enumerate(source.wnids)}
    shards = []
    for index, (split, files) in enumerate(source.images.items()):
        draws = philox(Purpose.PREPARATION, settings.seed, index).random_raw(len(files))
        order = draws.argsort(kind="stable").tolist()
        for number, start in enumerate(range(0, len(files), settings.images_per_shard)):
            chosen = [files[index] for index in order[start : start + settings.images_per_shard]]
            of_chosen = [labels[file.wnid] for file in chosen]
            shards.append(Shard(directory, split, number, chosen, of_chosen, settings, skip_unreadable))
    return shards


class Record(NamedTuple):
    """What ``make_shard`` leaves beside a shard."""

    rows: NDArray[np.void]  # of the index
    sums: Sums
    notes: dict[str, Any]  # see NOTES


def read_record(shard: Shard) -> Record:
    """Raises Damaged where the record is missing or damaged, or contradicts the shard."""
    arrays = read_npz(shard.record, RECORD)
    try:
        notes = json.loads(str(arrays["notes"]))
        require(notes, NOTES)
        rows, images = arrays["rows"], int(arrays["images"])
        if not len(rows) == images == len(shard.files) - len(notes["odd"].get("unreadable", [])):
            raise ValueError(f"{len(rows)} rows and {images} images, of {len(shard.files)}")
        if images and arrays["pixels"].shape != (SIDE, SIDE, 3):
            raise ValueError(f"sums of shape {arrays['pixels'].shape}")
        if (size := shard.path.stat().st_size) != notes["bytes"]:
            raise ValueError(f"the shard has {size} bytes, not {notes['bytes']}")
    except (OSError, ValueError, RecursionError) as error:
        raise Damaged(shard.record, f"cannot be used ({error})") from error
    return Record(rows, Sums(images, arrays["pixels"], arrays["products"]), notes)


def make_shard(shard: Shard) -> None:
    """Write the shard and, before it gets its name, its record. Raises InputError, see ``prepare``."""
    sums, odd = Sums(), defaultdict(list)
    try:
        with atomic_write(shard.path, shard.record.parent) as partial, partial.open("wb") as file:
            writer = ShardWriter(file, shard.settings.encoding)
            for source_file, label in zip(shard.files, shard.labels, strict=True):
                if image := _prepare_file(source_file, shard):
                    writer.add(source_file.key, image.encoded, label)
                    sums.add(image.pixels[None])
                for kind in image.oddities if image else ["unreadable"]:
                    odd[kind].append(f"{shard.split}/{source_file.key}")
                count_image()
            notes = {"sha256": writer.finish(), "bytes": writer.bytes, "odd": odd}
            with atomic_write(shard.record) as unnamed, unnamed.open("wb") as record:
                rows = np.array([(shard.number, *row) for row in writer.rows], INDEX)
                np.savez(record, rows=rows, notes=json.dumps(notes), **vars(sums))
    except OSError as error:
        raise InputError(
            f"{shard.path}: cannot be written ({error.strerror}); mend that and run the same command again"
        ) from error


@dataclass(frozen=True)
class PreparedImage:
    """One image as stored."""

    encoded: bytes
    pixels: NDArray[np.uint8]  # (256, 256, 3), of ``encoded`` decoded again
    oddities: list[str]  # what its source was: cmyk, grey, png


def prepare_image(encoded: bytes, settings: Settings) -> PreparedImage:
    """Decode strictly, cut to 256x256, encode. Orientation tags are ignored, as in 2012.

    Raises OSError or another exception of Pillow for bytes that are no whole image.
    """
    with open_image(encoded) as image:
        kinds = {"cmyk": image.mode == "CMYK", "grey": image.mode in GREY, "png": image.format == "PNG"}
    stored, pixels = io.BytesIO(), decode(encoded)
    if settings.encoding == "ppm":
        stored.write(pnm(pixels))
    else:
        Image.fromarray(pixels).save(stored, "JPEG", quality=settings.quality, subsampling=SUBSAMPLING)
    return PreparedImage(stored.getvalue(), decode(stored.getvalue()), [kind for kind in kinds if kinds[kind]])


def _prepare_file(file: File, shard: Shard) -> PreparedImage | None:
    """The image of ``file``; None if it is unreadable and to be skipped."""
    encoded = file.read()
    try:
        return prepare_image(encoded, shard.settings)
    except Exception as error:
        if shard.skip_unreadable:
            return None
        raise InputError(
            f"{file}: no readable JPEG or PNG ({error}); replace it and delete --out, "
            "or leave such images out with --skip-unreadable"
        ) from error


def _finished(directory: Path, description: dict[str, Any]) -> bool:
    """Whether the set is complete. Raises InputError when the directory holds anything but this set, or part of it."""
    settings = directory / UNFINISHED / "settings.json"
    finished = (directory / MANIFEST).exists()
    if finished or settings.exists():
        held = read_manifest(directory)["settings"] if finished else read_json(settings, dict, ADVICE)
        here, there = ({"encoding": "jpeg"} | described for described in (description, held))
        if different := [name for name in here if there.get(name) != here[name]]:
            name = different[0]
            raise InputError(
                f"--out {directory}: holds another set ({name} {there.get(name)}, here {here[name]}); "
                f"delete it or choose another"
            )
    elif directory.is_dir() and any(path.name != UNFINISHED for path in directory.iterdir()):
        raise InputError(f"--out {directory}: is not empty, and no prepared set; choose another")
    for split in read_manifest(directory)["splits"] if finished else ():
        ShardDataset(directory, split)  # names a shard that is gone
    return finished


@contextmanager
def _claimed(directory: Path, description: dict[str, Any]) -> Iterator[None]:
    """Mark ``directory`` as holding this set, unfinished, and keep other preparations out."""
    unfinished = directory / UNFINISHED
    try:
        unfinished.mkdir(parents=True, exist_ok=True)
        with open_lock(unfinished / "lock") as lock:
            _lock(lock, directory)
            remove_partials(unfinished)
            with atomic_write(unfinished / "settings.json") as partial:
                partial.write_bytes(_json(description))
            yield
    except OSError as error:
        raise InputError(f"--out {directory}: cannot be written ({error.strerror})") from error


def _lock(file: IO[str], directory: Path) -> None:
    """Until ``file`` is closed or this process ends: a record lock, which the workers do not inherit."""
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError) as error:
        raise InputError(f"--out {directory}: another preparation is writing into it") from error


def _check_space(directory: Path, missing: list[Shard], bytes_per_image: int) -> None:
    images = sum(len(shard.files) for shard in missing)
    needed, free = images * bytes_per_image + len(missing) * BYTES_PER_RECORD, shutil.disk_usage(directory).free
    if free < needed:
        raise InputError(
            f"--out {directory}: {images} images need about {needed / 1e9:.1f} GB, {free / 1e9:.1f} GB are free"
        )


def _finish(directory: Path, shards: list[Shard], source: Source, description: dict[str, Any]) -> None:
    """From the shards' records: indices, statistics, class names and, last, the manifest."""
    training, odd, unfinished = Sums(), defaultdict[str, list[str]](list), directory / UNFINISHED
    rows = defaultdict[str, list[NDArray[np.void]]](list)
    entries = defaultdict[str, list[dict[str, Any]]](list)
    for shard in shards:
        of_shard, sums, notes = read_record(shard)
        rows[shard.split].append(of_shard)
        for kind, keys in notes.pop("odd").items():
            odd[kind] += keys
        entries[shard.split].append({"name": shard.path.name, "images": len(of_shard), **notes})
        if shard.split == "train":
            training.merge(sums)
    indices = {split: np.concatenate(of_split) for split, of_split in rows.items()}
    for split, index in indices.items():
        if not len(index):
            raise InputError(f"{source.directory}: no readable {split} image")
        with atomic_write(directory / f"{split}-index.npy", unfinished) as partial, partial.open("wb") as file:
            np.save(file, index, allow_pickle=False)
    with atomic_write(directory / "statistics.npz", unfinished) as partial:
        training.statistics().save(partial)
    classes = [{"wnid": wnid, "words": words} for wnid, words in zip(source.wnids, source.words, strict=True)]
    with atomic_write(directory / "classes.json", unfinished) as partial:
        partial.write_bytes(_json(classes))
    manifest = {
        "settings": description,
        "made_with": {"pillow": PIL.__version__, "libjpeg-turbo": features.version("libjpeg_turbo")},
        "unreadable": sorted(odd.pop("unreadable", [])),
        "repaired": {kind: sorted(keys) for kind, keys in sorted(odd.items())},
        "splits": {split: {"images": len(indices[split]), "shards": entries[split]} for split in indices},
        "files": {name: seal(directory / name) for name in FILES},
    }
    with atomic_write(directory / MANIFEST, unfinished) as partial:  # it says that all else is there
        partial.write_bytes(_json(manifest))


def _json(content: Any) -> bytes:
    return (json.dumps(content, indent=1) + "\n").encode()
