"""Softmax outputs and error rates over a data set, of one net or several, in any layout."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from alexnet2012.core.errors import InputError
from alexnet2012.data import Dataset, Statistics, evaluation_batches, open_loader
from alexnet2012.distributed.collectives import PendingRows, raise_together, rank_slice, reduce
from alexnet2012.distributed.layout import Layout
from alexnet2012.evaluation.crops import CENTRE, crops_of
from alexnet2012.evaluation.errors import ErrorCount, ErrorRates
from alexnet2012.network import AlexNet
from alexnet2012.recipe import ImageRecipe


@dataclass(frozen=True)
class EvaluationSettings:
    """How a data set passes through nets."""

    crops: int = 1  # 1 or 10
    batch_size: int = 128  # images over all processes
    loader: str = "pillow"
    workers: int = 2  # decoding threads a process


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
    """(2, n, classes) for uint8 images (n, 256, 256, 3) and the mean image (256, 256, 3) on their device.

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
    waiting: PendingRows | None = None
    try:
        decoded = iter(loader)
        for total in batch_sizes(len(dataset), settings.batch_size):
            failure = None
            try:
                images, _ = next(decoded)
            except InputError as error:
                failure = error
            raise_together(layout, failure)
            arriving = PendingRows(layout, images, total)
            if waiting:
                yield waiting.wait().to(layout.devices[0])
            waiting = arriving
        if waiting:
            yield waiting.wait().to(layout.devices[0])
    finally:
        loader.close()


def batch_sizes(images: int, batch_size: int) -> list[int]:
    return [min(batch_size, images - first) for first in range(0, images, batch_size)]


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


def evaluate(
    net: AlexNet,
    layout: Layout,
    dataset: Dataset,
    crops: int = 1,
    batch_size: int = 128,
    loader: str = "pillow",
    workers: int = 2,
) -> ErrorRates:
    """Both errors and the loss over ``dataset``, each image counted once in every layout; leaves the net's mode."""
    count = ErrorCount()
    settings = EvaluationSettings(crops, batch_size, loader, workers)
    for scores, labels in outputs([net], [dataset.statistics], layout, dataset, settings):
        count.add(scores[0, 0], labels)
    return count.rates()
