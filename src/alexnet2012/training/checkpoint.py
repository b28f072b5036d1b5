"""Checkpoints: one file holds the whole net and all a run needs to go on, or an evaluation to start.

The file is torch's zip format, read with ``weights_only``: no code in it is ever run. Its keys are those of the whole
net, so every layout loads every other's.
"""

from __future__ import annotations

import dataclasses
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from alexnet2012.core.atomic_files import atomic_write
from alexnet2012.core.random_streams import refuse_other_streams
from alexnet2012.data import Statistics
from alexnet2012.distributed import Layout, collect
from alexnet2012.errors import InputError
from alexnet2012.network import AlexNet
from alexnet2012.recipe import Recipe, fields_of_today
from alexnet2012.training.optimizer import PaperSGD

FORMAT = 1
ALWAYS = {"format": int, "weights": dict, "recipe": dict}  # what every checkpoint holds
TO_GO_ON = {"step": int, "classes": int, "velocities": dict, "schedule": dict, "images": int, "best_top1_error": float}


class Broken(InputError):
    """A checkpoint file that is cut short or altered, or holds a value that is not finite."""


def gather_net(net: AlexNet, optimizer: PaperSGD, layout: Layout) -> dict[str, dict[str, Tensor]]:
    """``weights`` and ``velocities`` of both towers by name, whole on rank 0, on the CPU."""
    shapes = whole_shapes(net) if layout.split else {}
    weights: dict[str, Tensor] = dict(net.named_parameters())
    velocities = {name: optimizer.velocity(weight) for name, weight in weights.items()}
    return {
        "weights": collect(layout, weights, shapes),
        "velocities": collect(layout, velocities, shapes),
    }


def whole_shapes(net: AlexNet) -> dict[str, tuple[int, ...]]:
    """Name and shape of every parameter of the net's tower 1."""
    shapes = {}
    for layer in net.recipe.layers:
        shape = net.weight_shape(layer, 1)
        shapes[f"towers.1.{layer}.weight"], shapes[f"towers.1.{layer}.bias"] = shape, shape[:1]
    return shapes


def restore_net(net: AlexNet, optimizer: PaperSGD, saved: dict[str, Any]) -> None:
    """Take the towers held here, and their velocities, from a checkpoint."""
    with torch.no_grad():
        for name, weight in net.named_parameters():
            weight.copy_(saved["weights"][name])
            optimizer.velocity(weight).copy_(saved["velocities"][name])


def save(path: Path, contents: dict[str, Any]) -> None:
    """Write ``contents`` so that ``path`` always holds a whole file."""
    with atomic_write(path) as partial, partial.open("wb") as file:
        torch.save({"format": FORMAT, **contents}, file)


def load(path: Path | str) -> dict[str, Any]:
    """The contents of a checkpoint, its tensors mapped from the file.

    Raises InputError, naming the file, for one that is missing, damaged, of another project or of a newer format.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such checkpoint file")
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()  # every record carries a CRC-32
        saved = torch.load(path, map_location="cpu", weights_only=True, mmap=True) if damaged is None else None
    except Exception as error:
        raise Broken(f"{path}: not a whole checkpoint ({type(error).__name__})") from error
    if damaged is not None:
        raise Broken(f"{path}: damaged (the checksum of {damaged} differs)")
    if not isinstance(saved, dict) or any(not isinstance(saved.get(name), kind) for name, kind in ALWAYS.items()):
        raise InputError(f"{path}: not a checkpoint of this project")
    if saved["format"] > FORMAT:
        raise InputError(
            f"{path}: format {saved['format']} is newer than {FORMAT}, the newest known here; update alexnet2012"
        )
    if name := not_finite(saved):
        raise Broken(f"{path}: the {name} are not finite")
    return saved


def not_finite(saved: dict[str, Any]) -> str:
    """What has a value that is not finite, such as ``velocities of towers.0.conv1.weight``; "" if nothing has."""
    for kind in ("weights", "velocities"):
        for name, value in saved.get(kind, {}).items():
            if not value.sum().isfinite():
                return f"{kind} of {name}"
    return ""


def refuse_incomplete(saved: dict[str, Any], path: Path) -> None:
    """Raises InputError for a checkpoint that no run can go on from: an imported one, or of other random streams."""
    if missing := [name for name, kind in TO_GO_ON.items() if not isinstance(saved.get(name), kind)]:
        raise InputError(f"{path}: holds no {', '.join(missing)}, so no run can go on from it; give another --out")
    refuse_other_streams(path, saved.get("streams", 1))


def describe_data(classes: list[str], statistics: Statistics) -> dict[str, Any]:
    """What a checkpoint keeps of its data set: enough to evaluate without it."""
    arrays = {name: torch.as_tensor(value) for name, value in vars(statistics).items()}
    return {"class_names": list(classes), "statistics": arrays}


def statistics_in(saved: dict[str, Any]) -> Statistics:
    """The training set's statistics that a checkpoint carries."""
    arrays = {name: value.numpy() for name, value in saved["statistics"].items()}
    return Statistics(**{**arrays, "images": int(arrays["images"])})


def recipe_in(saved: dict[str, Any]) -> Recipe:
    """The recipe that a checkpoint carries. Raises InputError for fields this version does not know."""
    fields = fields_of_today(saved["recipe"])
    if unknown := fields.keys() - {field.name for field in dataclasses.fields(Recipe)}:
        raise InputError(f"checkpoint: unknown recipe fields {', '.join(sorted(unknown))}; update alexnet2012")
    return Recipe(**fields)
