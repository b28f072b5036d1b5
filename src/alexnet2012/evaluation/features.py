"""fc7's values as a map of images (P §6.1): kept in a file, searched in parts, in the memory of one batch."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Callable
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

ROWS = 1024  # features compared at a time: 16 MB
FEATURES = Field("f", ("images", "values"))


def fc7(net: AlexNet, images: Tensor, mean: Tensor) -> Tensor:
    """fc7 (n, 4096), both towers', of the centre crop of uint8 ``images`` (n, 256, 256, 3).

    Of a reference net what its last layer reads.
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
    """The npy file in ``directory``, which exists, with fc7 (images, 4096) of all ``dataset``, extracted if not there.

    Its name is a digest of the net and the images, and its own checksum: a damaged file is made anew. ``progress`` is
    called with the number of images just done. ``net`` holds all its towers. Raises InputError naming a file that is
    no image.
    """
    name = f"fc7-{digest(net, dataset)}"
    for path in directory.glob(f"{name}-*.npy"):
        if is_file(path) and path.stem == f"{name}-{checksum(path)}":
            return path
        path.unlink()
    path = directory / f"{name}.npy"
    with atomic_write(path) as partial:
        extract(net, dataset, partial, settings, progress)
    return path.rename(path.with_stem(f"{name}-{checksum(path)}"))


def checksum(path: Path) -> str:
    """CRC-32 of a file, in hexadecimal."""
    crc = 0
    with open_file(path) as file:
        while content := file.read(2**20):
            crc = zlib.crc32(content, crc)
    return f"{crc:08x}"


def extract(
    net: AlexNet, dataset: Dataset, path: Path, settings: EvaluationSettings, progress: Callable[[int], object]
) -> None:
    """Write fc7 of every image of ``dataset``, batch by batch, in npy's format."""
    layout = Layout(devices=(net.held[0].device,))
    mean = dataset.statistics.mean_on(layout.devices[0])
    side = net.recipe.image_size
    with evaluating(net):
        width = fc7(net, torch.zeros(1, side, side, 3, dtype=torch.uint8, device=layout.devices[0]), mean).shape[1]
    with path.open("wb") as file:
        write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": (len(dataset), width)})
        for images in replica_images(layout, dataset, net.recipe, settings):
            with evaluating(net):
                file.write(fc7(net, images, mean).float().cpu().numpy().tobytes())
            progress(len(images))


def digest(net: AlexNet, dataset: Dataset) -> str:
    """Of the weights up to fc7 and of the images."""
    state = hashlib.sha256(fingerprint(dataset).encode())
    for name, weight in net.named_parameters():
        if name.split(".")[-2] != net.layers[-1]:
            state.update(weight.detach().cpu().numpy().tobytes())
    return state.hexdigest()[:16]


def nearest(queries: Tensor, features: Path, count: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Distances and rows, both (queries, count), of the rows of ``features`` nearest to ``queries`` (n, 4096).

    The file is mapped part by part and let go, so its length costs no memory.
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
