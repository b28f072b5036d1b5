"""Predictions in files: kept, averaged, refused, reported by class."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from running import write_tree

from alexnet2012.core.errors import InputError
from alexnet2012.data import open_dataset
from alexnet2012.data.dataset import Subset
from alexnet2012.evaluation.evaluate import assess_predictions, normalized_weights
from alexnet2012.evaluation.predictions import Predictions, average, fingerprint, load_comparable, write_per_class

NAMES = ["cat", "dog", "eel"]


def some_predictions(seed: int = 0, images: int = 30) -> Predictions:
    random = np.random.default_rng(seed)
    probabilities = random.dirichlet(np.ones(3), images).astype(np.float32)
    return Predictions(probabilities, np.arange(images) % 3, NAMES, 10, "these images")


def test_a_file_gives_back_what_was_kept(tmp_path: Path) -> None:
    kept = some_predictions()
    kept.save(tmp_path / "a.npz")
    loaded = Predictions.load(tmp_path / "a.npz")
    np.testing.assert_array_equal(loaded.probabilities, kept.probabilities)
    np.testing.assert_array_equal(loaded.labels, kept.labels)
    assert (loaded.class_names, loaded.crops, loaded.data) == (NAMES, 10, "these images")


@pytest.mark.parametrize("weights", [[1.0, 1.0], [3.0, 1.0]])
def test_an_average_is_that_of_the_arrays(weights: list[float]) -> None:
    one, other = some_predictions(1), some_predictions(2)
    by_hand = np.average([one.probabilities, other.probabilities], axis=0, weights=weights)
    np.testing.assert_allclose(average([one, other], weights).probabilities, by_hand, rtol=1e-6)
    wrong = 100 * (by_hand.argmax(1) != one.labels).mean()
    assessment = assess_predictions([one, other], weights)
    assert assessment.average[10].top1_error == pytest.approx(wrong)
    assert assessment.each == [one.error_rates(), other.error_rates()]


def test_weights_that_make_no_average_are_refused() -> None:
    assert normalized_weights(None, 2) == [1, 1]
    assert normalized_weights([1e308, 5e307], 2) == [1, 0.5]  # whose sum float64 does not hold
    for weights in ([1.0], [1.0, 0.0], [1.0, -1.0], [1.0, float("nan")]):
        with pytest.raises(InputError, match="--weights"):
            normalized_weights(weights, 2)


@pytest.mark.parametrize(
    "change",
    [
        {"probabilities": np.zeros(30, np.float32)},
        {"probabilities": np.zeros((29, 3), np.float32)},
        {"probabilities": np.full((30, 3), "x")},
        {"labels": np.full(30, 3)},
        {"labels": np.full(30, -1)},
        {"labels": np.zeros(30)},
        {"class_names": ["cat", "dog"]},
        {"crops": "ten"},
        {"crops": 0},
        {"probabilities": np.full((30, 3), np.nan, np.float32)},
        {"probabilities": np.full((30, 3), 0.5, np.float32)},
        {"probabilities": np.full((30, 3), [-0.5, 0.5, 1.0], np.float32)},
        {"probabilities": np.full((30, 3), 1 / 3, np.longdouble)},
        {"probabilities": np.zeros((0, 3), np.float32), "labels": np.zeros(0, np.int64)},
    ],
    ids=str,
)
def test_fields_that_do_not_fit_are_refused(change: dict, tmp_path: Path) -> None:
    replace(some_predictions(), **change).save(tmp_path / "a.npz")
    with pytest.raises(InputError, match=r"a.npz: not predictions written by evaluate.py"):
        Predictions.load(tmp_path / "a.npz")


def test_other_labels_are_another_data_set(tmp_path: Path) -> None:
    paths, kept = [tmp_path / "a.npz", tmp_path / "b.npz"], some_predictions()
    for path, one in zip(paths, (kept, replace(kept, labels=kept.labels[::-1].copy())), strict=True):
        one.save(path)
    with pytest.raises(InputError, match=r"b.npz: for another data set"):
        load_comparable(paths)


def test_predictions_that_do_not_belong_together_are_refused(tmp_path: Path) -> None:
    paths = [tmp_path / name for name in ("a.npz", "other.npz", "centre.npz")]
    kept = some_predictions()
    for path, one in zip(paths, (kept, replace(kept, data="others"), replace(kept, crops=1)), strict=True):
        one.save(path)
    for path, reason in zip(paths[1:], ("for another data set", "over 1 crops"), strict=True):
        with pytest.raises(InputError, match=f"{path.name}: {reason}") as refusal:
            load_comparable([paths[0], path])
        assert reason in str(refusal.value)


def test_other_files_are_refused(tmp_path: Path) -> None:
    text, arrays, cut = (tmp_path / name for name in ("text", "arrays.npz", "cut.npz"))
    text.write_text("no predictions")
    np.savez(arrays, weights=np.ones(3))
    some_predictions().save(cut)
    cut.write_bytes(cut.read_bytes()[:-100])
    for path in (text, arrays, cut, tmp_path, tmp_path / "absent"):
        with pytest.raises(InputError, match="not predictions written"):
            Predictions.load(path)


def test_errors_and_confusions_by_class(tmp_path: Path) -> None:
    rows = [[0.6, 0.3, 0.1], [0.1, 0.8, 0.1], [0.2, 0.5, 0.3], [0.1, 0.7, 0.2], [np.nan, 0.0, 1.0]]
    labels = np.array([0, 0, 0, 1, 1])
    write_per_class(Predictions(np.array(rows, np.float32), labels, NAMES, 1, ""), tmp_path / "classes.csv")
    table = list(csv.DictReader((tmp_path / "classes.csv").read_text().splitlines()))
    assert [row["name"] for row in table] == NAMES
    cat, dog, eel = table
    assert float(cat["top1_error"]) == pytest.approx(100 * 2 / 3, abs=1e-3)
    assert (cat["commonest_confusion"], cat["confusions"]) == ("dog", "2")
    assert (float(dog["top1_error"]), float(dog["top5_error"])) == (50, 50)
    assert (dog["commonest_confusion"], dog["confusions"]) == ("", "0")
    assert (eel["images"], eel["top1_error"]) == ("0", "")


def test_a_fingerprint_tells_images_apart_but_not_places(tmp_path: Path) -> None:
    here, there, fewer, renamed = (
        write_tree(tmp_path / name, classes=2, train=1, val=images)
        for name, images in (("here", 2), ("there", 2), ("fewer", 1), ("renamed", 2))
    )
    (renamed / "val" / "class1" / "0.JPEG").rename(renamed / "val" / "class1" / "2.JPEG")
    val = open_dataset(here, "val")
    assert fingerprint(val) == fingerprint(open_dataset(there, "val"))
    others = [
        *(open_dataset(path, "val") for path in (fewer, renamed)),
        Subset(val, np.array([0, 1])),
        Subset(val, np.array([0, 3])),
    ]
    assert len({fingerprint(dataset) for dataset in [val, *others]}) == 5
