"""Errors over a data set, of one net or several and of their averaged softmax outputs, in any layout.

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
from alexnet2012.evaluation.crops import CENTRE, crops_of
from alexnet2012.evaluation.errors import ErrorCount, ErrorRates
from alexnet2012.evaluation.predictions import Predictions, average
from alexnet2012.network import AlexNet
from alexnet2012.recipe import ImageRecipe


@dataclass(frozen=True)
class EvaluationSettings:
    """Settings of a pass of a data set through nets."""

    crops: int = 1  # 1 or 10
    batch_size: int = 128  # images over all processes
    loader: str = "pillow"
    workers: int = 2  # decoding threads a process


@dataclass(frozen=True)
class Assessment:
    """Errors of one net or several; one net is its own average."""

    crops: int
    each: list[ErrorRates]  # of every net alone, over ``crops``
    average: dict[int, ErrorRates]  # by number of crops: ``crops``, and 1 unless read from files of more crops
    classes: int
    predictions: dict[int, Predictions] = field(default_factory=dict)  # of the average, on rank 0: those asked for


@contextlib.contextmanager
def evaluating(*nets: AlexNet) -> Iterator[None]:
    """The nets in eval mode and without gradients; their mode is as before afterwards."""
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
    """Along the last axis in float32; a row with a logit that is not finite becomes NaN, so that it counts wrong."""
    logits = logits.float()
    return torch.where(logits.isfinite().all(-1, keepdim=True), logits.softmax(-1), torch.nan)


def softmax_outputs(net: AlexNet, images: Tensor, mean: Tensor, crops: int) -> Tensor:
    """(2, n, classes) for uint8 images (n, 256, 256, 3) and ``Statistics.mean_on`` their device.

    First the softmax outputs averaged over the crops (P §4.1), then those of the centre crop alone.
    """
    of_crops = torch.stack([softmax(net(crop)) for crop in crops_of(images, mean, net.recipe, crops)])
    return torch.stack([of_crops.mean(0), of_crops[CENTRE[len(of_crops)]]])


def replica_images(
    layout: Layout, dataset: Dataset, recipe: ImageRecipe, settings: EvaluationSettings
) -> Iterator[Tensor]:
    """This replica's rows of each batch, uint8 (n, 256, 256, 3), on its first device; each image is decoded once.

    The two ranks of a pair decode half each; their gather runs one batch ahead of its use. Raises InputError, on every
    rank, naming a file that is no image.
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
    """(..., total, classes) on every rank, from this replica's ``rows`` (..., n, classes) of a batch of ``total``."""
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
    """Batch by batch in the order of the data set, whole batches on every rank: softmax outputs and labels (n,).

    The softmax outputs are (nets, 2, n, classes), see ``softmax_outputs``. Every net subtracts the mean image of its
    own ``statistics``. Raises InputError naming a file that is no image.
    """
    device = layout.devices[0]
    means = [of_net.mean_on(device) for of_net in statistics]
    first = 0
    for images in replica_images(layout, dataset, nets[0].recipe, settings):
        layout.begin("evaluation")
        total = min(settings.batch_size, len(dataset) - first)
        shown = images if len(images) else images.new_zeros(1, *images.shape[1:])  # so that all ranks cross as often
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
    """Pass ``dataset`` once through all ``nets``: every image is decoded once. The same errors on every rank.

    Each net subtracts the mean image of its own ``statistics``; ``weights`` are those of the average. ``keep`` names
    the predictions that rank 0 is to keep, by number of crops: ``settings.crops``, 1, or both; of ImageNet's training
    split they take 5 GB. ``progress`` is called with the number of images just done.
    """
    of_nets, of_average = [ErrorCount() for _ in nets], {crops: ErrorCount() for crops in (1, settings.crops)}
    kept = {crops: Predictions.blank(dataset, crops) for crops in keep} if layout.is_main else {}
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


def assess_kept(several: Sequence[Predictions], weights: Sequence[float]) -> Assessment:
    """Errors of predictions kept in files, without the nets."""
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


def evaluate(
    net: AlexNet,
    layout: Layout,
    dataset: Dataset,
    settings: EvaluationSettings,
    progress: Callable[[int], object] = lambda images: None,
) -> ErrorRates:
    """Both errors and the loss over ``dataset``, each image counted once in every layout; leaves the net's mode."""
    return assess([net], [dataset.statistics], [1.0], layout, dataset, settings, progress=progress).each[0]
