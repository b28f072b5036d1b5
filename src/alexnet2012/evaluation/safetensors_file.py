"""A net as a safetensors file: its weights are the tensors, all else that it needs to answer is the metadata.

So the file's tensors load into other programs' nets as they are, and this project's reader asks for nothing beside it.
"""

from __future__ import annotations

import base64
import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open

from alexnet2012.core.errors import InputError
from alexnet2012.data import Statistics
from alexnet2012.network.reference import NETS
from alexnet2012.recipe import Recipe

PROJECT = "alexnet2012"


def describe(recipe: Recipe, class_names: list[str], statistics: Statistics) -> dict[str, str]:
    """The metadata of a file of weights. The mean image is float32, of one channel where all three are equal."""
    mean = statistics.mean.astype("<f4")
    mean = mean[..., :1] if (mean == mean[..., :1]).all() else mean
    rest = {name: np.asarray(value).tolist() for name, value in vars(statistics).items() if name != "mean"}
    return {
        "format": "pt",
        "project": PROJECT,
        "checkpoint_format": "1",
        "recipe": json.dumps(dataclasses.asdict(recipe)),
        "class_names": json.dumps(class_names),
        "statistics": json.dumps(rest),
        "mean_shape": json.dumps(mean.shape),
        "mean": base64.b64encode(mean.tobytes()).decode(),
    }


def published_names(net: str) -> Mapping[str, str]:
    """Our names of the layers of ``net`` -> the names that its publisher gave them; empty where they have none."""
    return NETS[net].published if net in NETS else {}


def renamed(weights: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    """``weights`` with the layer in each name, ``conv1`` of ``conv1.weight``, replaced by that in ``names``."""
    parts = {name: name.rpartition(".") for name in weights}
    return {f"{names.get(layer, layer)}{dot}{kind}": weights[name] for name, (layer, dot, kind) in parts.items()}


def recognizes(path: Path) -> bool:
    """Whether a file begins as these do: eight bytes of length, then JSON."""
    with path.open("rb") as file:
        return file.read(9)[8:] == b"{"


def read(path: Path) -> dict[str, Any]:
    """What the file holds, as the contents of a checkpoint, unchecked; nothing for a file of another project.

    Raises InputError for grouped weights, and whatever safetensors and JSON raise for a damaged file.
    """
    with safe_open(path, "pt") as file:
        about = file.metadata() or {}
        if about.get("project") != PROJECT:
            return {}
        if "groups" in about:
            raise InputError(f"{path}: holds grouped weights; export.py --weights-of takes them into a checkpoint")
        weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
    recipe = {name: tuples(value) for name, value in json.loads(about["recipe"]).items()}
    class_names = json.loads(about["class_names"])
    mean = np.frombuffer(base64.b64decode(about["mean"], validate=True), "<f4").reshape(json.loads(about["mean_shape"]))
    mean = np.repeat(mean, 3, -1) if mean.shape[2:] == (1,) else mean
    statistics = {name: np.array(value) for name, value in json.loads(about["statistics"]).items()}
    theirs = {their: our for our, their in published_names(recipe.get("net", "")).items()}
    return {
        "format": int(about["checkpoint_format"]),
        "weights": renamed(weights, theirs),
        "recipe": recipe,
        "classes": len(class_names),
        "class_names": class_names,
        "statistics": {name: torch.as_tensor(value) for name, value in {**statistics, "mean": mean.copy()}.items()},
    }


def tuples(value: Any) -> Any:
    """JSON's lists as the tuples that they were."""
    return tuple(map(tuples, value)) if isinstance(value, list) else value
