"""Checkpoints: one file holds the whole net and all a run needs to go on, or an evaluation to start.

The file is torch's zip format, read with ``weights_only``: no code in it is ever run. Its keys are those of the whole
net, so every layout loads every other's. A safetensors file of ``launch/export.py`` is read as well, for evaluation.
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
SAMPLE = Path(__file__).parent / "sample" / "net.safetensors"  # a small net, see the README beside it
FORM = {  # of what it holds; a run goes on only from one with all of it
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
MEANS = {"images", "loss", "wrong"}  # sums over an epoch so far
ADDED = {  # by later versions: a run goes on without them
    "epochs_since_best?": is_count,
    "patience_best?": is_number,
    "validation_pending?": bool,
    "epoch_means?": lambda means: (
        isinstance(means, dict) and means.keys() <= MEANS and all(map(is_sum, means.values()))
    ),
    "streams?": is_count,
}
MESSAGE = 500  # characters of what is wrong, which may quote a name without end
HINTS = typing.get_type_hints(Recipe)


class Broken(InputError):
    """A checkpoint file that is cut short or altered, or holds a value that is not finite."""


def save(path: Path, contents: dict[str, Any]) -> None:
    """Write ``contents`` so that ``path`` always holds a whole file."""
    with atomic_write(path) as partial, partial.open("wb") as file:
        torch.save({"format": FORMAT, **contents}, file)


def load(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The contents of a checkpoint, its tensors mapped from the file; the text ``sample`` is the one in this package.

    Raises InputError, naming the file, for one that is missing, damaged, of another project or of a newer format.
    """
    path = SAMPLE if path == "sample" else Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such checkpoint file")
    try:
        saved = safetensors_file.read(path) if safetensors_file.recognizes(path) else read_zip(path)
    except InputError:
        raise
    except Exception as error:
        raise Broken(f"{path}: not a whole checkpoint ({type(error).__name__})") from error
    if not isinstance(saved, dict) or not is_count(saved.get("format")):
        raise InputError(f"{path}: not a checkpoint of this project")
    if saved["format"] > FORMAT:
        raise InputError(
            f"{path}: format {saved['format']} is newer than {FORMAT}, the newest known here; update alexnet2012"
        )
    try:
        validate(saved)
    except (ValueError, KeyError, TypeError, RuntimeError, ArithmeticError) as error:
        raise Broken(f"{path}: {str(error)[:MESSAGE]}") from error
    return saved


def read_zip(path: Path) -> Any:
    """What torch has saved in ``path``. Raises Broken where a checksum differs, or what zipfile and torch raise."""
    with zipfile.ZipFile(path) as archive:
        refuse_packed(archive, path.stat().st_size)
        damaged = archive.testzip()  # every record carries a CRC-32
    if damaged is not None:
        raise Broken(f"{path}: damaged (the checksum of {damaged} differs)")
    with warnings.catch_warnings(action="ignore"):  # of torch, about tensors that are refused later
        return torch.load(path, map_location="cpu", weights_only=True, mmap=True)


def validate(saved: dict[str, Any]) -> None:
    """Check a checkpoint's contents, each value of a tensor among them, before any of it is used.

    Raises ValueError, or what else building its net raises, for contents that no run writes; InputError for a recipe of
    a newer version.
    """
    require(saved, FORM | ADDED)
    recipe, classes = recipe_in(saved), saved["classes"]
    if len(saved["class_names"]) != classes or classes < 2:
        raise ValueError(f"{len(saved['class_names'])} names of {classes} classes")
    shapes = parameter_shapes(recipe, classes)
    if different := sorted(shapes.keys() ^ saved["weights"].keys(), key=str):
        raise ValueError(f"weights: {different[0]} is {'missing' if different[0] in shapes else 'of another net'}")
    for name, shape in shapes.items():
        refuse_tensor(f"weights of {name}", saved["weights"][name], shape)
    if "velocities" in saved:  # written before every optimizer's state could be saved
        saved["optimizer"] = {"momentum_buffer" if recipe.optimizer == "sgd" else "velocity": saved.pop("velocities")}
    refuse_state(saved.get("optimizer", {}), shapes, recipe.towers)
    side = statistics_in(saved).mean.shape[0]
    if recipe.mean_subtracted and side != recipe.image_size:
        raise ValueError(f"a mean image of side {side}, for images of {recipe.image_size}")


def refuse_state(state: dict[str, Any], shapes: Mapping[str, tuple[int, ...]], towers: int) -> None:
    """Check an optimizer's state, such as velocities: by its kind and the name of the parameter.

    A tensor of the parameter's shape is the parameter's own. The rest, such as a count of steps, must be equal in all
    towers: another layout could not resume from it. Raises ValueError, naming it, for anything else.
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
    """Check the state of a parameter of ``shape``; returns what of it must be equal in all towers.

    Raises ValueError for what is neither a number nor a tensor.
    """
    if isinstance(value, Tensor):
        own = tuple(value.shape) == shape
        refuse_tensor(name, value, tuple(value.shape), torch.float32 if own else value.dtype)
        return None if own else value.tolist()
    if not (value is None or isinstance(value, bool | int | float)):
        raise ValueError(f"{name}: a {type(value).__name__}, neither a number nor a tensor")
    return value


def refuse_tensor(name: str, tensor: Any, shape: tuple[int, ...], dtype: torch.dtype = torch.float32) -> None:
    """Raises ValueError for anything but a dense tensor of ``shape`` in main memory, all values finite."""
    if not isinstance(tensor, Tensor) or (tensor.layout, tensor.device.type) != (torch.strided, "cpu"):
        raise ValueError(f"the {name} are not a dense tensor")
    if (tensor.dtype, tuple(tensor.shape)) != (dtype, shape):
        raise ValueError(f"the {name} are {tensor.dtype} of shape {tuple(tensor.shape)}, not {dtype} of {shape}")
    if tensor.untyped_storage().nbytes() < tensor.nbytes:
        raise ValueError(f"the {name} repeat their values")
    if not tensor.sum().isfinite():
        raise ValueError(f"the {name} are not finite")


def refuse_incomplete(saved: dict[str, Any], path: Path) -> None:
    """Raises InputError for a checkpoint that no run can go on from: an imported one, or of other random streams."""
    if missing := [name for name in (key.removesuffix("?") for key in FORM) if name not in saved]:
        raise InputError(f"{path}: holds no {', '.join(missing)}, so no run can go on from it; give another --out")
    refuse_other_streams(path, saved.get("streams", 1))


def describe_data(classes: list[str], statistics: Statistics) -> dict[str, Any]:
    """What a checkpoint keeps of its data set: enough to evaluate without it."""
    arrays = {name: torch.as_tensor(value) for name, value in vars(statistics).items()}
    return {"class_names": list(classes), "statistics": arrays}


def statistics_in(saved: dict[str, Any]) -> Statistics:
    """The training set's statistics that a checkpoint carries. Raises ValueError for what no images have."""
    tensors = saved["statistics"]
    require(tensors, dict.fromkeys(Statistics.__dataclass_fields__, Tensor))
    return Statistics.of({name: tensor.numpy() for name, tensor in tensors.items()})


def recipe_in(saved: dict[str, Any]) -> Recipe:
    """The recipe that a checkpoint carries.

    Raises InputError for fields this version does not know, ValueError for a value that its field cannot have.
    """
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


def is_sum(value: Any) -> bool:
    """A finite number, at least 0."""
    return is_number(value) and 0 <= value < math.inf


def of_type(value: Any, hint: Any) -> bool:
    """Whether ``value`` is of a type such as a recipe's fields have: float is finite, and may be a whole number."""
    if isinstance(hint, types.UnionType):
        return any(of_type(value, one) for one in typing.get_args(hint))
    if typing.get_origin(hint) is tuple:
        return isinstance(value, tuple) and all(of_type(item, typing.get_args(hint)[0]) for item in value)
    if hint is float:
        return type(value) in (int, float) and math.isfinite(value)
    return type(value) is hint
