"""Errors over a data set, of one or several nets and of their averaged softmax outputs, in any layout.

The paper averages five and seven nets (table 2).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from alexnet2012.core.errors import InputError
from alexnet2012.data import Dataset, Statistics, evaluation_batches, open_loader
from alexnet2012.data.loaders import ahead
from alexnet2012.distributed.collectives import PendingRows, raise_together, rank_slice, reduce
from alexnet2012.distributed.layout import Layout
from alexnet2012.evaluation.crops import crops_of
from alexnet2012.evaluation.errors import ErrorCount, ErrorRates
from alexnet2012.evaluation.predictions import Predictions, average
from alexnet2012.network import AlexNet
from alexnet2012.recipe import ImageRecipe


@dataclass(frozen=True)
class EvaluationSettings:
    """How a data set is passed through nets."""

    crops: int = 1  # 1 or 10
    batch_size: int = 128  # images over all processes
    loader: str = "pillow"
    workers: int = 2  # decoding threads per process


@dataclass(frozen=True)
class Assessment:
    """Errors of one or several nets and of their average. One net is its own average."""

    crops: int
    each: list[ErrorRates]  # of each net, over ``crops``
    average: dict[int, ErrorRates]  # by number of crops: ``crops`` and, unless read from files, 1
    classes: int
    predictions: dict[int, Predictions] = field(default_factory=dict)  # of the average by crops: on rank 0, if kept


@contextlib.contextmanager
def evaluating(*nets: AlexNet) -> Iterator[None]:
    """Put the nets in eval mode without gradients, and restore their mode afterwards."""
    training = [net.training for net in nets]
    try:
        with torch.no_grad():
            for net in nets:
                net.eval()
            yield
    finally:
        for net, mode in zip(nets, training, strict=True):
            net.train(mode)


def softmax(logits: Tensor) -> Tensor:
    """Softmax over the last axis in float32. A row with a non-finite logit becomes NaN, which counts as wrong."""
    logits = logits.float()
    return torch.where(logits.isfinite().all(-1, keepdim=True), logits.softmax(-1), torch.nan)


def softmax_outputs(net: AlexNet, images: Tensor, mean: Tensor, crops: int) -> Tensor:
    """Softmax outputs (2, n, classes) for uint8 images (n, 256, 256, 3), and ``Statistics.mean_on`` their device.

    First those averaged over the crops (paper §4.1), then those of the centre crop.
    """
    of_crops = torch.stack([softmax(net(crop)) for crop in crops_of(images, mean, net.recipe, crops)])
    return torch.stack([of_crops.mean(0), of_crops[(len(of_crops) - 1) // 2]])  # the fifth of ten


def replica_images(
    layout: Layout, dataset: Dataset, recipe: ImageRecipe, settings: EvaluationSettings
) -> Iterator[Tensor]:
    """Yields this replica's rows of each batch, uint8 (n, 256, 256, 3), on its first device.

    Each rank of a pair decodes half of them, and the gather runs one batch ahead. Raises InputError, on every rank,
    naming a file that is not an image.
    """
    batches = evaluation_batches(len(dataset), settings.batch_size, layout.rank, layout.processes)
    device = torch.device("cpu") if layout.backend == "gloo" else layout.devices[0]
    loader = open_loader(settings.loader, dataset, batches, recipe, settings.workers, device)
    decoded = iter(loader)

    def send(first: int) -> PendingRows:
        failure = None
        try:
            images, _ = next(decoded)
        except InputError as error:
            failure = error
        raise_together(layout, failure)
        return PendingRows(layout, images, min(settings.batch_size, len(dataset) - first))

    try:
        for arriving in ahead(range(0, len(dataset), settings.batch_size), send, 1):
            yield arriving.wait().to(layout.devices[0])
    finally:
        loader.close()


def whole_batch(layout: Layout, rows: Tensor, total: int) -> Tensor:
    """Gather (..., total, classes) on every rank, from this replica's ``rows`` (..., n, classes) of the batch."""
    if layout.replicas == 1:
        return rows
    whole = rows.new_zeros(*rows.shape[:-2], total, rows.shape[-1])
    whole[..., rank_slice(total, layout.replica, layout.replicas), :] = rows
    return reduce(layout, whole, "replicas")


def outputs(
    nets: Sequence[AlexNet],
    statistics: Sequence[Statistics],
    layout: Layout,
    dataset: Dataset,
    settings: EvaluationSettings,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yields the softmax outputs (nets, 2, n, classes), see ``softmax_outputs``, and labels (n,) of each batch.

    Batches come in the order of the data set and whole on every rank. Each net subtracts the mean image of its own
    ``statistics``. Raises InputError naming a file that is not an image.
    """
    device = layout.devices[0]
    means = [of_net.mean_on(device) for of_net in statistics]
    first = 0
    for images in replica_images(layout, dataset, nets[0].recipe, settings):
        layout.begin("evaluation")
        total = min(settings.batch_size, len(dataset) - first)
        # A replica without images still takes part in the exchange between the towers.
        shown = images if len(images) else images.new_zeros(1, *images.shape[1:])
        with evaluating(*nets):
            scores = [softmax_outputs(net, shown, mean, settings.crops) for net, mean in zip(nets, means, strict=True)]
        whole = whole_batch(layout, torch.stack(scores)[:, :, : len(images)], total)
        labels = np.asarray(dataset.labels[first : first + total], dtype=np.int64)
        yield whole, torch.from_numpy(labels).to(whole.device)
        first += total


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
    """Errors of ``nets`` over ``dataset``, the same on every rank. Each image is decoded once for all nets.

    Each net subtracts the mean image of its own ``statistics``; ``weights`` are those of the average. ``keep`` lists
    the numbers of crops whose predictions rank 0 keeps: ``settings.crops``, 1, or both. Those of ImageNet's training
    split take 5 GB. ``progress`` is called with the number of images just done.
    """
    of_nets, of_average = [ErrorCount() for _ in nets], {crops: ErrorCount() for crops in (1, settings.crops)}
    kept = {crops: Predictions.empty(dataset, crops) for crops in keep} if layout.is_main else {}
    done = 0
    for scores, labels in outputs(nets, statistics, layout, dataset, settings):
        mean = sum(weight * of_net for weight, of_net in zip(weights, scores, strict=True)) / sum(weights)
        by_crops = {1: mean[1], settings.crops: mean[0]}
        for count, of_net in zip([*of_nets, *of_average.values()], [*scores[:, 0], *by_crops.values()], strict=True):
            count.add(of_net, labels)
        for crops, of_all in kept.items():
            of_all.probabilities[done : done + len(labels)] = by_crops[crops].cpu().numpy()
        done += len(labels)
        progress(len(labels))
    rates = {crops: count.rates() for crops, count in of_average.items()}
    return Assessment(settings.crops, [count.rates() for count in of_nets], rates, len(dataset.classes), kept)


def assess_predictions(several: Sequence[Predictions], weights: Sequence[float]) -> Assessment:
    """Errors of predictions read from files, without the nets."""
    mean, each = average(several, weights), [one.error_rates() for one in several]
    return Assessment(mean.crops, each, {mean.crops: mean.error_rates()}, len(mean.class_names), {mean.crops: mean})


def normalized_weights(weights: Sequence[float] | None, members: int) -> list[float]:
    """The weights of an average over ``members``, equal by default, divided by the largest so that sums stay finite.

    Raises InputError for another number of weights, and for one that is not positive and finite.
    """
    if weights is None:
        return [1.0] * members
    if len(weights) != members:
        raise InputError(f"--weights: {len(weights)} given for {members} to average; give one for each")
    if not all(np.isfinite(weight) and weight > 0 for weight in weights):
        raise InputError("--weights: must be above 0 and finite")
    return [weight / max(weights) for weight in weights]


def evaluate(
    net: AlexNet,
    layout: Layout,
    dataset: Dataset,
    settings: EvaluationSettings,
    progress: Callable[[int], object] = lambda images: None,
) -> ErrorRates:
    """Errors and loss over ``dataset``, the same in every layout. The net's training mode is kept."""
    return assess([net], [dataset.statistics], [1.0], layout, dataset, settings, progress=progress).each[0]
