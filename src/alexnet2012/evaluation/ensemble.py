"""Several nets on one data set, each alone and their softmax outputs averaged (P table 2: 5 nets, 7 nets)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from alexnet2012.data import Dataset, Statistics
from alexnet2012.distributed import Layout
from alexnet2012.errors import InputError
from alexnet2012.evaluation.errors import ErrorCount, ErrorRates
from alexnet2012.evaluation.evaluate import Passage, outputs
from alexnet2012.evaluation.predictions import Predictions, average, fingerprint
from alexnet2012.network import AlexNet


@dataclass(frozen=True)
class Assessment:
    """What one net or several are worth; one net is its own average."""

    each: list[ErrorRates]  # of every net alone
    centre: ErrorRates | None  # of the average, its centre crops alone; None where they were not kept
    predictions: Predictions  # of the average
    average: ErrorRates


def assess(
    nets: Sequence[AlexNet],
    statistics: Sequence[Statistics],
    weights: Sequence[float],
    layout: Layout,
    dataset: Dataset,
    passage: Passage,
    progress: Callable[[int], object] = lambda images: None,
) -> Assessment:
    """Pass ``dataset`` once through all ``nets``: every image is decoded once. The same result on every rank.

    Each net subtracts the mean image of its own ``statistics``; ``weights`` are those of the average. ``progress`` is
    told the number of images just done.
    """
    each, centre, both = [ErrorCount() for _ in nets], ErrorCount(), ErrorCount()
    rows: list[Tensor] = []
    for scores, labels in outputs(nets, statistics, layout, dataset, passage):
        mean = sum(weight * of_net for weight, of_net in zip(weights, scores, strict=True)) / sum(weights)
        for count, of_net in zip([*each, both, centre], [*scores[:, 0], *mean], strict=True):
            count.add(of_net, labels)
        rows.append(mean[0].cpu())
        progress(len(labels))
    labels_of_all = np.asarray(dataset.labels, dtype=np.int64)
    probabilities = torch.cat(rows).numpy()
    kept = Predictions(probabilities, labels_of_all, list(dataset.classes), passage.crops, fingerprint(dataset))
    return Assessment([count.rates() for count in each], centre.rates(), kept, both.rates())


def assess_kept(several: Sequence[Predictions], weights: Sequence[float]) -> Assessment:
    """The same from predictions kept in files, without the nets."""
    mean = average(several, weights)
    return Assessment([one.error_rates() for one in several], None, mean, mean.error_rates())


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
