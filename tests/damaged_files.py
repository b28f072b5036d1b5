"""What every reader makes of damaged and hostile files: python tests/damaged_files.py --count 1000 --seed 2012

Each damage is read in a process of its own, with little memory and time. A reader may give what the whole file gives
(``unharmed``: the damage changed nothing, or what it spoiled was made anew), something that no reader can tell from a
whole file because nothing seals it (``plausible``), or one clean line, an InputError (``refused``). Else it is a fault.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import io
import json
import math
import multiprocessing
import os
import random
import resource
import select
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import damages
import ilsvrc
import numpy as np
import torch
from checkpoints import write_checkpoint
from running import write_tree

from alexnet2012 import AlexNet, load_checkpoint, paper_recipe
from alexnet2012.core.errors import InputError
from alexnet2012.data import dataset as pixels
from alexnet2012.data import open_dataset
from alexnet2012.data.prepare import shards as preparation
from alexnet2012.data.prepare import verify as preparation_verify
from alexnet2012.data.prepare import workers as preparation_workers
from alexnet2012.data.prepare.shards import Settings, prepare
from alexnet2012.data.prepare.source import open_source
from alexnet2012.data.shards import ShardDataset
from alexnet2012.distributed.layout import Layout
from alexnet2012.evaluation import checkpoint, features
from alexnet2012.evaluation import model as trained_net
from alexnet2012.evaluation.evaluate import EvaluationSettings
from alexnet2012.evaluation.export import save_grouped, save_safetensors, save_with_weights_of
from alexnet2012.evaluation.predictions import Predictions, average, fingerprint, load_comparable
from alexnet2012.reporting.ablation.study import Run
from alexnet2012.reporting.figures.curves import draw_curves, read_curves
from alexnet2012.training import PaperSGD
from alexnet2012.training.checkpoint_store import CheckpointStore, restore_net
from alexnet2012.training.optimizer import parameter_groups
from alexnet2012.training.run import training_statistics
from alexnet2012.training.run_directory import RunDirectory
from alexnet2012.training.schedule import Plateau
from alexnet2012.training.settings import Settings as TrainingSettings

MEMORY, CPU_SECONDS, SECONDS = 2**30, 10, 20  # that a reader may take beyond what the process has
KINDS = ("unharmed", "plausible", "refused", "wrong", "traceback", "unclean line", "hang", "memory", "crash", "code")
FAULTS = KINDS[3:]
SCRATCH = "base-seed0"  # a name that a study's run has
RECIPE = paper_recipe(width=1 / 16)


# The whole files


def build(root: Path) -> None:
    """A small one of everything that is read."""
    write_tree(root / "tree", classes=3, train=2, val=1)
    images = few_images()
    for write in (ilsvrc.write_archives, ilsvrc.write_tree, ilsvrc.write_flat_with_devkit, ilsvrc.write_kaggle):
        write(root / write.__name__, images)
    prepare_in("whole", root / "set")
    prepare_in("unfinished", root / "unfinished")
    write_net(root / "net")
    write_run(root / "run")


def few_images() -> ilsvrc.Ilsvrc:
    """Two training images of each of ten classes and five for validation."""
    all_images = ilsvrc.images()
    train = {key: file for key, file in all_images.train.items() if key[-1] in "03"}
    val = dict(list(all_images.val.items())[:5])
    return ilsvrc.Ilsvrc(train, val, all_images.labels)


def prepare_in(kind: str, directory: Path) -> None:
    """The prepared set of the archives, whole or short of its manifest."""
    source = open_source(directory.parent / "write_archives")
    settings = Settings(images_per_shard=7)
    prepare(source, directory, settings, 1, False, lambda images: None)
    if kind == "unfinished":
        unfinished = directory / preparation.UNFINISHED
        unfinished.mkdir()
        (unfinished / "settings.json").write_bytes(preparation._json(preparation.describe(source, settings)))
        for shard in preparation.plan_shards(source, directory, settings):
            preparation.make_shard(shard)
        for name in ("manifest.json", "classes.json", "statistics.npz", "train-index.npy", "val-index.npy"):
            (directory / name).unlink()
        (directory / "train-000001.tar").unlink()


def write_net(directory: Path) -> None:
    """A checkpoint, its grouped weights, predictions, and kept features."""
    directory.mkdir()
    tree = directory.parent / "tree"
    write_checkpoint(directory / "net.pt", open_dataset(tree, "val"))
    net = load_checkpoint(directory / "net.pt", "cpu")
    save_safetensors(net, directory / "whole.safetensors")
    save_grouped(net, directory / "grouped.safetensors")
    probabilities = np.random.default_rng(0).dirichlet(np.ones(3), 6).astype(np.float32)
    for name in ("predictions.npz", "others.npz"):
        Predictions(probabilities, np.arange(6) % 3, ["a", "b", "c"], 10, "data").save(directory / name)
    train = open_dataset(tree, "train").with_statistics(net.statistics)
    features.features_file(net, train, directory, EvaluationSettings(batch_size=6)).rename(directory / "fc7.npy")


def write_run(directory: Path) -> None:
    """A run's directory with a checkpoint to go on from."""
    settings = run_settings(directory)
    home = RunDirectory(directory)
    home.claim(settings.identity())
    home.record(settings.identity(), classes=3, max_steps=None)
    rows = [
        {"step": step, "epoch": 1, "loss": 1.0 / step, "train_top1_error": 50.0, "lr": 0.01, "images_per_second": 10.0}
        for step in range(1, 6)
    ]
    rows.append({"step": 5, "epoch": 1, "val_top1_error": 40.0, "val_top5_error": 0.0})
    home.metrics.write_text("".join(json.dumps(row) + "\n" for row in rows))
    home.state.write_text(json.dumps({"state": "done", "step": 5, "reason": ""}) + "\n")
    errors = {"top1_error": 40.0, "top5_error": 0.0, "loss": 1.0, "images": 3, "crops": 10}
    (directory / "ten_crops.json").write_text(json.dumps(errors))
    train = open_dataset(settings.data, "train")
    statistics = training_statistics(train, Layout(), home, settings)
    net = AlexNet(RECIPE, 3)
    weights = {name: weight.detach() for name, weight in net.named_parameters()}
    contents = {
        "weights": weights, "optimizer": {"velocity": weights}, "recipe": dataclasses.asdict(RECIPE), "classes": 3,
        "schedule": {"best": 40.0, "epochs_since_best": 0, "plateau_drops": 0}, "images": 6, "best_top1_error": 40.0,
        "step": 4, "epochs_since_best": 0, "validation_pending": False, "streams": 2, "seed": 0,
        "settings": settings.identity(), **checkpoint.describe_data(train.classes, statistics),
    }  # fmt: skip
    for step in (4, 5):
        checkpoint.save(home.checkpoints / f"step-{step:09d}.pt", contents | {"step": step})


def run_settings(directory: Path) -> TrainingSettings:
    return TrainingSettings(data=str(Path("tree").resolve()), recipe=RECIPE, out=directory, loader="pillow", workers=1)


# The readers: each is given the family's directory and the damaged file's place in it; returns what it read


def read_prepared(directory: Path, path: Path) -> Any:
    dataset = ShardDataset(directory, "train")
    encoded = [dataset[index] for index in range(len(dataset))]
    return len(dataset), dataset.classes, encoded, [dataset.name(index) for index in range(len(dataset))]


def whole_images(read: Any) -> bool:
    """Nothing in a shard tells a changed picture from another but its checksum, which verifying compares."""
    count, classes, encoded, _ = read
    return count == 20 and len(classes) == 10 and all(0 <= label < 10 for _, label in encoded)


def read_set_statistics(directory: Path, path: Path) -> Any:
    return vars(ShardDataset(directory, "train").statistics)


def read_finished(directory: Path, path: Path) -> Any:
    source = open_source(directory.parent / "write_archives")
    manifest = prepare(source, directory, Settings(images_per_shard=7), 1, False, lambda images: None)
    return {**manifest, "files": {p.name: p.read_bytes() for p in directory.iterdir() if p.is_file()}}


def read_verified(directory: Path, path: Path) -> Any:
    source = open_source(directory.parent / "write_archives")
    checks, problems = preparation_verify.verify(source, directory, 1, lambda images: None)
    if failed := [check for check in checks if not check.holds]:
        raise InputError(f"{path}: {failed[0]}; {problems[:1]}")
    return checks


def read_claim(directory: Path, path: Path) -> Any:
    home = RunDirectory(directory)
    home.claim(run_settings(directory).identity())
    return json.loads(home.config.read_text())["settings"]


def read_study(directory: Path, path: Path) -> Any:
    of_study = Run(directory)
    of_study.directory.refuse_other_settings(
        of_study.config()["settings"] if of_study.config() else run_settings(directory).identity(),
        run_settings(directory).identity(),
    )
    return of_study.step, of_study.trained(None), of_study.rates()


def study_numbers(read: Any) -> bool:
    step, _, rates = read
    return step >= 0 and (rates is None or (0 <= rates.top1_error <= 100 and 0 <= rates.top5_error <= 100))


def read_step(directory: Path, path: Path) -> Any:
    return RunDirectory(directory).read_state()[1]


def read_rows(directory: Path, path: Path) -> Any:
    home = RunDirectory(directory)
    home.drop_rows_after(4)
    lines = home.metrics.read_text().splitlines() if home.metrics.exists() else []
    return [json.loads(line)["step"] for line in lines]


def read_figures(directory: Path, path: Path) -> Any:
    curves = read_curves(directory / "metrics.jsonl")
    draw_curves([curves])
    return curves.classes, curves.training, curves.validation


def read_run_statistics(directory: Path, path: Path) -> Any:
    settings = run_settings(directory)
    train = open_dataset(settings.data, "train")
    return vars(training_statistics(train, Layout(), RunDirectory(directory), settings))


def read_resumed(directory: Path, path: Path) -> Any:
    newest, _ = CheckpointStore(directory / "checkpoints", 3).newest()
    assert newest
    saved = checkpoint.load(newest)
    checkpoint.refuse_incomplete(saved, newest)
    if saved["classes"] != 3 or saved["images"] != 6 or saved["recipe"].get("width") != 1 / 16:
        raise InputError(f"{newest}: of another net")
    statistics = checkpoint.statistics_in(saved)
    net = AlexNet(RECIPE, 3)
    optimizer = PaperSGD(parameter_groups(net, RECIPE), 0.01)
    restore_net(net, optimizer, saved)
    schedule = Plateau(RECIPE, 100, lambda epoch: 100 * epoch // RECIPE.schedule_epochs)
    if not schedule.state.keys() <= saved["schedule"].keys():
        raise InputError(f"{newest}: of another schedule")
    schedule.state.update(saved["schedule"])
    schedule.observe(min(50.0, saved["best_top1_error"]))
    assert schedule.factor("weights", saved["step"]) > 0
    velocities = {name: optimizer.velocity(weight) for name, weight in net.named_parameters()}
    return vars(statistics), dict(net.named_parameters()), velocities, schedule.state


def resumable(read: Any) -> bool:
    """From either checkpoint, the one before or one whose step or best error is another number."""
    statistics, weights, velocities, schedule = read
    whole = all(torch.isfinite(value).all() for value in [*weights.values(), *velocities.values()])
    return whole and fair_statistics(statistics) and not math.isnan(schedule["best"])


def fair_statistics(statistics: dict[str, Any]) -> bool:
    mean = statistics["mean"]
    return mean.shape == (256, 256, 3) and np.isfinite(mean).all() and mean.min() >= 0 and mean.max() <= 255


def read_net(directory: Path, path: Path) -> Any:
    net = load_checkpoint(path, "cpu")
    net.predict(next((directory.parent / "tree").rglob("*.png")), crops=1)
    return dict(net.named_parameters()), net.class_names, vars(net.statistics), dataclasses.asdict(net.recipe)


def fair_net(read: Any) -> bool:
    weights, names, statistics, _ = read
    finite = all(torch.isfinite(weight).all() for weight in weights.values())
    return finite and len(names) == 3 and all(isinstance(name, str) for name in names) and fair_statistics(statistics)


def read_grouped(directory: Path, path: Path) -> Any:
    saved = checkpoint.load(directory / "net.pt")
    save_with_weights_of(saved, directory / "grouped.safetensors", directory / "back.pt")
    weights = dict(load_checkpoint(directory / "back.pt", "cpu").named_parameters())
    return weights, ["a", "b", "c"], vars(checkpoint.statistics_in(saved)), None


def read_predictions(directory: Path, path: Path) -> Any:
    kept = average(load_comparable([directory / "predictions.npz", directory / "others.npz"]), [1, 1])
    kept.error_rates()
    return vars(kept)


def read_features(directory: Path, path: Path) -> Any:
    net = load_checkpoint(directory.parent / "net" / "net.pt", "cpu")
    train = open_dataset(directory.parent / "tree", "train").with_statistics(net.statistics)
    if os.path.lexists(path):
        path.rename(directory / FEATURES["name"])
    kept = features.features_file(net, train, directory, EvaluationSettings(batch_size=6))
    return features.nearest(torch.ones(2, np.load(kept, mmap_mode="r").shape[1]), kept, 4)


FEATURES: dict[str, str] = {}  # the name that the cache gives its file


def read_source(directory: Path, path: Path) -> Any:
    source = open_source(directory)
    keys = {split: [(file.key, file.wnid) for file in files] for split, files in source.images.items()}
    source.fingerprint()
    return keys, source.wnids, source.words, [file.read() for files in source.images.values() for file in files]


def whole_source(read: Any) -> bool:
    """Every image is there, under some name, with some words."""
    keys, wnids, words, _ = read
    return (len(keys["train"]), len(keys["val"]), len(wnids)) == (20, 5, 10) and all(map(str.strip, words))


def read_words(directory: Path, path: Path) -> Any:
    if not os.path.lexists(path):
        raise InputError(f"{path}: may be left out")
    return read_source(directory, path)


def own_words(read: Any) -> bool:
    return whole_source(read) and all(word != wnid for wnid, word in zip(read[1], read[2], strict=True))


def tree_of_source(read: Any) -> bool:
    keys, wnids, _, _ = read
    return len(keys["train"]) >= 20 - 2 and len(wnids) >= 10 - 1


def read_unfinished(directory: Path, path: Path) -> Any:
    return read_finished(directory, path)["files"]


def prepared_anew(read: Any) -> bool:
    """A made shard with another picture in it: its record's checksum tells, when the set is verified."""
    return read.keys() == WHOLE_SET["files"].keys()


WHOLE_SET: dict[str, Any] = {}


def read_tree(directory: Path, path: Path) -> Any:
    dataset = open_dataset(directory, "train")
    fingerprint(dataset)
    names = [dataset.name(index) for index in range(len(dataset))]
    return dataset.classes, [pixels.load(dataset, index) for index in range(len(dataset))], names


def read_picture(directory: Path, path: Path) -> Any:
    return trained_net.read_pixels(path)


def always(read: Any) -> bool:
    return True


class Pair(NamedTuple):
    """A kind of file, and who reads it."""

    name: str
    family: str  # the directory that is copied and given to the reader
    file: str  # within it
    hostile: dict[str, damages.Damage]  # for its format
    read: Callable[[Path, Path], Any]
    plausible: Callable[[Any], bool] | None = None  # None: a checksum seals it, so only equal content will do


def never_less(read: Any) -> bool:
    return all(step <= 4 for step in read)


PAIRS = (
    Pair("set's index, opened", "set", "train-index.npy", damages.INDEX_NPY, read_prepared),
    Pair("set's classes, opened", "set", "classes.json", damages.JSON, read_prepared),
    Pair("set's manifest, opened", "set", "manifest.json", damages.JSON, read_prepared, whole_images),
    Pair("set's shard, opened", "set", "train-000000.tar", {}, read_prepared, whole_images),
    Pair("set's statistics, read", "set", "statistics.npz", damages.NPZ, read_set_statistics),
    Pair("set's manifest, prepared again", "set", "manifest.json", damages.JSON, read_finished, always),
    Pair("set's shard, verified", "set", "train-000000.tar", damages.TAR, read_verified),
    Pair("set's index, verified", "set", "train-index.npy", damages.INDEX_NPY, read_verified),
    Pair("set's statistics, verified", "set", "statistics.npz", damages.NPZ, read_verified),
    Pair("preparation's settings", "unfinished", ".preparation/settings.json", damages.JSON, read_unfinished),
    Pair("preparation's record", "unfinished", ".preparation/train-000000.npz", damages.NPZ, read_unfinished),
    Pair("preparation's shard", "unfinished", "train-000000.tar", {}, read_unfinished, prepared_anew),
    Pair("archive of training images", "write_archives", "ILSVRC2012_img_train.tar", damages.TAR,
         read_source, whole_source),
    Pair("archive of validation images", "write_archives", "ILSVRC2012_img_val.tar", damages.TAR, read_source,
         whole_source),
    Pair("devkit, packed", "write_archives", "ILSVRC2012_devkit_t12.tar.gz", damages.GZIP, read_source, whole_source),
    Pair("devkit's meta.mat", "write_flat_with_devkit", "ILSVRC2012_devkit_t12/data/meta.mat", {}, read_source,
         whole_source),
    Pair("devkit's ground truth", "write_flat_with_devkit",
         "ILSVRC2012_devkit_t12/data/ILSVRC2012_validation_ground_truth.txt", damages.TABLE, read_source, whole_source),
    Pair("Kaggle's labels", "write_kaggle", "LOC_val_solution.csv", damages.TABLE, read_source, whole_source),
    Pair("Kaggle's words", "write_kaggle", "LOC_synset_mapping.txt", damages.TABLE, read_words, own_words),
    Pair("source's tree", "write_tree", "train/n01440764/n01440764_0.JPEG", damages.TREE, read_source, tree_of_source),
    Pair("tree's image, JPEG", "tree", "train/class1/0.JPEG", damages.JPEG | damages.TREE, read_tree, always),
    Pair("tree's image, PNG", "tree", "train/class1/1.png", damages.TREE, read_tree, always),
    Pair("picture, predicted", "tree", "train/class1/0.JPEG", damages.JPEG, read_picture, always),
    Pair("run's config.json, claimed", "run", "config.json", damages.JSON, read_claim, always),
    Pair("run's config.json, in a study", "run", "config.json", damages.JSON, read_study, study_numbers),
    Pair("run's state.json, read", "run", "state.json", damages.JSON, read_step, lambda step: step >= 0),
    Pair("run's state.json, in a study", "run", "state.json", damages.JSON, read_study, study_numbers),
    Pair("run's ten_crops.json", "run", "ten_crops.json", damages.JSON, read_study, study_numbers),
    Pair("run's metrics.jsonl, resumed", "run", "metrics.jsonl", damages.ROWS, read_rows, never_less),
    Pair("run's metrics.jsonl, drawn", "run", "metrics.jsonl", damages.ROWS, read_figures, always),
    Pair("run's statistics.npz", "run", "statistics.npz", damages.NPZ, read_run_statistics),
    Pair("run's checkpoint, resumed", "run", "checkpoints/step-000000005.pt", damages.CHECKPOINT, read_resumed,
         resumable),
    Pair("checkpoint, evaluated", "net", "net.pt", damages.CHECKPOINT, read_net, fair_net),
    Pair("exported net, evaluated", "net", "whole.safetensors", damages.SAFETENSORS, read_net, fair_net),
    Pair("grouped weights, taken", "net", "grouped.safetensors", damages.SAFETENSORS, read_grouped, fair_net),
    Pair("predictions, averaged", "net", "predictions.npz", damages.NPZ, read_predictions),
    Pair("fc7's cache", "net", "fc7.npy", damages.NPY, read_features),
)  # fmt: skip


# Judging


class Outcome(NamedTuple):
    """What one reader made of one damage."""

    pair: str
    damage: str
    kind: str  # of KINDS
    said: str


def digest(value: Any) -> str:
    """Of what was read: equal for equal values."""
    state = hashlib.sha256()

    def add(value: Any) -> None:
        if isinstance(value, torch.Tensor):
            value = value.detach().numpy()
        if isinstance(value, np.ndarray):
            state.update(f"{value.dtype} {value.shape}".encode() + value.tobytes())
        elif isinstance(value, dict):
            for key in sorted(value):
                add(key)
                add(value[key])
        elif isinstance(value, list | tuple):
            state.update(f"{len(value)}".encode())
            for item in value:
                add(item)
        else:
            state.update(repr(value).encode())

    add(value)
    return state.hexdigest()


def serial(work: Any, tasks: Any, workers: int, progress: Any) -> Iterator[tuple[Any, Any]]:
    """``preparation_workers.run`` without processes."""
    return ((task, work(task)) for task in tasks)


def limit() -> None:
    """Little memory for this process."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    most = pages * resource.getpagesize() + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def memory_ran_out(error: BaseException) -> bool:
    words = ("allocate memory", "not enough memory", "Unable to allocate", "Cannot allocate")
    return any(isinstance(e, MemoryError) or any(word in str(e) for word in words) for e in chain(error))


def outcome_of(pair: Pair, directory: Path, expected: str) -> tuple[str, str]:
    """(kind, what was said) of reading the damaged file, in this process."""
    try:
        read = pair.read(directory, directory / pair.file)
        if digest(read) == expected:
            return "unharmed", ""
        return ("plausible" if pair.plausible and pair.plausible(read) else "wrong"), repr(read)[:300]
    except InputError as error:
        line = str(error)
        if memory_ran_out(error):
            return "memory", line[:500]
        return ("refused" if line.isprintable() and len(line) < 2_000 else "unclean line"), line[:500]
    except BaseException as error:
        kind = "memory" if memory_ran_out(error) else "traceback"
        return kind, "".join(traceback.format_exception(error)[-4:])[-1500:]


def damage_of(pair: Pair, number: int, seed: int) -> tuple[str, random.Random]:
    """Which damage mutation ``number`` does, and its draws."""
    draw = random.Random(f"{seed} {number}")
    hostile = sorted(pair.hostile)
    names = [*sorted(damages.ANY), *hostile, *hostile]
    return draw.choice(names), draw


def mutate(root: Path, number: int, seed: int, expected: dict[str, str]) -> Outcome:
    """Copy, damage, read."""
    pair = PAIRS[number % len(PAIRS)]
    name, draw = damage_of(pair, number, seed)
    scratch = root / SCRATCH
    shutil.rmtree(scratch, ignore_errors=True)
    shutil.copytree(root / pair.family, scratch)
    (damages.ANY | pair.hostile)[name](scratch / pair.file, draw)
    signal.setitimer(signal.ITIMER_PROF, CPU_SECONDS)  # SIGPROF ends the process
    kind, said = outcome_of(pair, scratch, expected[pair.name])
    signal.setitimer(signal.ITIMER_PROF, 0)
    return Outcome(pair.name, name.strip(), "code" if (root / "harm").exists() else kind, said)


def work(root: Path, numbers: list[int], seed: int, expected: dict[str, str], pipe: int) -> NoReturn:
    """In a process of its own: write an outcome a line."""
    try:
        sys.stderr = sys.stdout = io.StringIO()
        limit()
        for number in numbers:
            os.write(pipe, json.dumps(mutate(root, number, seed, expected)).encode() + b"\n")
    finally:
        os._exit(0)


def outcomes_of(root: Path, numbers: list[int], seed: int, expected: dict[str, str]) -> list[Outcome]:
    """Of mutations by number. Whatever ends or stops the process that reads is the outcome of what it was reading."""
    outcomes: list[Outcome] = []
    while left := numbers[len(outcomes) :]:
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            work(root, left, seed, expected, writing)
        os.close(writing)
        with os.fdopen(reading, "rb", buffering=0) as pipe:
            while (ready := select.select([pipe], [], [], SECONDS)[0]) and (line := pipe.readline()):
                outcomes.append(Outcome(*json.loads(line)))
        os.kill(child, signal.SIGKILL)
        ending = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        if len(outcomes) < len(numbers):
            number = numbers[len(outcomes)]
            pair = PAIRS[number % len(PAIRS)]
            kind = "crash" if ready and ending != -signal.SIGPROF else "hang"
            outcomes.append(Outcome(pair.name, damage_of(pair, number, seed)[0], kind, f"ended by {-ending}"))
    return outcomes


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=2012)
    parser.add_argument("--only", type=int, nargs="+", help="numbers of mutations")
    parser.add_argument("--report", type=Path)
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    preparation.run = preparation_verify.run = serial
    preparation_workers._images = multiprocessing.Value("q", 0)
    with tempfile.TemporaryDirectory(prefix="damaged-") as name:
        root = Path(name).resolve()
        os.chdir(root)
        build(root)
        expected = expected_of(root)
        start = time.perf_counter()
        numbers = given.only or list(range(given.count))
        outcomes = outcomes_of(root, numbers, given.seed, expected)
    report(list(zip(numbers, outcomes, strict=True)), given, time.perf_counter() - start)
    return int(any(outcome.kind in FAULTS for outcome in outcomes))


def expected_of(root: Path) -> dict[str, str]:
    """What each reader gives for the whole file, by pair; also warms the code up."""
    net = load_checkpoint(root / "net" / "net.pt", "cpu")
    train = open_dataset(root / "tree", "train").with_statistics(net.statistics)
    scratch, digests = root / SCRATCH, {}
    scratch.mkdir()
    FEATURES["name"] = features.features_file(net, train, scratch, EvaluationSettings(batch_size=6)).name
    for pair in PAIRS:
        shutil.rmtree(scratch, ignore_errors=True)
        shutil.copytree(root / pair.family, scratch)
        read = pair.read(scratch, scratch / pair.file)
        if pair.read is read_unfinished:
            WHOLE_SET["files"] = read
        digests[pair.name] = digest(read)
    return digests


def report(outcomes: list[tuple[int, Outcome]], given: argparse.Namespace, seconds: float) -> None:
    """Counts by kind, and every fault; ``--report`` keeps them all."""
    counts = Counter(outcome.kind for _, outcome in outcomes)
    print(f"{len(outcomes)} damages, {len(PAIRS)} pairs of file and reader, seed {given.seed}, {seconds:.0f} s")
    print(", ".join(f"{kind} {counts[kind]}" for kind in KINDS))
    for number, outcome in outcomes:
        if outcome.kind in FAULTS or given.only:
            print(f"{number}: {outcome.pair}: {outcome.damage}: {outcome.kind}: {outcome.said}")
    if given.report:
        given.report.write_text(json.dumps([[number, *outcome] for number, outcome in outcomes], indent=0))


if __name__ == "__main__":
    sys.exit(main())
