"""Which nets a study trains, and what is known of each: its run directory says."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alexnet2012.core.errors import InputError
from alexnet2012.core.guarded_files import Damaged, is_count, is_file, is_number, read_json
from alexnet2012.evaluation import ErrorRates
from alexnet2012.evaluation.predictions import Predictions
from alexnet2012.recipe import variant_fields
from alexnet2012.reporting.ablation import ALL, BASE
from alexnet2012.reporting.ablation.differences import Measured
from alexnet2012.reporting.figures.curves import read_curves
from alexnet2012.training import Settings
from alexnet2012.training.run_directory import RunDirectory, settings_of_today

CROPS = 10  # P §4.1
NAME = re.compile(rf"({'|'.join(ALL)})-seed(0|[1-9][0-9]*)")  # of a run's directory


class Run:
    """One net of a study in ``directory``, whose name tells variant and seed: ``no-lrn-seed0``."""

    def __init__(self, directory: Path) -> None:
        self.directory = RunDirectory(directory)
        self.variant, _, seed = directory.name.rpartition("-seed")
        self.seed = int(seed)
        self.log = directory.with_suffix(".log")
        self.errors = directory / "ten_crops.json"
        self.predictions = {CROPS: directory / "ten_crops.npz", 1: directory / "centre_crop.npz"}  # by crops

    @classmethod
    def of(cls, study: Path, variant: str, seed: int) -> Run:
        return cls(study / f"{variant}-seed{seed}")

    @property
    def path(self) -> Path:
        return self.directory.path

    @property
    def name(self) -> str:
        return f"{self.variant}, seed {self.seed}"

    def config(self) -> dict[str, Any]:
        """Its ``config.json``, fields that its version did not have at their defaults; empty before it began."""
        found = wrote(self.directory.config, CONFIG)
        return found and {**found, "settings": settings_of_today(found["settings"])}

    @property
    def max_steps(self) -> int | None:
        return self.config().get("max_steps")

    @property
    def step(self) -> int:
        """Steps it has been trained."""
        return wrote(self.directory.state, STATE).get("step", 0)

    def trained(self, max_steps: int | None) -> bool:
        """True at its last step, with this limit."""
        state = wrote(self.directory.state, STATE).get("state")
        return state == "done" and self.max_steps == max_steps

    def rates(self) -> ErrorRates | None:
        """Its ten-crop errors, once evaluated (with their loss, which the first version left out)."""
        found = wrote(self.errors, ERRORS)
        names = ErrorRates.__dataclass_fields__.keys()
        return ErrorRates(**{name: found[name] for name in names}) if names <= found.keys() else None

    @property
    def evaluated(self) -> bool:
        """True when its errors and predictions are there; the first version kept neither predictions nor loss."""
        return self.rates() is not None and all(path.is_file() for path in self.predictions.values())

    def seconds(self) -> float:
        """Time of all its training steps; validation and saving are not counted."""
        rows = [row for row in read_curves(self.directory.metrics).training if "images_per_second" in row]
        batch = self.config()["settings"]["recipe.batch_size"]
        before = [0, *(row["step"] for row in rows)]
        steps = [row["step"] - first for first, row in zip(before, rows, strict=False)]
        return sum(count * batch / row["images_per_second"] for count, row in zip(steps, rows, strict=True))


def is_percent(value: Any) -> bool:
    return is_number(value) and 0 <= value <= 100


CONFIG = {
    "settings": {"recipe.batch_size?": is_count},
    "max_steps?": lambda steps: steps is None or is_count(steps),
}
STATE = {"state": str, "step": is_count}
ERRORS = {"top1_error": is_percent, "top5_error": is_percent, "images": is_count, "loss?": is_number}


def wrote(path: Path, form: dict[str, Any]) -> dict[str, Any]:
    """A run's JSON file, of this ``form``; empty if there is none. Raises InputError, naming it, for a damaged one."""
    if not is_file(path):
        return {}
    try:
        return read_json(path, form)
    except Damaged as error:
        raise InputError(f"{path}: not as a run wrote it ({error.reason}); remove it to have it made again") from error


@dataclass(frozen=True)
class Planned:
    """A run and the settings it is asked to have."""

    run: Run
    settings: Settings
    flags: tuple[str, ...]  # that give train_imagenet.py these settings

    def refuse_other_settings(self) -> None:
        """Raises InputError, naming the setting, if the run's directory holds one of other settings or more steps."""
        if recorded := self.run.config():
            self.run.directory.refuse_other_settings(recorded["settings"], self.settings.identity())
        limit = self.settings.max_steps
        if limit is not None and self.run.step > limit:
            raise InputError(f"--max-steps {limit}: {self.run.path} is at step {self.run.step}; give another --out")

    @property
    def trained(self) -> bool:
        return self.run.trained(self.settings.max_steps)

    @property
    def finished(self) -> bool:
        return self.trained and self.run.evaluated


def all_runs(study: Path) -> list[Run]:
    """Those that were begun in a study's directory, in the order of the table."""
    runs = [Run(path) for path in study.glob("*-seed*") if NAME.fullmatch(path.name)]
    return sorted(runs, key=lambda run: (ALL.index(run.variant), run.seed))


def found_runs(study: Path) -> list[Run]:
    """The evaluated runs of a study's directory, in the order of the table.

    Raises InputError if there is none, or if two differ in more than their seeds and what their variants change.
    """
    runs = [run for run in all_runs(study) if run.evaluated]
    if not runs:
        raise InputError(f"--report {study}: holds no evaluated run; the study's own command trains and evaluates")
    for run in runs[1:]:
        refuse_unequal(runs[0], run)
    return runs


def measured(runs: Sequence[Run], crops: int) -> dict[str, dict[int, Measured]]:
    """The errors of each image, by variant and seed. Raises InputError for predictions of other images."""
    found: dict[str, dict[int, Measured]] = {}
    data = ""
    for run in runs:
        kept = Predictions.load(run.predictions[crops])
        if kept.data != (data := data or kept.data):
            raise InputError(
                f"{run.predictions[crops]}: of other images than {runs[0].predictions[crops]}; "
                "remove it, and the study's own command evaluates again"
            )
        found.setdefault(run.variant, {})[run.seed] = kept.measures()
    return found


def refuse_unequal(one: Run, other: Run) -> None:
    """Raises InputError, naming the setting, where two runs differ in what no variant of theirs changes."""
    if one.max_steps != other.max_steps:
        raise InputError(f"{other.path}: --max-steps is {other.max_steps}, in {one.path} {one.max_steps}; train alike")
    first, second = (run.config()["settings"] for run in (one, other))
    variants = {run.variant for run in (one, other)} - {BASE}
    fields = {field for variant in variants for field in variant_fields(variant, first["recipe.name"])}
    changed = {f"recipe.{field}" for field in fields} | {"seed"}
    for name in sorted((first.keys() | second.keys()) - changed):
        if first.get(name) != second.get(name):
            flag = name.removeprefix("recipe.").replace("_", "-")
            raise InputError(f"{other.path}: {flag} is {second.get(name)}, in {one.path} {first.get(name)}")
