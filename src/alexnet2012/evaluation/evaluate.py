"""A net's error rates over a data set, in any layout."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from alexnet2012.data import Dataset, evaluation_batches, open_loader
from alexnet2012.distributed import Layout, PendingRows, sum_over_replicas
from alexnet2012.evaluation.crops import views
from alexnet2012.evaluation.errors import credit
from alexnet2012.network import AlexNet
from alexnet2012.recipe import Recipe


@dataclass(frozen=True)
class ErrorRates:
    """Of ``images`` images, in percent."""

    top1_error: float
    top5_error: float
    images: int


@torch.no_grad()
def probabilities(net: AlexNet, images: Tensor, mean: Tensor, recipe: Recipe, crops: int) -> Tensor:
    """Softmax outputs averaged over the crops (P §4.1): (n, classes) for uint8 images (n, 256, 256, 3)."""
    return sum(net(view).float().softmax(1) for view in views(images, mean, recipe, crops)) / crops


def evaluation_pairs(
    layout: Layout, dataset: Dataset, recipe: Recipe, batch_size: int, loader: str, workers: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """This replica's images, uint8 (n, 256, 256, 3), and labels (n,), batch by batch; all replicas' are the data set.

    The two ranks of a pair decode half each and gather one batch ahead of its use.
    """
    batches = evaluation_batches(len(dataset), batch_size, layout.rank, layout.processes)
    device = torch.device("cpu") if layout.backend == "gloo" else layout.devices[0]
    source = open_loader(loader, dataset, batches, recipe, workers, device)
    totals = (min(batch_size, len(dataset) - first) for first in range(0, len(dataset), batch_size))
    pending = None
    for (images, labels), total in zip(source, totals, strict=True):
        arriving = PendingRows(layout, images, total), PendingRows(layout, labels, total)
        if pending:
            yield tuple(rows.wait().to(layout.devices[0]) for rows in pending)  # type: ignore[misc]
        pending = arriving
    if pending:
        yield tuple(rows.wait().to(layout.devices[0]) for rows in pending)  # type: ignore[misc]
    source.close()


def evaluate(
    net: AlexNet,
    layout: Layout,
    dataset: Dataset,
    crops: int = 1,
    batch_size: int = 128,
    loader: str = "torch",
    workers: int = 2,
) -> ErrorRates:
    """Top-1 and top-5 error over ``dataset``, every image counted once in every layout; leaves the net's mode alone."""
    training = net.training
    net.eval()
    device = layout.devices[0]
    mean = torch.from_numpy(dataset.statistics.mean).to(device)
    right = torch.zeros(3, dtype=torch.float64, device=device)
    for images, labels in evaluation_pairs(layout, dataset, net.recipe, batch_size, loader, workers):
        if len(labels):
            scores = probabilities(net, images, mean, net.recipe, crops)
            right += torch.stack(
                [credit(scores, labels, top).sum() for top in (1, 5)]
                + [torch.tensor(len(labels), dtype=torch.float64, device=device)]
            )
    net.train(training)
    top1, top5, images_counted = sum_over_replicas(layout, right).tolist()
    return ErrorRates(100 - 100 * top1 / images_counted, 100 - 100 * top5 / images_counted, round(images_counted))
