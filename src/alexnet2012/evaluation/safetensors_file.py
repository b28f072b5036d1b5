"""Nets in safetensors files: the tensors are the weights, the metadata is everything else needed to predict.

Other programs can load the tensors as they are, and this project needs no other file.
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
    """The metadata of a file. The mean image is float32, with one channel if all three are equal."""
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
    """Our layer names of ``net`` -> those of its publisher; empty if the net was not published with weights."""
    return NETS[net].published if net in NETS else {}


def renamed(weights: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    """``weights`` with the layers in their names, such as ``conv1`` in ``conv1.weight``, replaced as in ``names``."""
    parts = {name: name.rpartition(".") for name in weights}
    return {f"{names.get(layer, layer)}{dot}{kind}": weights[name] for name, (layer, dot, kind) in parts.items()}


def recognizes(path: Path) -> bool:
    """True if a file begins like a safetensors file: eight bytes of length, then JSON."""
    with path.open("rb") as file:
        return file.read(9)[8:] == b"{"


def read(path: Path) -> dict[str, Any]:
    """The unchecked contents of a file, in the form of a checkpoint; empty for a file of another project.

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
    """Turn JSON's lists into the tuples they were written from."""
    return tuple(map(tuples, value)) if isinstance(value, list) else value
