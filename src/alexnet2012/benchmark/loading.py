"""Loaders beside torchvision's and beside decoding alone; and what data cost a training step and an evaluation."""

from __future__ import annotations

import importlib.util
import json
import statistics
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from PIL import Image
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2

from alexnet2012.benchmark.compare import Figure, beside_goal, compare, compared, on_one_core
from alexnet2012.benchmark.synthetic import IMAGES, prepared_and_files, write_ppm
from alexnet2012.benchmark.training_step import inputs, trained
from alexnet2012.core.errors import InputError
from alexnet2012.core.threads import cores
from alexnet2012.data import TrainingPlan, normalize, open_dataset, open_loader
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
FFCV, FFCV_WHOLE = "FFCV, raw, random crops", "FFCV, raw, whole images, not cropped"
FFCV_WRITER = """
import sys, threading
from ffcv import writer
from ffcv.fields import IntField, RGBImageField
from alexnet2012.data import open_dataset
from alexnet2012.data.dataset import load
class Images:
    dataset = open_dataset(sys.argv[1], "train")
    def __len__(self): return len(self.dataset)
    def __getitem__(self, index): return load(self.dataset, int(index))
fields = {"image": RGBImageField("raw"), "label": IntField()}
writer.Process = threading.Thread  # the processes that it forks have been seen to hang
writer.DatasetWriter(sys.argv[2], fields, num_workers=1).from_indexed_dataset(Images())
"""
JPEG = "the same from jpeg shards"
START, WAIT = 6.0, 2.0  # seconds; percent
RAW_RATE = 10_000  # images/s a core, from ppm
BATCH = {"cpu": 32, "cuda": 128}
STEPS = 6  # a turn with real data
SYNTHETIC = "the same step on one batch again and again"
FORWARD = "ten forward passes of the centre crop"
EVALUATED = {"cpu": (64, 32), "cuda": (2048, 256)}  # images, and those of a batch


def figures(device: torch.device, data: Path | None = None) -> Iterator[Figure]:
    """A pass over 2,048 images of 256x256, start included, with as many workers as cores; then whole steps."""
    with prepared_and_files(data) as (prepared, files):
        workers, ppm = cores(), write_ppm(files, files.parent / "ppm")
        passes = [(kind, *of) for kind in ("dali", "pillow") for of in (("shards", prepared), ("ppm shards", ppm))]
        passes.append(("dali", "single files", files))
        ours = {f"{kind} loader, {name}": our_pass(kind, place, workers, device, True) for kind, name, place in passes}
        others = {PEER: torchvision_pass(files, workers), LIMIT: decoding(files, workers)}
        taken = compare(ours | others, device, rounds=3, seconds=0)
        for name in ours:
            results = {name: taken[name], PEER: taken[PEER], LIMIT: taken[LIMIT]}
            goals = GOALS if name == "dali loader, shards" else {}
            yield from compared("loader", f"{name}, {workers} workers", results, goals, IMAGES)
        with on_one_core():
            yield from raw_figures(prepared, ppm)
        yield from whole_steps(prepared, device, workers)


def raw_figures(prepared: Path, ppm: Path) -> Iterator[Figure]:
    """Passes over ppm shards in the page cache by one core of the CPU: uint8 crops, then what the net reads."""
    cpu, beton = torch.device("cpu"), ppm.with_suffix(".beton")
    candidates = {"ours": our_pass("pillow", ppm, 1, cpu)}
    if importlib.util.find_spec("ffcv"):
        candidates |= {FFCV: ffcv_pass(ppm, beton, FFCV), FFCV_WHOLE: ffcv_pass(ppm, beton, FFCV_WHOLE)}
    taken = compare(candidates, cpu, rounds=5, seconds=0)
    what = "ppm shards, uint8 crops, half of them reflected, one core"
    yield beside_goal("loader", what, "images/s", IMAGES / statistics.median(taken["ours"]), RAW_RATE)
    yield from compared("loader", what, taken, {FFCV: 1.0}, IMAGES)
    places = {"ours": ppm, JPEG: prepared}
    candidates = {name: our_pass("pillow", place, 1, cpu, normalized=True) for name, place in places.items()}
    what = "ppm shards, float32 with noise and mean, one core"
    yield from compared("loader", what, compare(candidates, cpu, rounds=5, seconds=0), {JPEG: 4.0}, IMAGES)


def our_pass(
    kind: str, place: Path, workers: int, device: torch.device, normalized: bool = False
) -> Callable[[], object]:
    """One epoch of training crops; with ``normalized`` as the net reads them."""
    dataset, recipe = open_dataset(place, "train"), paper_recipe()
    plan = TrainingPlan(recipe, IMAGES, recipe.batch_size, 0, dataset.statistics, 1)
    mean = dataset.statistics.mean_on(device)

    def run() -> None:
        loader = open_loader(kind, dataset, map(plan.augmentations, range(plan.steps)), recipe, workers, device)
        for step, (crops, _) in enumerate(loader):
            if normalized:
                normalize(crops, plan.augmentations(step), mean, recipe)
        loader.close()

    return run


def ffcv_pass(ppm: Path, beton: Path, what: str) -> Callable[[], object]:
    """An epoch of FFCV from its file of raw pixels: random crops, half of them reflected, or whole images."""
    from ffcv.fields.rgb_image import RandomResizedCropRGBImageDecoder, SimpleRGBImageDecoder
    from ffcv.loader import Loader, OrderOption
    from ffcv.transforms import RandomHorizontalFlip

    if not beton.exists():
        subprocess.run([sys.executable, "-c", FFCV_WRITER, ppm, beton], check=True, capture_output=True, timeout=120)
    recipe = paper_recipe()
    size, share = recipe.crop_size, (recipe.crop_size / recipe.image_size) ** 2
    crop = [RandomResizedCropRGBImageDecoder((size, size), (share, share), (1, 1)), RandomHorizontalFlip(0.5)]
    steps = [SimpleRGBImageDecoder()] if what == FFCV_WHOLE else crop
    order = {"order": OrderOption.RANDOM, "os_cache": True, "drop_last": True}
    pipelines = {"image": steps, "label": None}
    loader = Loader(str(beton), batch_size=recipe.batch_size, num_workers=1, pipelines=pipelines, **order)
    return lambda: deque(loader, maxlen=0)


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


def start_figures(command: Path) -> Iterator[Figure]:
    """The training ``command`` on the sample: seconds to the first step, then the share of steps that data take."""
    with TemporaryDirectory(prefix="alexnet2012-") as name:
        flags = [
            "--data",
            "sample",
            "--width",
            "0.25",
            "--batch-size",
            "32",
            "--out",
            f"{name}/run",
            "--max-steps",
            "60",
        ]
        start, lines = time.perf_counter(), []
        with subprocess.Popen([sys.executable, command, *flags, "--log-every", "1"], stdout=-1, text=True) as run:
            for line in run.stdout or ():
                lines += [time.perf_counter() - start] * line.startswith("step 1/")
        if run.returncode:
            raise InputError(f"start: {command} failed, as said above")
        rows = [json.loads(row) for row in Path(name, "run", "metrics.jsonl").read_text().splitlines()]
    what = "training on the sample at quarter width, batch 32"
    yield beside_goal("start", f"{what}: from the command to the first step", "s", lines[0], START)
    waits = [100 * row["data_wait"] for row in rows if row["step"] > 20 and "data_wait" in row]
    yield beside_goal("start", f"{what}: waiting for data after step 20", "%", statistics.mean(waits), WAIT)
