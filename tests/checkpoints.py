"""Checkpoints of narrow nets whose answers differ from image to image, without training."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np
import torch

from alexnet2012 import AlexNet, Recipe, paper_recipe
from alexnet2012.core.random_streams import STREAMS
from alexnet2012.data import Dataset, Statistics
from alexnet2012.data.dataset import load
from alexnet2012.evaluation import checkpoint
from alexnet2012.evaluation.crops import crops_of
from alexnet2012.network.alexnet import classes_of
from alexnet2012.network.build import build_net

NARROW = 1 / 16


def some_statistics(seed: int = 0, side: int = 256) -> Statistics:
    """A mean image that differs from pixel to pixel."""
    mean = np.random.default_rng(seed).uniform(80, 160, (side, side, 3)).astype(np.float32)
    return Statistics(mean, np.eye(3), np.ones(3), np.eye(3), 1)


def distinct_net(dataset: Dataset, statistics: Statistics, recipe: Recipe, seed: int) -> AlexNet:
    """A net drawn from ``seed``, its last layer scaled so that classes compete on the images of ``dataset``."""
    net = build_net(recipe, len(dataset.classes), seed).eval()
    shown = [load(dataset, index, recipe.image_size)[0] for index in range(min(len(dataset), 20))]
    images = torch.from_numpy(np.stack(shown))
    (centre,) = crops_of(images, statistics.mean_on("cpu"), recipe, 1)
    with torch.no_grad():
        logits = net(centre)
        spread = float(logits.std(0).mean())
        means = logits.mean(0).split([classes_of(net.classes, recipe.towers, tower) for tower in range(recipe.towers)])
        for tower, mean in zip(net.held, means, strict=True):
            tower.fc8.bias.sub_(mean)
            tower.fc8.weight.div_(spread)
            tower.fc8.bias.div_(spread)
    return net


def run_contents(step: int = 7, seed: int = 0, recipe: Recipe | None = None) -> dict[str, Any]:
    """All that a run saves, of a narrow net of five classes that has not been trained."""
    recipe = recipe or paper_recipe(width=NARROW)
    weights = {name: weight.detach() for name, weight in AlexNet(recipe, 5, seed).named_parameters()}
    return {
        "weights": weights,
        "optimizer": {"velocity": {name: torch.zeros_like(weight) for name, weight in weights.items()}},
        "recipe": dataclasses.asdict(recipe),
        "classes": 5,
        "schedule": {"best": math.inf, "epochs_since_best": 0, "plateau_drops": 0},
        "step": step,
        "images": 40,
        "best_top1_error": math.inf,
        "streams": STREAMS,
        **checkpoint.describe_data(["a", "b", "c", "d", "e"], some_statistics(seed)),
    }


def write_checkpoint(path: Path, dataset: Dataset, seed: int = 0, recipe: Recipe | None = None) -> Path:
    """A checkpoint of ``distinct_net`` for the classes of ``dataset``, with statistics of its own."""
    recipe = recipe or paper_recipe(width=NARROW)
    statistics = some_statistics(seed, recipe.image_size)
    net = distinct_net(dataset, statistics, recipe, seed)
    weights = {name: weight.detach() for name, weight in net.named_parameters()}
    contents = {"weights": weights, "recipe": dataclasses.asdict(recipe), "classes": net.classes, "step": 1}
    checkpoint.save(path, contents | checkpoint.describe_data(dataset.classes, statistics))
    return path


def by_hand(path: Path, dataset: Dataset, crops: int) -> np.ndarray:
    """Softmax outputs (n, classes) of a checkpoint, image by image, written without this project's evaluation."""
    saved = torch.load(path, weights_only=True)
    recipe = Recipe(**saved["recipe"])
    net = AlexNet(recipe, saved["classes"]).eval()
    net.load_state_dict(saved["weights"])
    mean = saved["statistics"]["mean"].numpy().astype(np.float64)
    corners = [(16, 16)] if crops == 1 else [(0, 0), (0, 32), (32, 0), (32, 32), (16, 16)]
    outputs = []
    for index in range(len(dataset)):
        pixels = load(dataset, index)[0].astype(np.float64)
        of_crops = []
        for top, left in corners:
            window = slice(top, top + 224), slice(left, left + 224)
            crop = pixels[window]
            for view, mean_view in ((crop, mean[window]), (crop[:, ::-1], mean[window][:, ::-1]))[
                : 2 if crops > 1 else 1
            ]:
                ready = view - (mean[16:240, 16:240] if recipe.mean_central else mean_view)
                tensor = torch.from_numpy(ready.transpose(2, 0, 1).astype(np.float32)[None].copy())
                with torch.no_grad():
                    logits = net(tensor)[0].tolist()
                powers = [math.exp(value - max(logits)) for value in logits]
                of_crops.append([value / sum(powers) for value in powers])
        outputs.append(np.mean(of_crops, 0))
    return np.array(outputs)


def nats_by_hand(outputs: np.ndarray, labels: np.ndarray) -> float:
    """The mean negative log probability of the true class."""
    return -sum(math.log(row[label]) for row, label in zip(outputs, labels, strict=True)) / len(labels)


def error_by_hand(outputs: np.ndarray, labels: np.ndarray, top: int) -> float:
    """Percent of rows whose true class has ``top`` others above it or beside it."""
    wrong = sum(sorted(row, reverse=True).index(row[label]) >= top for row, label in zip(outputs, labels, strict=True))
    return 100 * wrong / len(labels)
