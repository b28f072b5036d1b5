"""A run's directory: its settings, state, metrics and checkpoints."""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import fcntl
import json
import os
import platform
import re
import sys
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any, TextIO, get_args, get_origin, get_type_hints

import yaml

from alexnet2012.core import messages
from alexnet2012.core.atomic_files import remove_partials, write_text
from alexnet2012.core.errors import InputError
from alexnet2012.core.guarded_files import (
    Damaged,
    is_count,
    is_number,
    is_utf8,
    open_lock,
    read_bytes,
    read_json,
    require,
    shown,
)
from alexnet2012.core.random_streams import STREAMS, refuse_other_streams
from alexnet2012.evaluation.checkpoint import of_type
from alexnet2012.network.reference import NETS, recorded_fields
from alexnet2012.recipe import Recipe, current_fields
from alexnet2012.training.optimizer import OPTIMIZERS
from alexnet2012.training.settings import Settings

PACKAGES = ("torch", "torchvision", "numpy", "pillow")
LOG_BYTES = 2**32  # at most, of metrics.jsonl: 200 a row
WORDS = {int: "a whole number", float: "a number", bool: "true or false", str: "text", tuple: "a list"}
CONFIG_BYTES = 2**20  # at most, of the file of --config
HINTS = get_type_hints(Settings)
SETTINGS: dict[str, tuple[Any, Any]] = {  # that a file may hold: the type of the value, and the choices
    **{one.name: (HINTS[one.name], one.metadata["how"].get("choices")) for one in dataclasses.fields(Settings)
       if one.metadata and one.name != "out"},
    **{f"recipe.{name}": (hint, None) for name, hint in get_type_hints(Recipe).items()},
    "recipe": (str, None),
    "recipe.net": (str, ("2012", *NETS)),
    "recipe.optimizer": (str, OPTIMIZERS),
}  # fmt: skip
BEFORE_CONFIG = re.compile(r"lock|state\.json|(config|state)\.json\.\w+\.partial")  # files written before config.json


class RunDirectory:
    """``config.json``, ``metrics.jsonl``, ``tensorboard/``, ``checkpoints/``, ``figures/`` under one path."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.config, self.metrics = path / "config.json", path / "metrics.jsonl"
        self.tensorboard, self.checkpoints, self.figures = path / "tensorboard", path / "checkpoints", path / "figures"
        self.last, self.best = self.checkpoints / "last.pt", self.checkpoints / "best.pt"
        self.statistics, self.state = path / "statistics.npz", path / "state.json"
        self.lock: TextIO | None = None

    def claim(self, identity: dict[str, Any]) -> None:
        """Make the directory, or check that it holds a run of this ``identity``: a run resumes only with the same.

        Raises InputError for one that cannot be written, or naming the setting in which its run differs.
        """
        if not is_utf8(str(self.path)):
            raise InputError(f"--out {self.path}: is no UTF-8, which TensorBoard needs; give another directory")
        try:
            if self.config.is_file():
                config = read_json(self.config, {"settings": dict}, "restore it, or give another --out")
                self.refuse_other_settings(config["settings"], identity)
                refuse_other_streams(self.config, config.get("streams") or 1)  # once a flag of that name, False
            elif self.holds_other_files():
                raise InputError(f"--out {self.path}: not empty and no run of this project; give another directory")
            for directory in (self.tensorboard, self.checkpoints, self.figures):
                directory.mkdir(parents=True, exist_ok=True)
            if not os.access(self.path, os.W_OK):
                raise PermissionError(13, "Permission denied")
        except OSError as error:
            raise InputError(f"--out {self.path}: cannot be used ({error.strerror}); give another directory") from error

    def holds_other_files(self) -> bool:
        """Whether there are files other than those of a run killed before it wrote ``config.json``."""
        files = (path.relative_to(self.path) for path in self.path.rglob("*") if not path.is_dir())
        return any(not BEFORE_CONFIG.fullmatch(str(file)) for file in files)

    def take(self) -> None:
        """Lock the directory until this process ends, however it ends, and remove half-written files of a killed run.

        Raises InputError naming the host and process that holds the lock.
        """
        lock = open_lock(self.path / "lock")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            lock.close()
            raise InputError(
                f"--out {self.path}: another run is writing there ({self.holder()}); wait or stop it"
            ) from error
        self.lock = lock
        for file in (self.config, self.state, self.metrics, self.statistics, self.checkpoints / "*.pt"):
            remove_partials(file.parent, file.name)
        self.lock.truncate(0)
        self.lock.write(f"process {os.getpid()} on {platform.node()}\n")
        self.lock.flush()
        os.fsync(self.lock.fileno())  # other nodes look for it

    def holder(self) -> str:
        """The process that holds or last held the lock; empty where no lock file is seen."""
        try:
            return (self.path / "lock").read_text().strip()
        except (OSError, ValueError):
            return ""

    def close(self) -> None:
        """Release the lock."""
        if self.lock:
            self.lock.close()

    def write_state(self, state: str, step: int, reason: str = "") -> None:
        """Write ``state.json``: running, preempted, done or failed, with the step; torchrun hides exit codes.

        Does nothing without the lock, and only warns of a full disk.
        """
        if self.lock is None:
            return
        try:
            write_text(self.state, json.dumps({"state": state, "step": step, "reason": reason}) + "\n")
        except OSError as error:
            messages.warn(f"{self.state}: not written ({error.strerror})")

    def read_state(self) -> tuple[str, int]:
        """State and step in ``state.json``; "" and 0 where it is missing or damaged."""
        try:
            said = read_json(self.state, {"state": str, "step": is_count})
            return said["state"], said["step"]
        except Damaged:
            return "", 0

    def refuse_other_settings(self, recorded: dict[str, Any], asked: dict[str, Any]) -> None:
        """Raises InputError, naming it, where a setting ``recorded`` by this version or an older one differs."""
        before, now = current_settings(recorded), current_settings(asked)
        for name in now | before:
            if before.get(name) != now.get(name):
                flag = name.removeprefix("recipe.").replace("_", "-")
                raise InputError(
                    f"--out {self.path}: holds a run with {flag} {before.get(name)}, not {now.get(name)}; "
                    "give another directory, or the settings of that run"
                )

    def record(self, identity: dict[str, Any], **how: Any) -> None:
        """Write ``config.json``: the settings, how they are executed, the command and the versions."""
        config = {
            "settings": identity,
            **how,
            "streams": STREAMS,
            "command": sys.argv,
            "versions": {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}},
        }
        write_text(self.config, json.dumps(config, indent=2) + "\n")

    def drop_rows_after(self, step: int, validated: bool = True) -> None:
        """Drop the metrics of steps after ``step``, and, with a warning, damaged lines.

        The validation at ``step`` is kept if the checkpoint there was ``validated``; else it will be repeated.
        """
        if not self.metrics.exists():
            return
        rows = [(place_of(line), line) for line in read_bytes(self.metrics, LOG_BYTES).splitlines()]
        if damaged := sum(place is None for place, _ in rows):
            messages.warn(f"{self.metrics}: {damaged} damaged rows are dropped")
        last = (step, validated)
        kept = [line.decode() + "\n" for place, line in rows if place is not None and place <= last]
        write_text(self.metrics, "".join(kept))


def split_settings(settings: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The fields of the recipe in a run's settings, by name, and the other settings."""
    fields = {name.removeprefix("recipe."): value for name, value in settings.items() if name.startswith("recipe.")}
    return fields, {name: value for name, value in settings.items() if not name.startswith("recipe.")}


def current_settings(identity: dict[str, Any]) -> dict[str, Any]:
    """A run's identity as any version recorded it, with all of today's recipe fields by today's names."""
    fields, others = split_settings(identity)
    defaults = json.loads(json.dumps(dataclasses.asdict(Recipe())))  # with lists for tuples, as in identities
    return others | {f"recipe.{name}": value for name, value in (defaults | recorded_fields(fields)).items()}


def read_config(path: Path) -> dict[str, Any]:
    """What the ``settings`` of a YAML or JSON file ask for, as a run's ``config.json`` has them: defaults of flags.

    Fields of the recipe come under ``recorded``. Raises InputError, naming file and key, for what no run has.
    """
    content, file = read_bytes(path, CONFIG_BYTES, "give --config a YAML or JSON file"), f"--config {path}"
    try:
        found = json.loads(content) if path.suffix == ".json" else yaml.safe_load(content)
        require(found, {"settings": dict})
        beside = [] if "command" in found else [name for name in found if name != "settings"]
    except (ValueError, RecursionError, yaml.YAMLError) as error:
        raise InputError(f"{file}: cannot be read ({' '.join(str(error).split())})") from error
    if beside:
        raise InputError(f"{file}: {shown(beside[0])} stands beside settings, where nothing reads it; put it there")
    fields, others = split_settings({str(name): value for name, value in found["settings"].items()})
    of_today = recorded_fields if "command" in found else current_fields  # a run's own, or one written by hand
    fields = {name: checked(file, f"recipe.{name}", value) for name, value in of_today(fields).items()}
    defaults = {name: checked(file, name, value) for name, value in others.items()}
    if "net" in fields:
        defaults["net"] = fields["net"]
    if fields.get("net", "2012") != "2012":
        defaults.pop("recipe", None)  # its name is the net's
    return defaults | {"recorded": fields}


def checked(file: str, name: str, value: Any) -> Any:
    """The value of a setting as its field has it. Raises InputError for another type and for a name that no run has."""
    hint, choices = SETTINGS.get(name, (None, None))
    if hint is None:
        near = [f"recipe.{name}"] if f"recipe.{name}" in SETTINGS else difflib.get_close_matches(name, SETTINGS, 1)
        raise InputError(f"{file}: settings has no {shown(name)}" + "".join(f"; did you mean {one}?" for one in near))
    value = tuple(value) if isinstance(value, list) else value
    if isinstance(value, str) and float in (hint, *get_args(hint)):
        with contextlib.suppress(ValueError):
            value = float(value)  # YAML reads 1e-3 as text
    if not of_type(value, hint) or (choices and value not in choices):
        kind = next(
            kind for kind in (tuple, bool, int, float, str) if kind in (hint, get_origin(hint), *get_args(hint))
        )
        form = f"one of {', '.join(choices)}" if choices else WORDS[kind]
        raise InputError(f"{file}: {name} is {shown(value)}, must be {form}")
    return value


def place_of(line: bytes) -> tuple[int, bool] | None:
    """The step of a metrics row, and whether it is an epoch's, which follows the step's own; None for no row."""
    try:
        row = read_row(line)
    except ValueError:
        return None
    return int(row["step"]), "loss" not in row


def read_row(line: bytes) -> dict[str, float]:
    """A row of ``metrics.jsonl``. Raises ValueError for a line cut short by a kill, or damaged."""
    try:
        row = json.loads(line.decode())
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    require(row, {"step": is_count, "epoch?": lambda value: is_measure(value) and value >= 1})
    for name, value in row.items():
        require(value, is_measure, name)
    if row.get("images_per_second", 1) <= 0:
        raise ValueError(f"images_per_second is {row['images_per_second']}")
    return row


def is_measure(value: Any) -> bool:
    """A finite number that can be drawn."""
    return is_number(value) and abs(value) < 1e100
