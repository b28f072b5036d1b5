"""A run's directory: what it was asked, what it measured, what it keeps."""

from __future__ import annotations

import json
import os
import platform
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

from alexnet2012.errors import InputError

PACKAGES = ("torch", "torchvision", "numpy", "pillow")


class RunDirectory:
    """``config.json``, ``metrics.jsonl``, ``tensorboard/``, ``checkpoints/``, ``figures/`` under one path."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.config, self.metrics = path / "config.json", path / "metrics.jsonl"
        self.tensorboard, self.checkpoints, self.figures = path / "tensorboard", path / "checkpoints", path / "figures"
        self.last, self.best = self.checkpoints / "last.pt", self.checkpoints / "best.pt"
        self.statistics = path / "statistics.npz"

    def claim(self, identity: dict[str, Any]) -> None:
        """Make the directory, or recognise it as this run's; ``identity`` is what a run resumes with only.

        Raises InputError for one that cannot be written or holds another run, naming the setting that differs.
        """
        try:
            if self.config.is_file():
                self.refuse_other_settings(json.loads(self.config.read_text())["settings"], identity)
            elif self.path.exists() and any(self.path.iterdir()):
                raise InputError(f"--out {self.path}: not empty and no run of this project; give another directory")
            for directory in (self.tensorboard, self.checkpoints, self.figures):
                directory.mkdir(parents=True, exist_ok=True)
            if not os.access(self.path, os.W_OK):
                raise PermissionError(13, "Permission denied")
        except (OSError, ValueError, KeyError) as error:
            reason = error.strerror if isinstance(error, OSError) else "config.json is not readable"
            raise InputError(f"--out {self.path}: cannot be used ({reason}); give another directory") from error

    def refuse_other_settings(self, recorded: dict[str, Any], asked: dict[str, Any]) -> None:
        for name in sorted(recorded.keys() | asked.keys()):
            if recorded.get(name) != asked.get(name):
                flag = name.removeprefix("recipe.").replace("_", "-")
                raise InputError(
                    f"--out {self.path}: holds a run with {flag} {recorded.get(name)}, not {asked.get(name)}; "
                    "give another directory, or the settings of that run"
                )

    def record(self, identity: dict[str, Any], **how: Any) -> None:
        """Write ``config.json``: the settings, how they are executed, the command and the versions."""
        config = {
            "settings": identity,
            **how,
            "command": sys.argv,
            "versions": {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}},
        }
        partial = self.config.with_suffix(".partial")
        partial.write_text(json.dumps(config, indent=2) + "\n")
        partial.replace(self.config)

    def drop_rows_after(self, step: int) -> None:
        """Drop the metrics of steps that will be trained again, and a row cut short by a kill."""
        if not self.metrics.exists():
            return
        kept = [line for line in self.metrics.read_text().splitlines(keepends=True) if step_of(line) <= step]
        partial = self.metrics.with_suffix(".partial")
        partial.write_text("".join(kept))
        partial.replace(self.metrics)


def step_of(line: str) -> float:
    """The step of a metrics row; infinite for a row cut short."""
    try:
        return json.loads(line)["step"]
    except ValueError:
        return float("inf")
