"""Several nets on one data set, each alone and their softmax outputs averaged (P table 2: 5 nets, 7 nets)."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field

import numpy as np

from alexnet2012.core.errors import InputError
from alexnet2012.data import Dataset, Statistics
from alexnet2012.distributed.layout import Layout
from alexnet2012.evaluation.errors import ErrorCount, ErrorRates
from alexnet2012.evaluation.evaluate import EvaluationSettings, outputs
from alexnet2012.evaluation.predictions import Predictions, average, fingerprint
from alexnet2012.network import AlexNet


@dataclass(frozen=True)
class Assessment:
    """What one net or several are worth; one net is its own average."""

    crops: int
    each: list[ErrorRates]  # of every net alone, over ``crops``
    average: dict[int, ErrorRates]  # by number of crops: ``crops``, and 1 where the nets were there to tell
    classes: int
    predictions: dict[int, Predictions] = field(default_factory=dict)  # of the average, on rank 0: those asked for


def assess(
    nets: Sequence[AlexNet],
    statistics: Sequence[Statistics],
    weights: Sequence[float],
    layout: Layout,
    dataset: Dataset,
    settings: EvaluationSettings,
    keep: Collection[int] = (),
    progress: Callable[[int], object] = lambda images: None,
) -> Assessment:
    """Pass ``dataset`` once through all ``nets``: every image is decoded once. The same errors on every rank.

    Each net subtracts the mean image of its own ``statistics``; ``weights`` are those of the average. ``keep`` names
    the predictions that rank 0 is to keep, by number of crops: ``settings.crops``, 1, or both; of ImageNet's training
    split they take 5 GB. ``progress`` is called with the number of images just done.
    """
    of_nets, average = [ErrorCount() for _ in nets], {crops: ErrorCount() for crops in (1, settings.crops)}
    kept = {crops: blank_predictions(dataset, crops) for crops in keep} if layout.is_main else {}
    done = 0
    for scores, labels in outputs(nets, statistics, layout, dataset, settings):
        mean = sum(weight * of_net for weight, of_net in zip(weights, scores, strict=True)) / sum(weights)
        by_crops = {1: mean[1], settings.crops: mean[0]}
        for count, of_net in zip([*of_nets, *average.values()], [*scores[:, 0], *by_crops.values()], strict=True):
            count.add(of_net, labels)
        for crops, of_all in kept.items():
            of_all.probabilities[done : done + len(labels)] = by_crops[crops].cpu().numpy()
        done += len(labels)
        progress(len(labels))
    rates = {crops: count.rates() for crops, count in average.items()}
    return Assessment(settings.crops, [count.rates() for count in of_nets], rates, len(dataset.classes), kept)


def blank_predictions(dataset: Dataset, crops: int) -> Predictions:
    """Predictions for ``dataset`` whose probabilities are yet to be written."""
    probabilities = np.empty((len(dataset), len(dataset.classes)), np.float32)
    labels = np.asarray(dataset.labels, np.int64)
    return Predictions(probabilities, labels, list(dataset.classes), crops, fingerprint(dataset))


def assess_kept(several: Sequence[Predictions], weights: Sequence[float]) -> Assessment:
    """The same from predictions kept in files, without the nets."""
    mean, each = average(several, weights), [one.error_rates() for one in several]
    return Assessment(mean.crops, each, {mean.crops: mean.error_rates()}, len(mean.class_names), {mean.crops: mean})


def checked_weights(weights: Sequence[float] | None, members: int) -> list[float]:
    """The weights of an average over ``members``, the largest brought to 1, so that sums stay finite.

    Equal if none are given. Raises InputError for another number of them, and for one that is not above 0 and finite.
    """
    if weights is None:
        return [1.0] * members
    if len(weights) != members:
        raise InputError(f"--weights: {len(weights)} given for {members} to average; give one each")
    if not all(np.isfinite(weight) and weight > 0 for weight in weights):
        raise InputError("--weights: must be above 0 and finite")
    return [weight / max(weights) for weight in weights]
