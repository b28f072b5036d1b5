"""Checkpoints: one file holds the whole net and everything needed to resume a run or to evaluate.

The file is in torch's zip format and read with ``weights_only``, which runs no code from it. Its keys are those of the
whole net, so every layout loads the checkpoints of every other. For evaluation, safetensors files of
``launch/export.py`` are read too.
"""

from __future__ import annotations

import math
import os
import re
import types
import typing
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from alexnet2012.core.atomic_files import atomic_write
from alexnet2012.core.errors import InputError
from alexnet2012.core.guarded_files import is_count, is_number, refuse_packed, require, shown
from alexnet2012.core.random_streams import refuse_other_streams
from alexnet2012.data import Statistics
from alexnet2012.evaluation import safetensors_file
from alexnet2012.network.build import parameter_shapes
from alexnet2012.network.reference import recorded_fields
from alexnet2012.recipe import Recipe

FORMAT = 1
SAMPLE = Path(__file__).parent / "sample" / "net.safetensors"  # a small net, see the README there
FORM = {  # of the contents; a run resumes only from a checkpoint with all of them
    "weights": dict,
    "recipe": dict,
    "classes": is_count,
    "class_names": [str],
    "statistics": dict,
    "optimizer?": dict,
    "schedule?": lambda state: isinstance(state, dict) and all(map(is_number, state.values())),
    "step?": is_count,
    "images?": is_count,
    "best_top1_error?": is_number,  # or loss, where that is monitored
}
ADDED = {  # by later versions: a run resumes without them
    "epochs_since_best?": is_count,
    "patience_best?": is_number,
    "validation_pending?": bool,
    "epoch_means?": lambda means: (
        isinstance(means, dict)
        and means.keys() <= {"images", "loss", "wrong"}  # sums over an epoch so far
        and all(is_number(total) and 0 <= total < math.inf for total in means.values())
    ),
    "streams?": is_count,
}
MESSAGE = 500  # characters of an error message at most: it may quote a huge name
HINTS = typing.get_type_hints(Recipe)


class DamagedCheckpoint(InputError):
    """A checkpoint file that is truncated or altered, or holds a value that is not finite."""


def save(path: Path, contents: dict[str, Any]) -> None:
    """Write ``contents`` atomically."""
    with atomic_write(path) as partial, partial.open("wb") as file:
        torch.save({"format": FORMAT, **contents}, file)


def load(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The contents of a checkpoint, with tensors memory-mapped. ``path="sample"`` is the sample net of this package.

    Raises InputError, naming the file, if it is missing, damaged, of another project or of a newer format.
    """
    path = SAMPLE if path == "sample" else Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such checkpoint file")
    try:
        saved = safetensors_file.read(path) if safetensors_file.recognizes(path) else read_zip(path)
    except InputError:
        raise
    except Exception as error:
        raise DamagedCheckpoint(f"{path}: not a whole checkpoint ({type(error).__name__})") from error
    if not isinstance(saved, dict) or not is_count(saved.get("format")):
        raise InputError(f"{path}: not a checkpoint of this project")
    if saved["format"] > FORMAT:
        raise InputError(
            f"{path}: format {saved['format']} is newer than {FORMAT}, the newest known here; update alexnet2012"
        )
    try:
        validate(saved)
    except (ValueError, KeyError, TypeError, RuntimeError, ArithmeticError) as error:
        raise DamagedCheckpoint(f"{path}: {str(error)[:MESSAGE]}") from error
    return saved


def read_zip(path: Path) -> Any:
    """The object saved by torch. Raises DamagedCheckpoint for a wrong checksum, or what zipfile and torch raise."""
    with zipfile.ZipFile(path) as archive:
        refuse_packed(archive, path.stat().st_size)
        damaged = archive.testzip()  # every record carries a CRC-32
    if damaged is not None:
        raise DamagedCheckpoint(f"{path}: damaged (the checksum of {damaged} differs)")
    with warnings.catch_warnings(action="ignore"):  # torch warns of tensors that are refused below
        return torch.load(path, map_location="cpu", weights_only=True, mmap=True)


def validate(saved: dict[str, Any]) -> None:
    """Check the contents of a checkpoint, including every tensor value, before any of them is used.

    Raises ValueError, or whatever building its net raises, for contents that no run writes; InputError for a recipe of
    a newer version.
    """
    require(saved, FORM | ADDED)
    recipe, classes = recipe_in(saved), saved["classes"]
    if len(saved["class_names"]) != classes or classes < 2:
        raise ValueError(f"{len(saved['class_names'])} class names for {classes} classes")
    shapes = parameter_shapes(recipe, classes)
    if different := sorted(shapes.keys() ^ saved["weights"].keys(), key=str):
        raise ValueError(f"weights: {different[0]} is {'missing' if different[0] in shapes else 'of another net'}")
    for name, shape in shapes.items():
        refuse_tensor(f"weights of {name}", saved["weights"][name], shape)
    if "velocities" in saved:  # written by versions that saved no other optimizer state
        saved["optimizer"] = {"momentum_buffer" if recipe.optimizer == "sgd" else "velocity": saved.pop("velocities")}
    refuse_state(saved.get("optimizer", {}), shapes, recipe.towers)
    side = statistics_in(saved).mean.shape[0]
    if recipe.mean_subtracted and side != recipe.image_size:
        raise ValueError(f"a mean image of side {side}, for images of {recipe.image_size}")


def refuse_state(state: dict[str, Any], shapes: Mapping[str, tuple[int, ...]], towers: int) -> None:
    """Check an optimizer's state, such as velocities: kind of state -> parameter name -> value.

    A tensor of the parameter's shape belongs to the parameter. Anything else, such as a step count, must be equal in
    all towers, since another layout could not resume from it otherwise. Raises ValueError, naming the kind.
    """
    for kind, by_name in state.items():
        require(by_name, dict, f"optimizer[{kind!r}]")
        shared: dict[str, list[Any]] = {}
        for name, value in by_name.items():
            if name not in shapes:
                raise ValueError(f"{kind}: {name} is of another net")
            rest = refuse_value(f"{kind} of {name}", value, shapes[name])
            shared.setdefault(re.sub(r"^towers\.\d\.", "", name), []).append(rest)
        for parameter, values in shared.items():
            if len(values) != towers:
                raise ValueError(f"{kind}: {parameter} of one tower is missing")
            if any(value != values[0] for value in values):
                raise ValueError(f"{kind}: neither of the shape of {parameter} nor equal in both towers")


def refuse_value(name: str, value: Any, shape: tuple[int, ...]) -> Any:
    """Check a state of a parameter of ``shape``; returns its value if that must be equal in all towers, else None.

    Raises ValueError if it is neither a number nor a tensor.
    """
    if isinstance(value, Tensor):
        own = tuple(value.shape) == shape
        refuse_tensor(name, value, tuple(value.shape), torch.float32 if own else value.dtype)
        return None if own else value.tolist()
    if not (value is None or isinstance(value, bool | int | float)):
        raise ValueError(f"{name}: a {type(value).__name__}, neither a number nor a tensor")
    return value


def refuse_tensor(name: str, tensor: Any, shape: tuple[int, ...], dtype: torch.dtype = torch.float32) -> None:
    """Raises ValueError unless ``tensor`` is dense, on the CPU, of ``shape`` and ``dtype``, with finite values."""
    if not isinstance(tensor, Tensor) or (tensor.layout, tensor.device.type) != (torch.strided, "cpu"):
        raise ValueError(f"the {name} are not a dense tensor")
    if (tensor.dtype, tuple(tensor.shape)) != (dtype, shape):
        raise ValueError(f"the {name} are {tensor.dtype} of shape {tuple(tensor.shape)}, not {dtype} of {shape}")
    if tensor.untyped_storage().nbytes() < tensor.nbytes:
        raise ValueError(f"the {name} repeat their values")
    if not tensor.sum().isfinite():
        raise ValueError(f"the {name} are not finite")


def refuse_incomplete(saved: dict[str, Any], path: Path) -> None:
    """Raises InputError for a checkpoint that no run can resume from: imported, or with other random streams."""
    if missing := [name for name in (key.removesuffix("?") for key in FORM) if name not in saved]:
        raise InputError(f"{path}: holds no {', '.join(missing)}, so no run can resume from it; give another --out")
    refuse_other_streams(path, saved.get("streams", 1))


def describe_data(classes: list[str], statistics: Statistics) -> dict[str, Any]:
    """The entries of a checkpoint about its data set, which evaluation needs."""
    arrays = {name: torch.as_tensor(value) for name, value in vars(statistics).items()}
    return {"class_names": list(classes), "statistics": arrays}


def statistics_in(saved: dict[str, Any]) -> Statistics:
    """The statistics of the training set in a checkpoint. Raises ValueError for impossible ones."""
    tensors = saved["statistics"]
    require(tensors, dict.fromkeys(Statistics.__dataclass_fields__, Tensor))
    return Statistics.of({name: tensor.numpy() for name, tensor in tensors.items()})


def recipe_in(saved: dict[str, Any]) -> Recipe:
    """The recipe in a checkpoint. Raises InputError for unknown fields, ValueError for an impossible value."""
    fields = recorded_fields(saved["recipe"])
    if unknown := fields.keys() - HINTS.keys():
        raise InputError(
            f"checkpoint: unknown recipe fields {', '.join(sorted(map(str, unknown)))[:MESSAGE]}; update alexnet2012"
        )
    for name, value in fields.items():
        if not of_type(value, HINTS[name]):
            raise ValueError(f"recipe field {name} is {shown(value)}")
    try:
        return Recipe(**fields)
    except InputError as error:
        raise ValueError(str(error)) from error


def of_type(value: Any, hint: Any) -> bool:
    """True if ``value`` matches the type hint of a recipe's field. A float must be finite, and may be an int."""
    if isinstance(hint, types.UnionType):
        return any(of_type(value, one) for one in typing.get_args(hint))
    if typing.get_origin(hint) is tuple:
        return isinstance(value, tuple) and all(of_type(item, typing.get_args(hint)[0]) for item in value)
    if hint is float:
        return type(value) in (int, float) and math.isfinite(value)
    return type(value) is hint
