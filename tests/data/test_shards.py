"""Prepared shards: what a reader of them may rely on."""

from __future__ import annotations

import gc
import hashlib
import io
import json
import pickle
import shutil
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import webdataset
from PIL import Image
from torch.utils.data import DataLoader

from alexnet2012.core.errors import InputError
from alexnet2012.data.shards import FILES, INDEX, ShardDataset, ShardWriter, seal
from alexnet2012.data.statistics import Sums
from alexnet2012.evaluation.predictions import fingerprint


def jpeg(number: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (256, 256), (number * 20, 100, 50)).save(file, "JPEG")
    return file.getvalue()


IMAGES = [(f"n01_{number}", jpeg(number), number % 3) for number in range(10)]


def write_set(directory: Path, images_per_shard: int = 4) -> Path:
    """Both splits hold ``IMAGES``."""
    splits, index = {}, np.empty(len(IMAGES), INDEX)
    for split in ("train", "val"):
        shards = []
        for number, start in enumerate(range(0, len(IMAGES), images_per_shard)):
            images, name = IMAGES[start : start + images_per_shard], f"{split}-{number:06d}.tar"
            with (directory / name).open("wb") as file:
                writer = ShardWriter(file)
                for image in images:
                    writer.add(*image)
                sha256 = writer.finish()
            index[start : start + len(images)] = [(number, *row) for row in writer.rows]
            shards.append({"name": name, "images": len(images), "bytes": writer.bytes, "sha256": sha256})
        np.save(directory / f"{split}-index.npy", index)
        splits[split] = {"images": len(IMAGES), "shards": shards}
    (directory / "manifest.json").write_text(
        json.dumps({"settings": {"classes": 3}, "splits": splits, "unreadable": [], "repaired": {}})
    )
    classes = [{"wnid": f"n0{k}", "words": word} for k, word in enumerate(["tench, Tinca tinca", "crane", "crane"])]
    (directory / "classes.json").write_text(json.dumps(classes))
    sums = Sums()
    sums.add(np.zeros((1, 256, 256, 3), np.uint8))
    sums.statistics().save(directory / "statistics.npz")
    return directory


@pytest.fixture
def prepared(tmp_path: Path) -> Path:
    return write_set(tmp_path)


def test_images_come_back_by_index_with_label_and_name(prepared: Path) -> None:
    dataset = ShardDataset(prepared, "train")
    assert [dataset[i] for i in (9, 0, 5)] == [IMAGES[i][1:] for i in (9, 0, 5)]
    assert len(dataset) == 10 and dataset.square256
    assert dataset.classes == ["tench, Tinca tinca", "crane", "crane"]
    assert dataset.name(9) == f"{prepared}/train-000002.tar: n01_9"
    assert dataset.statistics.images == 1
    with pytest.raises(IndexError):
        dataset[10]


def test_a_shard_of_another_encoding_is_refused_by_name(prepared: Path) -> None:
    manifest = json.loads((prepared / "manifest.json").read_text())
    manifest["settings"]["encoding"] = "ppm"
    (prepared / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(InputError, match=r"train-000000.tar: no PPM at byte 512, where the index has one"):
        ShardDataset(prepared, "train")[0]
    for unknown in ("webp", ["ppm"]):
        manifest["settings"]["encoding"] = unknown
        (prepared / "manifest.json").write_text(json.dumps(manifest))
        with pytest.raises(InputError, match=r"manifest.json: cannot be read .*'encoding'"):
            ShardDataset(prepared, "train")


@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")  # its own
def test_a_webdataset_reader_reads_the_shards(prepared: Path) -> None:
    urls = [str(path) for path in sorted(prepared.glob("train-*.tar"))]
    samples = list(webdataset.WebDataset(urls, shardshuffle=False).decode())
    assert [sample["__key__"] for sample in samples] == [key for key, _, _ in IMAGES]
    assert [sample["cls"] for sample in samples] == [label for _, _, label in IMAGES]
    raw = list(webdataset.WebDataset(urls, shardshuffle=False))
    assert [sample["jpg"] for sample in raw] == [image for _, image, _ in IMAGES]
    gc.collect()


def test_a_set_is_distinguished_from_others_without_reading_an_image(
    prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy, other = (shutil.copytree(prepared, tmp_path / name) for name in ("copy", "other"))
    manifest = json.loads((other / "manifest.json").read_text())
    (other / "manifest.json").write_text(json.dumps(manifest | {"settings": {"classes": 3, "source": "others"}}))
    monkeypatch.setattr(ShardDataset, "_read", None)
    val, same, unlike = (fingerprint(ShardDataset(path, "val")) for path in (prepared, copy, other))
    assert val == same != unlike
    assert val != fingerprint(ShardDataset(prepared, "train"))


def test_writing_again_gives_the_same_bytes(prepared: Path, tmp_path: Path) -> None:
    (tmp_path / "again").mkdir()
    for path in write_set(tmp_path / "again").iterdir():
        assert path.read_bytes() == (prepared / path.name).read_bytes()
    shard = json.loads((prepared / "manifest.json").read_text())["splits"]["val"]["shards"][2]
    content = (prepared / shard["name"]).read_bytes()
    assert (len(content), hashlib.sha256(content).hexdigest()) == (shard["bytes"], shard["sha256"])


@pytest.mark.filterwarnings("ignore:This DataLoader will create 2 worker:UserWarning")  # on one core
def test_forked_workers_read_what_the_parent_has_open(prepared: Path) -> None:
    dataset = ShardDataset(prepared, "val")
    assert dataset[3] == IMAGES[3][1:]
    loader = DataLoader(dataset, batch_size=None, num_workers=2, multiprocessing_context="fork")
    assert [tuple(sample) for sample in loader] == [image[1:] for image in IMAGES]


def test_pickling_as_for_spawned_workers_carries_no_data(prepared: Path) -> None:
    pickled = pickle.dumps(ShardDataset(prepared, "val"))
    assert len(pickled) < 1000
    assert pickle.loads(pickled)[7] == IMAGES[7][1:]


def test_few_shards_stay_open(prepared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("alexnet2012.data.shards.OPEN_SHARDS", 1)
    dataset, before = ShardDataset(prepared, "train"), len(list(Path("/proc/self/fd").iterdir()))
    assert [dataset[i] for i in (9, 0, 5, 9)] == [IMAGES[i][1:] for i in (9, 0, 5, 9)]
    assert len(list(Path("/proc/self/fd").iterdir())) == before + 1


def test_a_million_images_open_without_taking_the_index_into_memory(prepared: Path) -> None:
    entries = 1_000_000
    index = np.zeros(entries, INDEX)
    index[-1] = np.load(prepared / "train-index.npy")[0]
    np.save(prepared / "train-index.npy", index)
    manifest = json.loads((prepared / "manifest.json").read_text())
    manifest["splits"]["train"]["images"] = entries
    (prepared / "manifest.json").write_text(json.dumps(manifest))
    seal_files(prepared)
    tracemalloc.start()
    dataset = ShardDataset(prepared, "train")
    assert len(dataset) == entries and dataset[entries - 1] == IMAGES[0][1:]
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2**20  # the index has 20 MB


def seal_files(prepared: Path) -> None:
    """As today's preparation does."""
    manifest = json.loads((prepared / "manifest.json").read_text())
    manifest["files"] = {name: seal(prepared / name) for name in FILES}
    (prepared / "manifest.json").write_text(json.dumps(manifest))


@pytest.mark.parametrize("name", ["train-index.npy", "classes.json", "statistics.npz"])
def test_files_other_than_the_manifest_says_are_named(name: str, prepared: Path) -> None:
    seal_files(prepared)
    path, content = prepared / name, bytearray((prepared / name).read_bytes())
    assert ShardDataset(prepared, "train").statistics.images == 1
    content[-30] ^= 1
    path.write_bytes(content)
    with pytest.raises(InputError, match=f"{name}: its checksum is not the manifest's"):
        _ = ShardDataset(prepared, "train").statistics
    _ = ShardDataset(prepared, "val").labels if name == "train-index.npy" else None  # not its index


@pytest.mark.parametrize(("label", "said"), [(-1, "labels -1..2 for 3 classes"), (3, "labels 0..3 for 3 classes")])
def test_labels_out_of_range_are_refused_at_opening(label: int, said: str, prepared: Path) -> None:
    edit_index(prepared, "label", label)
    with pytest.raises(InputError, match=f"train-index.npy: {said}"):
        ShardDataset(prepared, "train")


def change(manifest: dict, *keys: object, value: object) -> None:
    for key in keys[:-1]:
        manifest = manifest[key]  # type: ignore[index]
    manifest[keys[-1]] = value  # type: ignore[index]


@pytest.mark.parametrize(
    ("keys", "value", "said"),
    [
        (["splits"], [], "'splits'. is list, not dict"),
        (["splits", "train", "images"], "ten", "'images'. is 'ten'"),
        (["splits", "train", "shards", 0], None, "'shards'..0. is NoneType"),
        (["splits", "train", "shards", 0, "bytes"], -1, "'bytes'. is -1"),
        (["splits", "train", "shards", 0, "name"], "../x.tar", "'name'. is '../x.tar'"),
        (["settings", "classes"], True, "'classes'. is True"),
        (["unreadable"], ["test/x"], "'unreadable'..0. is 'test/x'"),
        (["files"], {"classes.json": 7}, "'classes.json'. is int"),
    ],
)
def test_a_manifest_of_other_types_is_named(keys: list, value: object, said: str, prepared: Path) -> None:
    manifest = json.loads((prepared / "manifest.json").read_text())
    change(manifest, *keys, value=value)
    (prepared / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(InputError, match=f"manifest.json: cannot be read .*{said}"):
        ShardDataset(prepared, "train")


def edit_index(prepared: Path, field: str, value: int) -> None:
    index = np.load(prepared / "train-index.npy")
    index[field][5] = value
    np.save(prepared / "train-index.npy", index)


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        ("offset", 10**12, "train-000001.tar: ends before"),
        ("offset", -1, "train-000001.tar: ends before"),
        ("offset", 0, "train-000001.tar: no JPEG at byte 0"),
        ("length", 10**9, "train-000001.tar: ends before"),
        ("length", 100, "train-000001.tar: no JPEG at byte"),
        ("shard", 3, "train-index.npy: names shard 3"),
        ("shard", -1, "train-index.npy: names shard -1"),
    ],
)
def test_index_and_shard_that_disagree_are_named(field: str, value: int, says: str, prepared: Path) -> None:
    edit_index(prepared, field, value)
    dataset = ShardDataset(prepared, "train")
    assert dataset[4] == IMAGES[4][1:]
    with pytest.raises(InputError, match=says):
        dataset[5]


def test_damaged_sets_are_named(prepared: Path) -> None:
    open_set = ShardDataset(prepared, "train")
    shard = prepared / "train-000001.tar"
    whole = shard.read_bytes()
    shard.write_bytes(whole[:9000])
    with pytest.raises(InputError, match=r"train-000001.tar: 9000 bytes, the manifest says"):
        ShardDataset(prepared, "train")
    with pytest.raises(InputError, match=r"train-000001.tar: has become shorter"):
        open_set[7]
    shard.unlink()
    with pytest.raises(InputError, match=r"train-000001.tar: cannot be read .No such file"):
        ShardDataset(prepared, "train")
    shard.write_bytes(whole)
    assert open_set[5] == IMAGES[5][1:]
    (prepared / "statistics.npz").write_bytes(b"PK")
    with pytest.raises(InputError, match=r"statistics.npz: cannot be read"):
        _ = ShardDataset(prepared, "train").statistics
    (prepared / "train-index.npy").write_bytes(b"no array")
    with pytest.raises(InputError, match=r"train-index.npy: cannot be read"):
        ShardDataset(prepared, "train")
    np.save(prepared / "train-index.npy", np.zeros(9, INDEX))
    with pytest.raises(InputError, match=r"train-index.npy: 9 entries, the manifest says 10"):
        ShardDataset(prepared, "train")


def test_an_unfinished_set_says_so(prepared: Path) -> None:
    (prepared / "manifest.json").unlink()
    with pytest.raises(InputError, match=r"manifest.json: cannot be read"):
        ShardDataset(prepared, "train")
    (prepared / ".preparation").mkdir()
    with pytest.raises(InputError, match="has not finished"):
        ShardDataset(prepared, "train")
