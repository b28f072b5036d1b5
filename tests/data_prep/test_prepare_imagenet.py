"""From a synthetic ILSVRC-2012 in every layout to prepared shards."""

from __future__ import annotations

import errno
import hashlib
import io
import json
import multiprocessing
import os
import random
import re
import shutil
import signal
import tarfile
import time
from collections.abc import Callable
from pathlib import Path

import ilsvrc
import numpy as np
import pytest
from PIL import Image

from alexnet2012.core.errors import InputError
from alexnet2012.data import open_dataset
from alexnet2012.data.pixels import decode
from alexnet2012.data.prepare import shards as preparation
from alexnet2012.data.prepare import verify as preparation_verify
from alexnet2012.data.prepare import workers as preparation_workers
from alexnet2012.data.prepare.shards import Settings, prepare
from alexnet2012.data.prepare.source import OFFICIAL, open_source
from alexnet2012.data.shards import FILES, ShardDataset, read_manifest
from alexnet2012.data.statistics import Statistics
from alexnet2012.recipe import COLORS_2014
from prepare_imagenet import main

SETTINGS = Settings(images_per_shard=9)
TRAIN, VAL, DEVKIT = "ILSVRC2012_img_train.tar", "ILSVRC2012_img_val.tar", "ILSVRC2012_devkit_t12.tar.gz"


def run(source: Path, out: Path, settings: Settings = SETTINGS, workers: int = 2, skip: bool = False) -> Path:
    prepare(open_source(source), out, settings, workers, skip, lambda images: None)
    return out


def contents(directory: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in directory.iterdir()}


@pytest.fixture(scope="module")
def archives(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return ilsvrc.write_archives(tmp_path_factory.mktemp("archives"), ilsvrc.images())


@pytest.fixture(scope="module")
def prepared(archives: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Made from the archives by one worker."""
    return run(archives, tmp_path_factory.mktemp("prepared") / "new" / "set", workers=1)


@pytest.fixture(scope="module")
def commanded(archives: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Made by the command, with its own settings: a shard a split."""
    out = tmp_path_factory.mktemp("commanded") / "set"
    assert main([str(archives), "--out", str(out), "--workers", "2"]) == 0
    return out


@pytest.mark.parametrize(
    "write",
    [ilsvrc.write_tree, ilsvrc.write_flat_with_devkit, ilsvrc.write_flat_with_table, ilsvrc.write_kaggle],
    ids=lambda write: write.__name__,
)
def test_every_layout_and_any_number_of_workers_give_the_same_bytes(
    write: Callable[[Path, ilsvrc.Ilsvrc], Path], prepared: Path, tmp_path: Path
) -> None:
    source = write(tmp_path / "source", ilsvrc.images())
    ours, theirs = contents(run(source, tmp_path / "set")), contents(prepared)
    if write is ilsvrc.write_tree:  # says nothing of words: the table of ILSVRC-2012 does
        assert json.loads((tmp_path / "set/classes.json").read_text())[3] == {
            "wnid": ilsvrc.WNIDS[3],
            "words": "Chihuahua",
        }
        manifests = [read_manifest(directory) for directory in (tmp_path / "set", prepared)]
        assert len({manifest["files"].pop("classes.json")["sha256"] for manifest in manifests}) == 2
        assert manifests[0] == manifests[1]
        ours |= {name: theirs[name] for name in ("classes.json", "manifest.json")}
    assert ours == theirs
    assert sum(name.startswith("train-0") for name in ours) == 7


def test_another_seed_gives_another_order_of_the_same_images(archives: Path, prepared: Path, tmp_path: Path) -> None:
    other = run(archives, tmp_path / "set", Settings(seed=1, images_per_shard=9))
    names = [
        [Path(d.name(i)).suffix for i in range(len(d))]
        for d in (ShardDataset(other, "train"), ShardDataset(prepared, "train"))
    ]
    assert names[0] != names[1] != sorted(names[1])
    assert sorted(names[0]) == sorted(names[1])


def test_every_label_is_the_truth(prepared: Path) -> None:
    truth = ilsvrc.images()
    assert [ilsvrc.WNIDS[k] for k in ilsvrc.DEVKIT_ORDER] != ilsvrc.WNIDS
    for split, files in (("train", truth.train), ("val", truth.val)):
        dataset = open_dataset(prepared, split)
        keys = [dataset.name(i).split(": ")[1] for i in range(len(dataset))]
        assert sorted(keys) == sorted(files)
        assert [dataset[i][1] for i in range(len(dataset))] == [truth.labels[key] for key in keys]
        assert dataset.classes == ilsvrc.WORDS


def test_stored_images_are_the_central_256x256_without_tags(prepared: Path) -> None:
    truth, dataset = ilsvrc.images(), ShardDataset(prepared, "train")
    for index in range(len(dataset)):
        key = dataset.name(index).split(": ")[1]
        image = Image.open(io.BytesIO(dataset[index][0]))
        assert (image.size, image.mode, image.format) == ((256, 256), "RGB", "JPEG")
        assert not {"exif", "comment"} & image.info.keys()
        difference = np.abs(np.asarray(image, np.float64) - decode(truth.train[key])).mean()
        assert difference < 2.5, key  # of 255: of storing as JPEG; an image turned by its tag differs by tens


def test_a_ppm_set_holds_the_pixels_that_a_jpeg_set_is_made_of(
    archives: Path, prepared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command, truth = [str(archives), "--out", str(tmp_path / "set"), "--workers", "1"], ilsvrc.images()
    assert main([*command, "--encoding", "ppm", "--verify"]) == 0
    report = json.loads((tmp_path / "set/verify.json").read_text())
    assert [check["holds"] for check in report["checks"]] == [True] * 8
    for split, files in (("train", truth.train), ("val", truth.val)):
        ours, theirs = (open_dataset(directory, split) for directory in (tmp_path / "set", prepared))
        assert ours.raw and not theirs.raw and len(ours) == len(theirs)
        for index in range(len(ours)):
            key = ours.name(index).split(": ")[1]
            with Image.open(io.BytesIO(ours[index][0])) as image:
                assert (image.format, image.mode) == ("PPM", "RGB")
                assert np.array_equal(np.asarray(image), decode(files[key]))
            assert (key, ours[index][1]) == (theirs.name(index).split(": ")[1], theirs[index][1])
    with tarfile.open(tmp_path / "set/val-000000.tar") as tar:
        assert {Path(name).suffix for name in tar.getnames()} == {".ppm", ".cls"}
    capsys.readouterr()
    assert main(command) == 2
    assert_matches(r"holds another set \(encoding ppm, here jpeg\)", one_line(capsys))


def test_manifest_names_what_was_odd(prepared: Path) -> None:
    assert read_manifest(prepared)["repaired"] == {
        "cmyk": [f"train/{ilsvrc.CMYK}"], "grey": [f"train/{ilsvrc.GREY}"], "png": [f"train/{ilsvrc.PNG}"]
    }  # fmt: skip
    assert read_manifest(prepared)["unreadable"] == []


def test_statistics_are_those_of_the_stored_images(prepared: Path) -> None:
    dataset = ShardDataset(prepared, "train")
    pixels = np.stack([np.asarray(Image.open(io.BytesIO(dataset[i][0])), np.float64) for i in range(60)])
    colors = pixels.reshape(-1, 3)
    covariance = np.cov(colors.T, bias=True)
    found = ShardDataset(prepared, "val").statistics
    assert found.images == 60
    np.testing.assert_allclose(found.mean, pixels.mean(0, dtype=np.float64), rtol=1e-9)
    np.testing.assert_allclose(found.covariance, covariance, rtol=1e-9)
    np.testing.assert_allclose(found.eigenvalues, np.linalg.eigvalsh(covariance)[::-1], rtol=1e-9)


def test_killed_ten_times_and_run_again_gives_the_same_bytes(archives: Path, tmp_path: Path) -> None:
    context, moments = multiprocessing.get_context("forkserver"), random.Random(0)
    settings, out = Settings(images_per_shard=2, encoding="ppm"), tmp_path / "killed"
    whole = contents(run(archives, tmp_path / "whole", settings))
    for kill in range(10):
        process = context.Process(target=ilsvrc.prepare_forking, args=(archives, out, settings))
        process.start()
        while process.is_alive() and len(list(out.glob("*.tar"))) < 3 * kill:  # of 40
            time.sleep(0.002)
        time.sleep(moments.uniform(0, 0.03))
        assert process.is_alive() and process.pid
        os.kill(process.pid, signal.SIGKILL)
        process.join()
    assert 27 <= len(list(out.glob("*.tar"))) < 40
    assert contents(run(archives, out, settings)) == whole


@pytest.fixture(scope="module")
def unfinished(archives: Path, prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All shards made, the rest not yet."""
    out = shutil.copytree(prepared, tmp_path_factory.mktemp("unfinished") / "set")
    for name in (*FILES, "manifest.json"):
        (out / name).unlink()
    (out / ".preparation").mkdir()
    source = open_source(archives)
    (out / ".preparation/settings.json").write_text(json.dumps(preparation.describe(source, SETTINGS)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(preparation_workers, "_images", multiprocessing.Value("q", 0))
        for shard in preparation.plan_shards(source, out, SETTINGS):
            preparation.make_shard(shard)
    return out


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def other_record(path: Path) -> None:
    shutil.copy(path.with_name("train-000006.npz"), path)  # of fewer images


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("val-000001.tar", truncate),
        ("val-000001.tar", Path.unlink),
        (".preparation/train-000002.npz", truncate),
        (".preparation/train-000002.npz", pipe),
        (".preparation/train-000002.npz", other_record),
        (".preparation/train-000002.npz", lambda path: path.write_bytes(b"")),
        (".preparation/train-000002.npz", lambda path: np.savez(path, rows=np.zeros(9))),
    ],
)
def test_a_damaged_shard_or_record_is_made_anew(
    name: str, damage: Callable[[Path], object], unfinished: Path, archives: Path, prepared: Path, tmp_path: Path
) -> None:
    out = shutil.copytree(unfinished, tmp_path / "set")
    damage(out / name)
    made = [shard.path for shard in preparation.plan_shards(open_source(archives), out, SETTINGS) if shard.made]
    assert len(made) == 9 and out / Path(name).with_suffix(".tar").name not in made
    assert contents(run(archives, out, workers=1)) == contents(prepared)


def test_nothing_is_written_through_a_link_or_into_a_pipe(
    unfinished: Path, archives: Path, prepared: Path, tmp_path: Path
) -> None:
    """A link is replaced, and what it names, outside the set, stays as it is."""
    out, outside = shutil.copytree(unfinished, tmp_path / "set"), tmp_path / "outside"
    outside.write_text("mine")
    for name in ("train-index.npy", "classes.json"):
        (out / name).symlink_to(outside)
    os.mkfifo(out / "statistics.npz")
    assert contents(run(archives, out, workers=1)) == contents(prepared)
    assert outside.read_text() == "mine"
    assert not any(path.is_symlink() or path.is_fifo() for path in out.iterdir())


@pytest.mark.parametrize("spoil", [os.mkfifo, os.mkdir, lambda path: path.symlink_to("nowhere")])
def test_a_lock_that_is_no_file_is_named(spoil: Callable[[Path], object], archives: Path, tmp_path: Path) -> None:
    (tmp_path / ".preparation").mkdir()
    spoil(tmp_path / ".preparation" / "lock")
    with pytest.raises(InputError, match=r"\.preparation/lock: .*; remove it"):
        run(archives, tmp_path)


@pytest.mark.parametrize("content", [b"", b"[]", b"[" * 100_000, b'{"size": \xff}'])
def test_damaged_settings_of_a_preparation_are_named(
    content: bytes, archives: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / ".preparation").mkdir()
    (tmp_path / ".preparation/settings.json").write_bytes(content)
    assert main([str(archives), "--out", str(tmp_path)]) == 2
    assert_matches(r"settings.json: cannot be read .*; delete the set and prepare it again", one_line(capsys))


def test_a_killed_worker_is_said_in_one_line() -> None:
    with pytest.raises(InputError, match="a worker was killed"):
        list(preparation_workers.run(os._exit, [1], 1, lambda images: None))


def test_unreadable_image_stops_by_name_or_is_left_out_and_listed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, out = ilsvrc.write_archives(tmp_path / "source", ilsvrc.images(truncated=True)), tmp_path / "set"
    command = [str(source), "--out", str(out), "--workers", "1"]
    assert main(command) == 2
    assert ilsvrc.TRUNCATED in one_line(capsys)
    assert main([*command, "--skip-unreadable"]) == 0
    assert ilsvrc.TRUNCATED in capsys.readouterr().out
    assert read_manifest(out)["unreadable"] == [f"train/{ilsvrc.TRUNCATED}"]
    dataset = ShardDataset(out, "train")
    assert len(dataset) == dataset.statistics.images == 59


def test_images_left_out_as_asked_do_not_fail_the_check(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, out = ilsvrc.write_archives(tmp_path / "source", ilsvrc.images(truncated=True)), tmp_path / "set"
    assert main([str(source), "--out", str(out), "--workers", "1", "--skip-unreadable", "--verify"]) == 0
    (out / "verify.json").unlink()
    (out / "verify.json").mkdir()
    assert main([str(source), "--out", str(out), "--workers", "1", "--verify"]) == 2
    assert_matches("verify.json: cannot be written", one_line(capsys))


def test_a_finished_set_that_has_lost_a_part_says_so(
    archives: Path, commanded: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = shutil.copytree(commanded, tmp_path / "set")
    (out / "val-000000.tar").unlink()
    assert main([str(archives), "--out", str(out)]) == 2
    assert_matches(r"val-000000.tar: cannot be read", one_line(capsys))
    (out / "classes.json").write_text("[]")
    with pytest.raises(InputError, match=r"classes.json: its checksum is not the manifest's"):
        ShardDataset(out, "train")
    (out / "manifest.json").write_text("{}")
    assert main([str(archives), "--out", str(out)]) == 2
    assert_matches(r"manifest.json: cannot be read .it has no 'settings'", one_line(capsys))


def test_command_verifies_and_reports(archives: Path, commanded: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(archives), "--out", str(commanded), "--verify"]) == 0
    printed = capsys.readouterr().out
    assert "60 train + 20 val images of 10 classes" in printed and "2014" not in printed
    report = json.loads((commanded / "verify.json").read_text())
    assert [check["holds"] for check in report["checks"]] == [True] * 8
    assert report["problems"] == [] and report["repaired"]["png"] == [f"train/{ilsvrc.PNG}"]
    assert [check["holds"] for check in report["archives"]] == [False] * 3  # reported, not fatal


def test_a_set_of_as_many_classes_as_ilsvrcs_has_its_colors_beside_the_authors(
    archives: Path, commanded: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(OFFICIAL, "classes", 10)
    monkeypatch.setattr(preparation_verify, "verify", lambda *asked: ([], []))
    assert main([str(archives), "--out", str(shutil.copytree(commanded, commanded.parent / "again")), "--verify"]) == 0
    rows = [re.split(r" *│ *", line.strip("│ ")) for line in capsys.readouterr().out.splitlines()]
    colors = {name: (here, theirs) for name, here, theirs in (row for row in rows if len(row) == 3)}
    statistics = ShardDataset(commanded, "train").statistics
    mean = ", ".join(f"{value:.1f}" for value in statistics.mean.mean((0, 1)))
    assert colors["mean color"] == (mean, "127.3, 119.7, 104.9")
    assert colors["sqrt(eigenvalues)"][1] == "121.8, 37.1, 19.7"
    first = ", ".join(f"{value:.3f}" for value in statistics.eigenvectors[:, 0])
    assert colors["first eigenvector"] == (first, "0.564, 0.576, 0.592")


def test_the_authors_eigenvectors_are_such_and_have_the_signs_of_ours() -> None:
    vectors = np.array([values for name, values in COLORS_2014.items() if "vector" in name])
    assert np.abs(vectors @ vectors.T - np.eye(3)).max() < 0.005
    assert (vectors[range(3), np.abs(vectors).argmax(1)] > 0).all()


def change_label_in_index(out: Path) -> None:
    index = np.load(out / "train-index.npy")
    index["label"][5] += 1
    np.save(out / "train-index.npy", index)


def overwrite_image(out: Path) -> None:
    with (out / "val-000000.tar").open("r+b") as shard:
        shard.seek(512)
        shard.write(bytes(20))


def change_label_in_shard(out: Path) -> None:
    index = np.load(out / "val-index.npy")
    with (out / "val-000000.tar").open("r+b") as shard:
        shard.seek(int(index["offset"][1]) - 1024)
        shard.write(b"8" if index["label"][0] == 9 else b"9")  # the first image's class


def change_statistics(out: Path) -> None:
    statistics = Statistics.load(out / "statistics.npz")
    statistics.mean[0, 0, 0] += 1
    statistics.save(out / "statistics.npz")


def unseal(out: Path) -> None:
    """As a set was before the manifest had checksums of more than the shards: verifying alone finds a change then."""
    manifest = json.loads((out / "manifest.json").read_text())
    del manifest["files"]
    (out / "manifest.json").write_text(json.dumps(manifest))


@pytest.mark.parametrize(
    ("damage", "failing"),
    [
        (change_label_in_index, {preparation_verify.INDEXED}),
        (overwrite_image, {preparation_verify.CHECKSUMS, preparation_verify.DECODED}),
        (change_label_in_shard, {preparation_verify.CHECKSUMS, preparation_verify.LABELS}),
        (change_statistics, {"statistics"}),
    ],
)
def test_verify_names_what_does_not_hold(
    damage: Callable[[Path], None],
    failing: set[str],
    archives: Path,
    commanded: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "set"
    shutil.copytree(commanded, out)
    damage(out)
    unseal(out)
    assert main([str(archives), "--out", str(out), "--verify"]) == 2
    assert_matches("does not hold what it should", one_line(capsys))
    report = json.loads((out / "verify.json").read_text())
    assert {check["what"] for check in report["checks"] if not check["holds"]} == failing
    assert all(str(out) in problem for problem in report["problems"])


def one_line(capsys: pytest.CaptureFixture[str]) -> str:
    """What the command said on stderr."""
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and said.endswith("\n"), said
    return said


def remove(name: str) -> Callable[[Path], None]:
    return lambda source: (source / name).unlink()


def replaced_by_a_folder(name: str) -> Callable[[Path], None]:
    def damage(source: Path) -> None:
        (source / name).unlink()
        (source / name).mkdir()

    return damage


def cut(name: str, share: float) -> Callable[[Path], None]:
    """Cut an archive to a share of its length, rounded to tar's blocks: as an interrupted download may leave it."""

    def damage(source: Path) -> None:
        os.truncate(source / name, int((source / name).stat().st_size * share) // 512 * 512)

    return damage


def cut_between_classes(source: Path) -> None:
    with tarfile.open(source / TRAIN) as tar:
        end = tar.getmembers()[6].offset
    os.truncate(source / TRAIN, end)


def edit_archive(name: str, change: Callable[[tarfile.TarInfo], bytes]) -> Callable[[Path], None]:
    """Rewrite an archive with the header of its third member changed, its checksum right."""

    def damage(source: Path) -> None:
        content = (source / name).read_bytes()
        with tarfile.open(source / name) as tar:
            member = tar.getmembers()[2]
        place = member.offset
        (source / name).write_bytes(content[:place] + change(member) + content[member.offset_data :])

    return damage


def resized(name: str, size: int) -> Callable[[Path], None]:
    return edit_archive(name, lambda member: with_size(member, size))


def with_size(member: tarfile.TarInfo, size: int) -> bytes:
    member.size = size
    return member.tobuf(tarfile.GNU_FORMAT)


def of_type(kind: bytes) -> Callable[[tarfile.TarInfo], bytes]:
    def change(member: tarfile.TarInfo) -> bytes:
        header = bytearray(member.tobuf(tarfile.USTAR_FORMAT))
        header[156:157] = kind
        header[148:156] = b" " * 8
        header[148:156] = b"%06o\0 " % sum(header)
        return bytes(header)

    return change


def named(name: str) -> Callable[[tarfile.TarInfo], bytes]:
    return lambda member: member.replace(name=name).tobuf(tarfile.USTAR_FORMAT)


def after(*headers: bytes) -> Callable[[tarfile.TarInfo], bytes]:
    """Further headers before the member's own."""
    return lambda member: b"".join(headers) + member.tobuf(tarfile.USTAR_FORMAT)


def extension(kind: bytes, content: bytes = b"", size: int | None = None) -> bytes:
    info = tarfile.TarInfo("extension")
    info.type, info.size = kind, len(content) if size is None else size
    return info.tobuf(tarfile.GNU_FORMAT) + content + bytes(-len(content) % 512)


def two_in_one_file(source: Path) -> None:
    content = (source / VAL).read_bytes()
    (source / VAL).write_bytes(content + content)


def overwrite_header(source: Path) -> None:
    with tarfile.open(source / VAL) as tar:
        offset = tar.getmembers()[6].offset
    with (source / VAL).open("r+b") as file:
        file.seek(offset)
        file.write(b"garbage" * 50)


def devkit_of(**files: bytes) -> Callable[[Path], None]:
    """Replace the devkit's files of these names."""

    def damage(source: Path) -> None:
        kept = {Path(name).stem: (name, content) for name, content in ilsvrc.devkit_files(ilsvrc.images()).items()}
        with tarfile.open(source / DEVKIT, "w:gz") as tar:
            for stem, (name, content) in kept.items():
                ilsvrc._add(tar, f"devkit/{name}", files.get(stem, content))

    return damage


def of_2010(source: Path) -> None:
    meta = ilsvrc.devkit_files(ilsvrc.images())["data/meta.mat"].replace(b"ILSVRC2012_ID", b"ILSVRC2010_ID")
    devkit_of(meta=meta)(source)


def other_classes(source: Path) -> None:
    meta = ilsvrc.devkit_files(ilsvrc.images())["data/meta.mat"].replace(ilsvrc.WNIDS[3].encode(), b"n99999999")
    devkit_of(meta=meta)(source)


GROUND_TRUTH = "ILSVRC2012_validation_ground_truth"


def cut_class_tar(source: Path) -> None:
    """A class's own tar lacks its last image and its end, within a whole outer tar."""
    with tarfile.open(source / TRAIN) as outer:
        classes = [(member, outer.extractfile(member).read()) for member in outer]
    with tarfile.open(source / TRAIN, "w") as outer:
        for number, (member, content) in enumerate(classes):
            if number == 4:
                with tarfile.open(fileobj=io.BytesIO(content)) as inner:
                    content = content[: inner.getmembers()[-1].offset]
            member.size = len(content)
            outer.addfile(member, io.BytesIO(content))


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (remove(TRAIN), rf"has no {TRAIN}"),
        (remove(VAL), rf"has no {VAL}"),
        (remove(DEVKIT), rf"ILSVRC2012_val_0.* no label .* needs {DEVKIT}"),
        (cut(TRAIN, 0.5), rf"{TRAIN}: cut short or damaged at byte \d+ of \d+"),
        (cut(VAL, 0.7), rf"{VAL}: cut short or damaged at byte \d+"),
        (cut(VAL, 0), rf"{VAL}: cut short or damaged at byte 0 of 0"),
        (cut(DEVKIT, 0.5), rf"{DEVKIT}: damaged"),
        (cut_between_classes, rf"{TRAIN}: cut short or damaged at byte \d+"),
        (overwrite_header, rf"{VAL}: cut short or damaged at byte \d+"),
        (of_2010, rf"{DEVKIT}: damaged, or not the devkit of ILSVRC2012"),
        (other_classes, rf"{DEVKIT}: lists 10 classes, .*n02085620"),
        (devkit_of(**{GROUND_TRUTH: b"1\n" * 19}), r"ILSVRC2012_val_00000020.*no label"),
        (devkit_of(**{GROUND_TRUTH: b"1\n" * 21}), r"1 of its images are missing, the first ILSVRC2012_val_00000021"),
        (cut_class_tar, rf"{TRAIN}: cut short or damaged at byte"),
        (devkit_of(**{GROUND_TRUTH: b"77\n" * 20}), rf"{DEVKIT}: damaged, or not"),
        (shutil.rmtree, r"no such directory"),
        (resized(VAL, 2**62), rf"{VAL}: cut short or damaged at byte \d+"),
        (resized(TRAIN, 2**40), rf"{TRAIN}: cut short or damaged at byte \d+"),
        (resized(VAL, -1024), rf"{VAL}: cut short or damaged at byte \d+"),
        (edit_archive(VAL, of_type(b"3")), rf"{VAL}: ILSVRC2012_val_00000003.JPEG is neither a file nor a directory"),
        (edit_archive(VAL, of_type(b"K")), rf"{VAL}: ILSVRC2012_val_00000003.JPEG is neither a file nor a directory"),
        (edit_archive(VAL, of_type(b"g")), rf"{VAL}: cut short or damaged at byte \d+"),
        (edit_archive(TRAIN, of_type(b"2")), rf"{TRAIN}: n.*tar is a link"),
        (edit_archive(VAL, of_type(b"S")), rf"{VAL}: ILSVRC2012_val_00000003.JPEG is neither a file nor a directory"),
        (edit_archive(VAL, named("ILSVRC2012_val_00000003")), rf"{VAL}: ILSVRC2012_val_00000003 is not one of .jpeg"),
        (edit_archive(TRAIN, named("n01440764")), rf"{TRAIN}: n01440764 is not one of .tar"),
        (edit_archive(VAL, after(extension(b"L", size=2**40))), rf"{VAL}: cut short or damaged at byte \d+"),
        (edit_archive(VAL, after(extension(b"x", b"9999 path=a\n"))), rf"{VAL}: cut short or damaged at byte \d+"),
        (edit_archive(VAL, after(extension(b"x", b"13 size=-512\n"))), rf"{VAL}: cut short or damaged at byte \d+"),
        (edit_archive(VAL, after(extension(b"x", b"22 GNU.sparse.major=1\n", 22))), rf"{VAL}: .* is neither a file"),
        (two_in_one_file, rf"{VAL}: continues past its end at byte \d+"),
        (replaced_by_a_folder(VAL), rf"{VAL}: is not a file"),
        (replaced_by_a_folder(DEVKIT), rf"{DEVKIT}: is not a file"),
    ],
)  # fmt: skip
def test_bad_archives_are_named_in_one_line(
    damage: Callable[[Path], object], says: str, archives: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "source"
    shutil.copytree(archives, source)
    damage(source)
    assert main([str(source), "--out", str(tmp_path / "set")]) == 2
    assert_matches(says, one_line(capsys))
    assert not (tmp_path / "set").exists()


def test_long_names_and_thousands_of_their_headers_are_read(archives: Path, tmp_path: Path) -> None:
    source = shutil.copytree(archives, tmp_path / "source")
    edit_archive(
        VAL, after(extension(b"L", b"unused\0") * 3_000, extension(b"x", b"39 path=a/ILSVRC2012_val_00000003.JPEG\n"))
    )(source)
    assert open_source(source).fingerprint() == open_source(archives).fingerprint()


def two_of_one_name(source: Path) -> None:
    image = next((source / "train" / ilsvrc.WNIDS[0]).iterdir())
    shutil.copy(image, source / "train" / ilsvrc.WNIDS[1])


def wrong_folder(source: Path) -> None:
    ilsvrc._write_tables(source, ilsvrc.images())
    image = next((source / "val" / ilsvrc.WNIDS[0]).iterdir())
    image.rename(source / "val" / ilsvrc.WNIDS[1] / image.name)


def class_of_val_only(source: Path) -> None:
    (source / "val" / ilsvrc.WNIDS[0]).rename(source / "val" / "n1")


def dotted_name(source: Path) -> None:
    image = next((source / "train" / ilsvrc.WNIDS[0]).iterdir())
    image.rename(image.with_name("a.b.JPEG"))


def no_images(source: Path) -> None:
    shutil.rmtree(source / "val")
    (source / "val").mkdir()


def folder_in_class(source: Path) -> None:
    (source / "train" / ilsvrc.WNIDS[0] / "images").mkdir()


def link_to_nothing(source: Path) -> None:
    (source / "train" / ilsvrc.WNIDS[0] / "lost.JPEG").symlink_to(source / "nowhere")


def class_linked_to_nothing(source: Path) -> None:
    (source / "val" / "n00000001").symlink_to(source / "nowhere")


def two_rows(source: Path) -> None:
    ilsvrc._write_tables(source, ilsvrc.images())
    table = source / "LOC_val_solution.csv"
    table.write_text(table.read_text() + "ILSVRC2012_val_00000001,n01440764 1 1 9 9\n")


def no_words(source: Path) -> None:
    ilsvrc._write_tables(source, ilsvrc.images())
    (source / "LOC_synset_mapping.txt").write_bytes(b"n01440764 \xff\n")


def words_of(content: str) -> Callable[[Path], None]:
    """Kaggle's tables, that of the words with this content."""

    def damage(source: Path) -> None:
        ilsvrc._write_tables(source, ilsvrc.images())
        (source / "LOC_synset_mapping.txt").write_text(content)

    return damage


def loop(source: Path) -> None:
    (source / "train" / "n09999999").symlink_to("n09999999")


def pipe_in_class(source: Path) -> None:
    os.mkfifo(source / "train" / ilsvrc.WNIDS[0] / "pipe.JPEG")


def no_table(source: Path) -> None:
    (source / "LOC_val_solution.csv").write_text("wrong\n1\n")


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (two_of_one_name, "two images of one name"),
        (wrong_folder, r"in the folder of n01443537, but .*LOC_val_solution.csv says n01440764"),
        (class_of_val_only, "validation images of n1, which has no training images"),
        (dotted_name, r"a\.b\.JPEG: rename it"),
        (no_images, "has no val images"),
        (folder_in_class, "images: a folder within a class"),
        (link_to_nothing, r"lost.JPEG: a link to nothing"),
        (class_linked_to_nothing, "n00000001: a link to nothing"),
        (two_rows, r"LOC_val_solution.csv: ILSVRC2012_val_00000001 has two rows"),
        (no_words, r"LOC_synset_mapping.txt: not Kaggle's table of words"),
        (words_of(""), r"LOC_synset_mapping.txt: is empty"),
        (words_of("\n \n"), r"LOC_synset_mapping.txt: is empty"),
        (words_of("n01440764 tench\nn01443537 \n"), r"LOC_synset_mapping.txt: has a line without words"),
        (words_of("n01440764 tench\nn01440764 crane\n"), r"LOC_synset_mapping.txt: has a line .* a class twice"),
        (words_of("n01440764 tench\n"), r"LOC_synset_mapping.txt: lists 1 classes, the training images have 10"),
        (loop, "n09999999: a link to nothing"),
        (pipe_in_class, "pipe.JPEG: a link to nothing, or not a file"),
        (no_table, "LOC_val_solution.csv: not Kaggle's table"),
    ],
)
def test_bad_trees_are_named_in_one_line(
    damage: Callable[[Path], None], says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = ilsvrc.write_tree(tmp_path / "source", ilsvrc.images())
    damage(source)
    assert main([str(source), "--out", str(tmp_path / "set")]) == 2
    assert_matches(says, one_line(capsys))


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--quality", "90"], r"holds another set \(quality 95, here 90\)"),
        (["--seed", "1"], r"holds another set \(seed 0, here 1\)"),
        (["--encoding", "ppm"], r"holds another set \(encoding jpeg, here ppm\)"),
        (["--encoding", "ppm", "--quality", "90"], "--quality 90: is of JPEGs; leave it out with --encoding ppm"),
        (["--quality", "99"], "--quality: 99: must be a whole number from 1 to 95"),
        (["--workers", "0"], "--workers: 0: must be"),
        (["--no-such-flag"], "unrecognized arguments: --no-such-flag"),
    ],
)
def test_bad_flags_are_named_in_one_line(
    flags: list[str], says: str, archives: Path, commanded: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(archives), "--out", str(commanded), *flags]) == 2
    assert_matches(says, one_line(capsys))


def test_another_source_is_another_set(commanded: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = ilsvrc.write_tree(tmp_path, ilsvrc.images(truncated=True))
    assert main([str(source), "--out", str(commanded)]) == 2
    assert_matches(r"holds another set \(source", one_line(capsys))


def test_out_is_not_shared(archives: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    assert main([str(archives), "--out", str(tmp_path)]) == 2
    assert_matches("is not empty", one_line(capsys))
    assert main([str(archives), "--out", str(tmp_path / "mine.txt")]) == 2
    assert_matches(r"mine.txt: cannot be written", one_line(capsys))
    out = tmp_path / "set"
    arguments = (archives, out, SETTINGS)
    other = multiprocessing.get_context("forkserver").Process(target=ilsvrc.prepare_forking, args=arguments)
    other.start()
    while not list(out.glob(".preparation/*.npz")):
        time.sleep(0.01)
    with pytest.raises(InputError, match="another preparation is writing into it"):
        run(archives, out)
    other.join()


def test_full_disk_is_foreseen_and_survived(
    archives: Path, prepared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=10**6))
        assert main([str(archives), "--out", str(tmp_path / "set")]) == 2
    assert_matches(r"80 images need about 0\.0 GB, 0\.0 GB are free", one_line(capsys))

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    shard = preparation.plan_shards(open_source(archives), tmp_path / "set", SETTINGS)[0]
    with monkeypatch.context() as patch:
        patch.setattr(preparation_workers, "_images", multiprocessing.Value("q", 0))
        patch.setattr(os, "fsync", full)
        with pytest.raises(InputError, match=r"train-000000.tar: cannot be written .No space left on device"):
            preparation.make_shard(shard)
    shutil.rmtree(tmp_path / "set")
    assert contents(run(archives, tmp_path / "set")) == contents(prepared)


def assert_matches(pattern: str, text: str) -> None:
    assert re.search(pattern, text), text
