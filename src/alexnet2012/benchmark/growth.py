"""Speed as the work grows: larger batches, more replicas, more images."""

from __future__ import annotations

import json
import multiprocessing
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch

from alexnet2012.benchmark.compare import Figure, beside_goal, compare, compared, peak
from alexnet2012.benchmark.synthetic import prepared_and_files
from alexnet2012.benchmark.training_step import inputs, trained
from alexnet2012.data import TrainingPlan, open_dataset
from alexnet2012.data.shards import MANIFEST, read_manifest, seal
from alexnet2012.distributed.layout import open_layout
from alexnet2012.network import AlexNet
from alexnet2012.recipe import paper_recipe
from alexnet2012.training.optimizer import make_optimizer

BATCHES = (16, 32, 64, 128, 256, 512)
REPLICATED = 128  # images a step over all replicas
ALONE = "the same without averaging gradients"
INDEXED = (10**3, 10**4, 10**5, 10**6, 10**7)
SECONDS, MEGABYTES = 3.0, 400.0  # that 10^7 images may take


def figures(device: torch.device, data: Path | None = None) -> Iterator[Figure]:
    """Of one process; ``replicas`` measures several."""
    yield from batches(device)
    yield from indices(data)


def batches(device: torch.device) -> Iterator[Figure]:
    """Images/s of a training step by batch size, beside the smallest's; all sizes in turn."""
    net = AlexNet(paper_recipe()).place([device])
    step = trained(net, make_optimizer(net, net.recipe))
    candidates = {f"batch {batch}": partial(step, *inputs(batch, device)) for batch in BATCHES}
    taken = compare(candidates, device, rounds=3, seconds=0).values()
    smallest, *others = (tuple(second / batch for second in of) for batch, of in zip(BATCHES, taken, strict=True))
    for batch, ours in zip(BATCHES[1:], others, strict=True):
        results = {"ours": ours, f"batch {BATCHES[0]}": smallest}
        yield from compared("growth", f"training step, batch {batch}", results, images=1)


def replicas(device: torch.device) -> Iterator[Figure]:
    """Images/s of the replicas of both towers that call this together, beside one replica in one of the processes."""
    with open_layout("together") as layout:
        own = layout.devices[0]
        net, alone = (AlexNet(paper_recipe()).place([own]) for _ in range(2))
        step = trained(layout.replicate(net), make_optimizer(net, net.recipe))
        by_itself = trained(alone, make_optimizer(alone, net.recipe))
        images, labels = inputs(REPLICATED // layout.replicas, own)
        candidates = {"ours": partial(step, images, labels), ALONE: partial(by_itself, images, labels)}
        results = compare(candidates, own, rounds=3, seconds=0)
        if layout.is_main:
            what = f"a training step of {layout.replicas} replicas, batch {REPLICATED}"
            yield from compared("growth", what, results, images=REPLICATED)


def indices(data: Path | None = None) -> Iterator[Figure]:
    """Opening a prepared set and planning its first batch, beside what 10^7 images may take."""
    with prepared_and_files(data, images=256) as (prepared, _), TemporaryDirectory(prefix="alexnet2012-") as name:
        for images in INDEXED:
            enlarge(prepared, Path(name), images)
            with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
                seconds, megabytes = process.submit(opened, name, images).result()
            what = f"opening {images:,} images and planning a batch"
            for unit, ours, most in (("ms", 1000 * seconds, 1000 * SECONDS), ("MB", megabytes, MEGABYTES)):
                yield beside_goal("growth", what, unit, ours, most)


def enlarge(prepared: Path, directory: Path, images: int) -> None:
    """In ``directory`` the set of ``prepared``, its training images repeated to ``images`` by the index."""
    for path in prepared.iterdir():
        if not (directory / path.name).exists():
            (directory / path.name).symlink_to(path.absolute())
    manifest, index = read_manifest(prepared), directory / "train-index.npy"
    for path in (directory / MANIFEST, index):
        path.unlink()
    np.save(index, np.resize(np.load(prepared / index.name), images))
    manifest["splits"]["train"]["images"] = images
    manifest["files"][index.name] = seal(index)
    (directory / MANIFEST).write_text(json.dumps(manifest))


def opened(directory: str, images: int) -> tuple[float, float]:
    """Seconds, and MB of main memory at most, that a new process takes more than it had."""
    cpu = torch.device("cpu")
    before, start = peak(cpu), time.perf_counter()
    dataset = open_dataset(directory, "train")
    recipe = paper_recipe()
    TrainingPlan(recipe, images, recipe.batch_size, 0, dataset.statistics, recipe.epochs).augmentations(0)
    return time.perf_counter() - start, max((peak(cpu) - before) / 1e6, 0.1)
