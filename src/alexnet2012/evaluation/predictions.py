"""Softmax outputs for a data set: saved, averaged later without the nets, and reported by class."""

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
ROUNDING = 1e-2  # tolerance of an image's sum of scores: half precision has 1e-3 per score


@dataclass(frozen=True)
class Predictions(Arrays):
    """Softmax outputs for every image of a data set, in order."""

    probabilities: NDArray[np.float32]  # (n, classes)
    labels: NDArray[np.int64]  # (n,)
    class_names: list[str]
    crops: int  # over which the outputs were averaged
    data: str  # the data set's ``fingerprint``

    @classmethod
    def empty(cls, dataset: Dataset, crops: int) -> Predictions:
        """Predictions for ``dataset``, with uninitialized probabilities."""
        probabilities = np.empty((len(dataset), len(dataset.classes)), np.float32)
        labels = np.asarray(dataset.labels, np.int64)
        return cls(probabilities, labels, list(dataset.classes), crops, fingerprint(dataset))

    def error_rates(self) -> ErrorRates:
        count = ErrorCount()
        count.add(torch.from_numpy(self.probabilities), torch.from_numpy(self.labels))
        return count.rates()

    def measures(self) -> NDArray[np.float64]:
        """Top-1 error, top-5 error (percent) and loss (nats) of each image: (3, n)."""
        measured = error_measures(torch.from_numpy(self.probabilities), torch.from_numpy(self.labels)).numpy()
        return measured * [[100], [100], [1]]

    @classmethod
    def load(cls, path: Path) -> Predictions:
        """Read a file that ``save`` wrote. Raises InputError for any other file."""
        try:
            arrays = read_npz(path, FORM)
            scores, labels, names = (arrays[name] for name in ("probabilities", "labels", "class_names"))
            if not len(labels) or labels.max() >= len(names):
                raise Damaged(path, f"labels of {len(labels)} images do not match {len(names)} class names")
            if abs(scores.sum(1) - 1).max() > ROUNDING:
                raise Damaged(path, "the scores of an image do not sum to 1")
        except Damaged as error:
            raise InputError(f"{path}: not predictions written by evaluate.py ({error.reason})") from error
        return cls(scores, labels, names.tolist(), int(arrays["crops"]), str(arrays["data"]))


def fingerprint(dataset: Dataset) -> str:
    """SHA-256 of the class names, the labels and the identity of the images, but not of their location."""
    digest = hashlib.sha256(repr(list(dataset.classes)).encode())
    digest.update(np.asarray(dataset.labels, np.int64).tobytes())
    digest.update(dataset.identity())
    return digest.hexdigest()


def load_comparable(paths: Sequence[Path]) -> list[Predictions]:
    """The predictions in several files. Raises InputError if data sets or numbers of crops differ."""
    loaded = [Predictions.load(path) for path in paths]
    for path, predictions in zip(paths, loaded, strict=True):
        same = predictions.class_names == loaded[0].class_names and np.array_equal(predictions.labels, loaded[0].labels)
        if predictions.data != loaded[0].data or not same:
            raise InputError(f"{path}: for another data set than {paths[0]}; average predictions for the same images")
        if predictions.crops != loaded[0].crops:
            raise InputError(
                f"{path}: over {predictions.crops} crops, {paths[0]} over {loaded[0].crops}; use the same number"
            )
    return loaded


def average(several: Sequence[Predictions], weights: Sequence[float]) -> Predictions:
    """The weighted average of softmax outputs."""
    total = sum(weight * one.probabilities for weight, one in zip(weights, several, strict=True))
    first = several[0]
    mean = np.asarray(total / sum(weights), np.float32)
    return Predictions(mean, first.labels, first.class_names, first.crops, first.data)


def write_per_class(predictions: Predictions, path: Path) -> None:
    """Write a CSV with one row per class: number of images, errors in percent, and the most frequent confusion.

    ``confusions`` is the number of the class's images for which that other class scores highest.
    """
    scores, labels = torch.from_numpy(predictions.probabilities), torch.from_numpy(predictions.labels)
    names, classes = predictions.class_names, len(predictions.class_names)
    images = np.bincount(predictions.labels, minlength=classes)
    right = [np.bincount(labels, credit(scores, labels, top), classes) for top in (1, 5)]
    top1, top5 = (100 * (1 - of_top / np.maximum(images, 1)) for of_top in right)
    finite = np.isfinite(predictions.probabilities).all(1)
    confused = np.zeros((classes, classes), np.int64)  # [class, predicted class], 0 on the diagonal
    np.add.at(confused, (predictions.labels[finite], predictions.probabilities[finite].argmax(1)), 1)
    np.fill_diagonal(confused, 0)
    with path.open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["class", "name", "images", "top1_error", "top5_error", "commonest_confusion", "confusions"])
        for index in range(classes):
            other = int(confused[index].argmax())
            times = int(confused[index, other])
            errors = [f"{top[index]:.4f}" if images[index] else "" for top in (top1, top5)]
            table.writerow([index, names[index], images[index], *errors, names[other] if times else "", times])
