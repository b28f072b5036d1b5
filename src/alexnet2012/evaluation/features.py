"""Features of a trained net: fc7 as a descriptor of images (paper §6.1), and conv1's kernels (paper figure 3).

fc7 of a data set is kept in a file that is searched in parts, with the memory of one batch.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch
from numpy.lib.format import write_array_header_1_0
from numpy.typing import NDArray
from torch import Tensor

from alexnet2012.core.atomic_files import atomic_write
from alexnet2012.core.guarded_files import Field, is_file, map_npy, open_file
from alexnet2012.data import Dataset
from alexnet2012.distributed.layout import Layout
from alexnet2012.evaluation.crops import crops_of
from alexnet2012.evaluation.evaluate import EvaluationSettings, evaluating, replica_images
from alexnet2012.evaluation.predictions import fingerprint
from alexnet2012.network import AlexNet

ROWS = 1024  # rows compared at a time: 16 MB
FEATURES = Field("f", ("images", "values"))


def fc7(net: AlexNet, images: Tensor, mean: Tensor) -> Tensor:
    """fc7 of both towers, (n, 4096), of the centre crop of uint8 ``images`` (n, 256, 256, 3).

    For a reference net, the input of its last layer.
    """
    (centre,) = crops_of(images, mean, net.recipe, 1)
    return net(centre, return_features=True)[1][net.layers[-2]].flatten(1)


def features_file(
    net: AlexNet,
    dataset: Dataset,
    directory: Path,
    settings: EvaluationSettings,
    progress: Callable[[int], object] = lambda images: None,
) -> Path:
    """The npy file in ``directory`` with fc7 (images, 4096) of all ``dataset``, extracted unless it exists.

    Its name holds a digest of net and images, and one of its own bytes: a damaged file is replaced. ``net`` must hold
    all its towers. ``progress`` is called with the number of images just done. Raises InputError naming a file that is
    not an image.
    """
    name = f"fc7-{digest(net, dataset)}"
    for path in directory.glob(f"{name}-*.npy"):
        if is_file(path) and path.stem == f"{name}-{checksum(path)}":
            return path
        path.unlink()
    path, layout = directory / f"{name}.npy", Layout(devices=(net.held[0].device,))
    mean = dataset.statistics.mean_on(layout.devices[0])
    with atomic_write(path) as partial, partial.open("wb") as file:
        for images in replica_images(layout, dataset, net.recipe, settings):
            with evaluating(net):
                values = fc7(net, images, mean).float().cpu().numpy()
            if not file.tell():
                shape = (len(dataset), values.shape[1])
                write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": shape})
            file.write(values.tobytes())
            progress(len(images))
    return path.rename(path.with_stem(f"{name}-{checksum(path)}"))


def checksum(path: Path) -> str:
    with open_file(path) as file:
        return hashlib.file_digest(file, "blake2b").hexdigest()[:8]


def digest(net: AlexNet, dataset: Dataset) -> str:
    """SHA-256 of the weights up to fc7, the recipe, the mean image and the images."""
    state = hashlib.sha256(fingerprint(dataset).encode())
    for name, weight in net.named_parameters():
        if name.split(".")[-2] != net.layers[-1]:
            state.update(weight.detach().cpu().numpy().tobytes())
    state.update(repr(net.recipe).encode() + dataset.statistics.mean.tobytes())
    return state.hexdigest()[:16]


def nearest(queries: Tensor, features: Path, count: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Distances and indices, both (queries, count), of the rows of ``features`` nearest to ``queries`` (n, 4096).

    The file is mapped part by part, so that memory does not grow with its length.
    """
    rows = len(map_npy(features, FEATURES))
    best = torch.full((len(queries), count), torch.inf), torch.full((len(queries), count), -1)
    for first in range(0, rows, ROWS):
        part = torch.from_numpy(np.array(map_npy(features, FEATURES)[first : first + ROWS]))
        distances = torch.cdist(queries, part, compute_mode="donot_use_mm_for_euclid_dist")
        of_part = torch.arange(first, first + len(part)).expand_as(distances)
        joined = [torch.cat(pair, 1) for pair in zip(best, (distances, of_part), strict=True)]
        order = joined[0].argsort(dim=1, stable=True)[:, :count]
        best = joined[0].gather(1, order), joined[1].gather(1, order)
    return best[0].numpy(), best[1].numpy()


def kernels_by_tower(weights: Mapping[str, Tensor]) -> list[Tensor]:
    """conv1's kernels (n, 3, 11, 11) of each tower, from the whole net's weights by name; grey ones are repeated."""
    names = sorted(name for name in weights if name.endswith("conv1.weight"))
    return [weights[name].detach().float().cpu().expand(-1, 3, -1, -1) for name in names]


def scaled_together(towers: list[Tensor]) -> list[Tensor]:
    """Kernels as pixels in 0..1 around mid-grey, all divided by the same largest weight."""
    largest = max(kernels.abs().max() for kernels in towers).clamp_min(1e-12)
    return [0.5 + kernels / (2 * largest) for kernels in towers]


def sheet(kernels: Tensor) -> Tensor:
    """Kernels in rows of equal length, separated by a white pixel: (3, height, width) in 0..1."""
    count, size = len(kernels), kernels.shape[-1]
    across = columns(count)
    framed = torch.nn.functional.pad(kernels, (0, 1, 0, 1), value=1.0)
    rows = framed.unflatten(0, (count // across, across)).permute(2, 0, 3, 1, 4)
    return rows.reshape(3, count // across * (size + 1), across * (size + 1))[:, :-1, :-1]


def kernel_sheet(weights: Mapping[str, Tensor]) -> Tensor:
    """Tower 0's kernels above tower 1's, (3, height, width) in 0..1, enlarged three times."""
    towers = [sheet(kernels) for kernels in scaled_together(kernels_by_tower(weights))]
    framed = [torch.nn.functional.pad(pixels, (0, 0, 0, 3), value=1.0) for pixels in towers]
    return torch.cat(framed, 1)[:, :-3].repeat_interleave(3, 1).repeat_interleave(3, 2)


def columns(kernels: int) -> int:
    """The number of kernels in a row such that rows are full, at most 16 where possible: 16 for the paper's 48."""
    return next((n for n in range(16, 1, -1) if kernels % n == 0), kernels)


def colour_share(kernels: Tensor) -> float:
    """The fraction of the squared weights of kernels (n, 3, h, w) that lies off the grey axis, 0 to 1.

    0 if red, green and blue weights are equal, 2/3 for random weights, 1 if they sum to zero. It measures the
    specialization of the towers, colour-agnostic and colour-specific, in paper figure 3.
    """
    off_grey = kernels - kernels.mean(1, keepdim=True)
    return float(off_grey.square().sum() / kernels.square().sum().clamp_min(1e-30))
