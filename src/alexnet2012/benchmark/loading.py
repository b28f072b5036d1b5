"""Loaders beside torchvision's and beside decoding alone; and what data cost a training step and an evaluation."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from PIL import Image
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2

from alexnet2012.benchmark.compare import Figure, compare, compared
from alexnet2012.benchmark.synthetic import IMAGES, prepared_and_files
from alexnet2012.benchmark.training_step import inputs, trained
from alexnet2012.core.threads import cores
from alexnet2012.data import TrainingPlan, open_dataset, open_loader
from alexnet2012.data.dataset import spread
from alexnet2012.distributed.layout import open_layout
from alexnet2012.evaluation.evaluate import EvaluationSettings, evaluate, evaluating
from alexnet2012.network import AlexNet
from alexnet2012.recipe import paper_recipe
from alexnet2012.training import Settings
from alexnet2012.training.batches import TrainingBatches
from alexnet2012.training.optimizer import make_optimizer

PEER, LIMIT = "torchvision's ImageFolder and DataLoader", "reading and decoding alone, libjpeg-turbo in Pillow"
GOALS = {PEER: 1.6, LIMIT: 0.7}
BATCH = {"cpu": 32, "cuda": 128}
STEPS = 6  # a turn with real data
SYNTHETIC = "the same step on one batch again and again"
FORWARD = "ten forward passes of the centre crop"
EVALUATED = {"cpu": (64, 32), "cuda": (2048, 256)}  # images, and those of a batch


def figures(device: torch.device, data: Path | None = None) -> Iterator[Figure]:
    """A pass over 2,048 images of 256x256, start included, with as many workers as cores; then whole steps."""
    with prepared_and_files(data) as (prepared, files):
        workers = cores()
        ours = {
            f"{kind} loader, {name}": our_pass(kind, place, workers, device)
            for kind in ("dali", "pillow")
            for name, place in (("shards", prepared), ("single files", files))
        }
        others = {PEER: torchvision_pass(files, workers), LIMIT: decoding(files, workers)}
        taken = compare(ours | others, device, rounds=5, seconds=0)
        for name in ours:
            results = {name: taken[name], PEER: taken[PEER], LIMIT: taken[LIMIT]}
            goals = GOALS if name == "dali loader, shards" else {}
            yield from compared("loader", f"{name}, {workers} workers", results, goals, IMAGES)
        yield from whole_steps(prepared, device, workers)


def our_pass(kind: str, place: Path, workers: int, device: torch.device) -> Callable[[], object]:
    """One epoch of training crops."""
    dataset, recipe = open_dataset(place, "train"), paper_recipe()
    plan = TrainingPlan(recipe, IMAGES, recipe.batch_size, 0, dataset.statistics, 1)

    def run() -> None:
        loader = open_loader(kind, dataset, map(plan.augmentations, range(plan.steps)), recipe, workers, device)
        deque(loader, maxlen=0)
        loader.close()

    return run


def torchvision_pass(files: Path, workers: int) -> Callable[[], object]:
    """The usual training script for ImageNet, without resizing: the files are 256x256."""
    recipe = paper_recipe()
    steps = [v2.RandomCrop(recipe.crop_size), v2.RandomHorizontalFlip(), v2.PILToTensor()]
    scale = [v2.ToDtype(torch.float32, scale=True), v2.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])]
    dataset = ImageFolder(files / "train", v2.Compose([*steps, *scale]))
    loader = DataLoader(dataset, recipe.batch_size, shuffle=True, num_workers=workers, persistent_workers=True)
    return lambda: deque(loader, maxlen=0)


def decoding(files: Path, workers: int) -> Callable[[], object]:
    """Every file read and decoded whole, nothing else."""
    paths = sorted((files / "train").rglob("*.JPEG"))
    pool = ThreadPoolExecutor(workers)

    def decode(path: Path) -> None:
        with Image.open(path) as image:
            image.load()

    return lambda: deque(pool.map(decode, paths), maxlen=0)


def whole_steps(prepared: Path, device: torch.device, workers: int) -> Iterator[Figure]:
    """The full net, trained on images as they come from the loader."""
    batch = BATCH[device.type]
    recipe = paper_recipe(batch_size=batch)
    dataset = open_dataset(prepared, "train")
    with open_layout("together") as layout:
        plan = TrainingPlan(recipe, len(dataset), batch, 0, dataset.statistics, 1000)
        settings = Settings(str(prepared), recipe, workers=workers)
        batches = TrainingBatches(layout, dataset, plan, settings, range(plan.steps))
        arriving = iter(batches)
        net = AlexNet(recipe, len(dataset.classes)).place([device])
        step, (images, labels) = trained(net, make_optimizer(net, recipe)), inputs(batch, device)
        labels %= len(dataset.classes)
        candidates = {
            "ours": lambda: [step(*next(arriving)) for _ in range(STEPS)],
            SYNTHETIC: lambda: [step(images, labels) for _ in range(STEPS)],
        }
        drain = {"ours": lambda: [next(arriving) for _ in range(STEPS)]}  # what was loaded during the other's turn
        results = compare(candidates, device, rounds=5, seconds=0, before=drain)
        batches.close()
    goals = {SYNTHETIC: 0.95} if device.type == "cpu" else {}
    yield from compared("loader", f"training step on real data, batch {batch}", results, goals, batch * STEPS)


def evaluation_figures(device: torch.device, data: Path | None = None) -> Iterator[Figure]:
    """Ten crops by the full net in float32, beside its forward passes: without reading, decoding and cutting."""
    images, batch = EVALUATED[device.type]
    with prepared_and_files(data) as (prepared, _), open_layout("together") as layout:
        some = spread(open_dataset(prepared, "train"), images)
        net = AlexNet(classes=len(some.classes)).place([device])
        crops, _ = inputs(batch, device)

        def forward() -> None:
            with evaluating(net):
                for _ in range(10 * images // batch):
                    net(crops)

        settings = EvaluationSettings(10, batch, "dali", cores())
        candidates = {"ours": lambda: evaluate(net, layout, some, settings), FORWARD: forward}
        results = compare(candidates, device, rounds=5, seconds=0)
        yield from compared("evaluate", f"ten crops, {images} images", results, {FORWARD: 0.9}, images)
