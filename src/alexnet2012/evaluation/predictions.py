"""Softmax outputs for a data set: kept in a file, averaged later without the nets, reported class by class."""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from alexnet2012.core.errors import InputError
from alexnet2012.core.guarded_files import Damaged, Field, read_npz
from alexnet2012.data import Dataset
from alexnet2012.data.statistics import Arrays
from alexnet2012.evaluation.errors import ErrorCount, ErrorRates, credit, error_measures

FORM = {
    "probabilities": Field("f", ("images", "classes"), 0, 1),
    "labels": Field("i", ("images",), 0),
    "class_names": Field("U", ("classes",)),
    "crops": Field("i", (), 1),
    "data": Field("U", ()),
}
ROUNDING = 1e-2  # that the scores of an image may be off 1: half precision has 1e-3 a score


@dataclass(frozen=True)
class Predictions(Arrays):
    """Softmax outputs for every image of a data set, in its order."""

    probabilities: NDArray[np.float32]  # (n, classes)
    labels: NDArray[np.int64]  # (n,)
    class_names: list[str]
    crops: int  # over which they were averaged
    data: str  # fingerprint of the images: see ``fingerprint``

    @classmethod
    def blank(cls, dataset: Dataset, crops: int) -> Predictions:
        """For ``dataset``; the probabilities are yet to be written."""
        probabilities = np.empty((len(dataset), len(dataset.classes)), np.float32)
        labels = np.asarray(dataset.labels, np.int64)
        return cls(probabilities, labels, list(dataset.classes), crops, fingerprint(dataset))

    def error_rates(self) -> ErrorRates:
        count = ErrorCount()
        count.add(torch.from_numpy(self.probabilities), torch.from_numpy(self.labels))
        return count.rates()

    def measures(self) -> NDArray[np.float64]:
        """Of each image top-1 and top-5 error (percent) and loss (nats): (3, n)."""
        measured = error_measures(torch.from_numpy(self.probabilities), torch.from_numpy(self.labels)).numpy()
        return measured * [[100], [100], [1]]

    @classmethod
    def load(cls, path: Path) -> Predictions:
        """Read what ``save`` wrote. Raises InputError for another file."""
        try:
            arrays = read_npz(path, FORM)
            scores, labels, names = (arrays[name] for name in ("probabilities", "labels", "class_names"))
            if not len(labels) or labels.max() >= len(names):
                raise Damaged(path, f"labels of {len(labels)} images do not fit {len(names)} names")
            if abs(scores.sum(1) - 1).max() > ROUNDING:
                raise Damaged(path, "the scores of an image do not sum to 1")
        except Damaged as error:
            raise InputError(f"{path}: no predictions that evaluate.py wrote ({error.reason})") from error
        return cls(scores, labels, names.tolist(), int(arrays["crops"]), str(arrays["data"]))


def fingerprint(dataset: Dataset) -> str:
    """SHA-256 of the class names, the labels and what else tells the images apart; not of where they lie."""
    digest = hashlib.sha256(repr(list(dataset.classes)).encode())
    digest.update(np.asarray(dataset.labels, np.int64).tobytes())
    digest.update(dataset.identity())
    return digest.hexdigest()


def load_alike(paths: Sequence[Path]) -> list[Predictions]:
    """The predictions in several files. Raises InputError for those of different data sets or numbers of crops."""
    loaded = [Predictions.load(path) for path in paths]
    for path, predictions in zip(paths, loaded, strict=True):
        same = predictions.class_names == loaded[0].class_names and np.array_equal(predictions.labels, loaded[0].labels)
        if predictions.data != loaded[0].data or not same:
            raise InputError(f"{path}: of another data set than {paths[0]}; average predictions of the same images")
        if predictions.crops != loaded[0].crops:
            raise InputError(f"{path}: of {predictions.crops} crops, {paths[0]} of {loaded[0].crops}; use equal crops")
    return loaded


def average(several: Sequence[Predictions], weights: Sequence[float]) -> Predictions:
    """Their softmax outputs averaged, each with its weight."""
    total = sum(weight * one.probabilities for weight, one in zip(weights, several, strict=True))
    first = several[0]
    mean = np.asarray(total / sum(weights), np.float32)
    return Predictions(mean, first.labels, first.class_names, first.crops, first.data)


def write_per_class(predictions: Predictions, path: Path) -> None:
    """A CSV with a row a class: its images, errors in percent, and the class it is most often taken for.

    ``confusions`` counts the class's images whose highest score is that other class's.
    """
    scores, labels = torch.from_numpy(predictions.probabilities), torch.from_numpy(predictions.labels)
    names, classes = predictions.class_names, len(predictions.class_names)
    images = np.bincount(predictions.labels, minlength=classes)
    right = [np.bincount(labels, credit(scores, labels, top), classes) for top in (1, 5)]
    top1, top5 = (100 * (1 - of_top / np.maximum(images, 1)) for of_top in right)
    taken_for = confusions(predictions)
    with path.open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["class", "name", "images", "top1_error", "top5_error", "commonest_confusion", "confusions"])
        for index in range(classes):
            other = int(taken_for[index].argmax())
            times = int(taken_for[index, other])
            errors = [f"{top[index]:.4f}" if images[index] else "" for top in (top1, top5)]
            table.writerow([index, names[index], images[index], *errors, names[other] if times else "", times])


def confusions(predictions: Predictions) -> NDArray[np.int64]:
    """(classes, classes): how often an image of the row's class scores highest as the column's, the diagonal 0."""
    classes = len(predictions.class_names)
    finite = np.isfinite(predictions.probabilities).all(1)
    predicted = predictions.probabilities[finite].argmax(1)
    pairs = predictions.labels[finite] * classes + predicted
    table = np.bincount(pairs, minlength=classes * classes).reshape(classes, classes)
    np.fill_diagonal(table, 0)
    return table
