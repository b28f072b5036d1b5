"""The runs of a study, and their state as recorded in their run directories."""

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
from alexnet2012.training.run_directory import RunDirectory, current_settings

CROPS = 10  # paper §4.1
NAME = re.compile(rf"({'|'.join(ALL)})-seed(0|[1-9][0-9]*)")  # of a run's directory


class Run:
    """One net of a study. The name of its directory gives variant and seed: ``no-lrn-seed0``."""

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
        """Its ``config.json``, with defaults for fields that its version did not have; empty before it began."""
        found = recorded(self.directory.config, CONFIG)
        return found and {**found, "settings": current_settings(found["settings"])}

    @property
    def max_steps(self) -> int | None:
        return self.config().get("max_steps")

    @property
    def step(self) -> int:
        """Number of training steps done."""
        return recorded(self.directory.state, STATE).get("step", 0)

    def trained(self, max_steps: int | None) -> bool:
        """True if training is complete, under this limit."""
        state = recorded(self.directory.state, STATE).get("state")
        return state == "done" and self.max_steps == max_steps

    def rates(self) -> ErrorRates | None:
        """Its ten-crop errors; None before evaluation, or if evaluated by the first version, which recorded no loss."""
        found = recorded(self.errors, ERRORS)
        names = ErrorRates.__dataclass_fields__.keys()
        return ErrorRates(**{name: found[name] for name in names}) if names <= found.keys() else None

    @property
    def evaluated(self) -> bool:
        """True if its errors and predictions exist; the first version recorded neither predictions nor loss."""
        return self.rates() is not None and all(path.is_file() for path in self.predictions.values())

    def seconds(self) -> float:
        """Duration of all training steps, without validation and saving."""
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


def recorded(path: Path, form: dict[str, Any]) -> dict[str, Any]:
    """The contents of a run's JSON file, or {} if there is none. Raises InputError if it does not match ``form``."""
    if not is_file(path):
        return {}
    try:
        return read_json(path, form)
    except Damaged as error:
        raise InputError(f"{path}: not as a run wrote it ({error.reason}); remove it to have it made again") from error


@dataclass(frozen=True)
class Planned:
    """A run and the settings required of it."""

    run: Run
    settings: Settings
    flags: tuple[str, ...]  # of train_imagenet.py for these settings

    def refuse_other_settings(self) -> None:
        """Raises InputError, naming the setting, if the directory holds a run with other settings or more steps."""
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
    """All runs begun in a study's directory, in the order of the table."""
    runs = [Run(path) for path in study.glob("*-seed*") if NAME.fullmatch(path.name)]
    return sorted(runs, key=lambda run: (ALL.index(run.variant), run.seed))


def found_runs(study: Path) -> list[Run]:
    """The evaluated runs of a study's directory, in the order of the table.

    Raises InputError if there are none, or if two differ in more than seed and variant.
    """
    runs = [run for run in all_runs(study) if run.evaluated]
    if not runs:
        raise InputError(f"--report {study}: holds no evaluated run; the study's own command trains and evaluates")
    first, settings = runs[0], runs[0].config()["settings"]
    for run in runs[1:]:
        if run.max_steps != first.max_steps:
            raise InputError(f"{run.path}: --max-steps is {run.max_steps}, in {first.path} {first.max_steps}")
        own = run.config()["settings"]
        variants = {run.variant, first.variant} - {BASE}
        fields = {field for variant in variants for field in variant_fields(variant, settings["recipe.name"])}
        changed = {f"recipe.{field}" for field in fields} | {"seed"}
        for name in sorted((settings.keys() | own.keys()) - changed):
            if own.get(name) != settings.get(name):
                flag = name.removeprefix("recipe.").replace("_", "-")
                raise InputError(f"{run.path}: {flag} is {own.get(name)}, in {first.path} {settings.get(name)}")
    return runs


def measured(runs: Sequence[Run], crops: int) -> dict[str, dict[int, Measured]]:
    """The errors of each image, by variant and seed. Raises InputError if runs were evaluated on other images."""
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
