"""How long a study will take, from one timed training step."""

from __future__ import annotations

import time

import torch

from alexnet2012.data import open_dataset, steps_per_epoch
from alexnet2012.distributed.layout import devices_of_one_process
from alexnet2012.network import AlexNet
from alexnet2012.network.summary import describe
from alexnet2012.recipe import Recipe
from alexnet2012.reporting.ablation.study import CROPS, Planned

PASSES = 3  # a training step computes three times what a forward pass does
TIMED_IMAGES = 32  # at most, in the timed step


def forward_work(recipe: Recipe) -> int:
    """Multiply-adds of an image."""
    return sum(layer.multiply_adds for layer in describe(recipe))


def speed(recipe: Recipe, threads: int) -> float:
    """Multiply-adds a second in a training step of ``recipe``'s net, here, on so many CPU threads."""
    torch.set_num_threads(threads)
    images = torch.zeros(min(recipe.batch_size, TIMED_IMAGES), 3, recipe.crop_size, recipe.crop_size)
    net = AlexNet(recipe).place(devices_of_one_process(recipe.towers))
    for _ in range(2):  # the first warms up
        started = time.perf_counter()
        loss = net(images, step=0).sum()
        loss.backward()
        loss.item()  # waits for a GPU
        next(net.parameters()).grad.sum().item()  # type: ignore[union-attr]
        seconds = time.perf_counter() - started
    return PASSES * forward_work(recipe) * len(images) / seconds


def seconds(planned: Planned, multiply_adds: float) -> float:
    """For what is left of a run at that many a second; reading images and saving are not counted.

    Raises InputError for less images than a batch.
    """
    if planned.finished:
        return 0.0
    recipe = planned.settings.recipe
    images, val = (len(open_dataset(planned.settings.data, split)) for split in ("train", "val"))
    steps = recipe.epochs * steps_per_epoch(images, recipe.batch_size, recipe.short_batch)
    share = min(1.0, (planned.settings.max_steps or steps) / steps)
    trained = 0 if planned.trained else share * recipe.epochs * (PASSES * images + val)
    return (trained + CROPS * val) * forward_work(recipe) / multiply_adds
