"""The figures of a net and its run, by name."""

from __future__ import annotations

import contextlib
import dataclasses
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter

from alexnet2012.core.command_line import progress
from alexnet2012.data import Dataset, TrainingPlan, normalize, open_loader
from alexnet2012.data.dataset import load, spread
from alexnet2012.evaluation.crops import crop_offsets
from alexnet2012.evaluation.evaluate import EvaluationSettings, evaluating
from alexnet2012.evaluation.features import (
    colour_share,
    fc7,
    features_file,
    kernels_by_tower,
    nearest,
    scaled_together,
    sheet,
)  # fmt: skip
from alexnet2012.evaluation.model import TrainedAlexNet
from alexnet2012.network import AlexNet
from alexnet2012.reporting.figures.curves import draw_curves, read_curves
from alexnet2012.reporting.figures.figure4 import Neighbours, draw_guesses, draw_neighbours
from alexnet2012.reporting.figures.style import COLUMN, SMALL, lines_that_fit, new_figure, place, save, styled
from alexnet2012.training.run_directory import RunDirectory
from alexnet2012.training.settings import Settings

GUESSED, QUERIES, NEAREST = 8, 5, 6  # in paper figure 4: images on the left, rows on the right, images in each row
SHOWN, ACROSS = 16, 4  # images of the first batch, and of a row
COMPARED_AT_END = 5_000  # training images compared at the end of a run; launch/draw_figures.py compares all


def kernels(net: AlexNet) -> dict[str, Figure]:
    """Paper figure 3. ``net`` must hold all its towers."""
    return {"figure3-kernels": draw_kernels(dict(net.named_parameters()))}


@styled
def draw_kernels(weights: Mapping[str, Tensor]) -> Figure:
    """Draw conv1's kernels, tower 0 above tower 1, on one scale, with the ``colour_share`` of each tower.

    ``weights`` are the whole net's by name.
    """
    towers = kernels_by_tower(weights)
    sheets = [sheet(kernels) for kernels in scaled_together(towers)]
    height = sum(COLUMN * pixels.shape[1] / pixels.shape[2] for pixels in sheets)
    figure = new_figure(height + 0.25 * len(towers) + 0.25, "constrained")
    count, _, size, _ = towers[0].shape
    figure.suptitle(f"conv1: {count * len(towers)} kernels of {size}x{size} pixels, on one scale")
    panels = figure.subplots(len(towers), 1, squeeze=False)[:, 0]
    for tower, (axes, kernels, pixels) in enumerate(zip(panels, towers, sheets, strict=True)):
        axes.imshow(pixels.permute(1, 2, 0).numpy(), interpolation="nearest")
        axes.set_axis_off()
        axes.set_title(f"tower {tower}", loc="left")
        axes.set_title(f"colour: {100 * colour_share(kernels):.1f} % of the squared weights", loc="right")
    return figure


def guesses(net: TrainedAlexNet, val: Dataset) -> dict[str, Figure]:
    """Paper figure 4, left: eight images spread over ``val``, which must have the net's classes."""
    chosen = spread(val, GUESSED)
    images = np.stack([load(chosen, index, net.recipe.image_size)[0] for index in range(len(chosen))])
    probabilities = net.probabilities(torch.from_numpy(images)).numpy()
    crops = len(crop_offsets(net.recipe, 10))
    return {"figure4-guesses": draw_guesses(images, chosen.labels.tolist(), probabilities, val.classes, crops)}


def neighbours(
    net: AlexNet,
    train: Dataset,
    val: Dataset,
    directory: Path,
    settings: EvaluationSettings,
    progress: Callable[[int], object] = lambda images: None,
) -> dict[str, Figure]:
    """Paper figure 4, right: for five images spread over ``val``, the six nearest of ``train``.

    fc7 of ``train`` is saved in ``directory``. ``progress`` is called with the number of images just done.
    """
    device, queries = net.held[0].device, spread(val, QUERIES)
    images = [load(queries, index, net.recipe.image_size)[0] for index in range(len(queries))]
    mean = train.statistics.mean_on(device)
    with evaluating(net):
        of_queries = fc7(net, torch.from_numpy(np.stack(images)).to(device), mean).cpu()
    features = features_file(net, train, directory, settings, progress)
    distances, found = nearest(of_queries, features, min(NEAREST, len(train)))
    rows = []
    for image, label, row, away in zip(images, queries.labels, found, distances, strict=True):
        near = [load(train, int(index), net.recipe.image_size) for index in row]
        names = [train.classes[of_near] for _, of_near in near]
        rows.append(Neighbours(image, val.classes[label], [pixels for pixels, _ in near], names, away.tolist()))
    return {"figure4-neighbours": draw_neighbours(rows, of_queries.shape[1], len(train), net.layers[-2])}


def first_batch(train: Dataset, plan: TrainingPlan, settings: Settings) -> dict[str, Figure]:
    """The first images of the run's first batch, as the net receives them."""
    recipe, augmentations = plan.recipe, plan.augmentations(0, 0, min(SHOWN, plan.batch_size))
    skip_bad = settings.on_bad_image == "skip"
    loader = open_loader(settings.loader, train, [augmentations], recipe, settings.workers, skip_bad=skip_bad)
    with contextlib.closing(loader):
        images, labels = next(iter(loader))
    black, mean = torch.zeros_like(images), train.statistics.mean_on("cpu")
    noiseless = dataclasses.replace(augmentations, noise=np.zeros_like(augmentations.noise))
    seen, subtracted = normalize(images, augmentations, mean, recipe), normalize(black, noiseless, mean, recipe)
    shown = (seen - subtracted) * torch.tensor(recipe.pixel_scale)[:, None, None]
    names = [train.classes[label] for label in labels.tolist()]
    return {"first-batch": draw_batch(shown.round().clamp(0, 255).to(torch.uint8), names)}


@styled
def draw_batch(images: Tensor, names: Sequence[str]) -> Figure:
    """Draw images, uint8 (n, 3 or 1, size, size), with their classes."""
    cell, row = COLUMN / ACROSS, COLUMN / ACROSS + 0.1
    title = "The first training images, as the net sees them"
    figure = new_figure(0.3 + row * -(-len(images) // ACROSS), title=title)
    for index, (image, name) in enumerate(zip(images, names, strict=True)):
        axes = place(figure, cell * (index % ACROSS) + 0.04, 0.35 + row * (index // ACROSS), cell - 0.08, cell - 0.08)
        axes.imshow(image.expand(3, -1, -1).permute(1, 2, 0).numpy(), interpolation="nearest")
        axes.set_title(lines_that_fit(name, cell - 0.08)[0], fontsize=SMALL, pad=2)
    return figure


def curves(metrics: Sequence[Path]) -> dict[str, Figure]:
    """Learning curves of one or several runs."""
    return {"learning-curves": draw_curves([read_curves(path) for path in metrics])}


def save_figures(
    net: TrainedAlexNet, train: Dataset, val: Dataset, run: RunDirectory, step: int, settings: EvaluationSettings
) -> None:
    """Save all figures of a finished run in its ``figures/`` and in TensorBoard. ``net`` must hold all its towers."""
    compared = spread(train, COMPARED_AT_END)
    with tempfile.TemporaryDirectory() as scratch, progress("drawing the figures", len(compared)) as bar:
        near = neighbours(net, compared, val, Path(scratch), settings, lambda images: bar(advance=images))
    figures = curves([run.metrics]) | kernels(net) | guesses(net, val) | near
    save(figures, run.figures)
    with SummaryWriter(str(run.tensorboard)) as board:
        for name, figure in figures.items():
            board.add_figure(name, figure, step)
