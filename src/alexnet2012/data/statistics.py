"""Mean image and colour covariance of a training split, summed exactly: the same for any number of workers or ranks."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from alexnet2012.core.guarded_files import Damaged, Field, read_npz, require_arrays
from alexnet2012.recipe import ImageRecipe

STATISTICS = {
    "mean": Field("f", ("side", "side", 3), 0, 255),
    "covariance": Field("f", (3, 3)),
    "eigenvalues": Field("f", (3,), 0),
    "eigenvectors": Field("f", (3, 3)),
    "images": Field("i", (), 0),
}
SUMS = {
    "images": Field("i", (), 0),
    "pixels": Field("i", ("side", "side", 3), 0),
    "products": Field("i", (3, 3), 0),
}


class Arrays:
    """A dataclass of arrays that can be kept in a file."""

    def save(self, path: str | Path) -> None:
        """Write an uncompressed npz, one array a field."""
        with Path(path).open("wb") as file:
            np.savez(file, **vars(self))


@dataclass(frozen=True)
class Statistics(Arrays):
    """Of all pixels of the square training images, RGB, 0..255 (P §2, §4.1); their side is 256 pixels in 2012's net."""

    mean: NDArray[np.float64]  # (side, side, 3) mean image
    covariance: NDArray[np.float64]  # (3, 3) of RGB about the mean colour
    eigenvalues: NDArray[np.float64]  # (3,) variances, descending, at least 0
    eigenvectors: NDArray[np.float64]  # (3, 3) one a column, its largest component positive
    images: int

    @property
    def color_axes(self) -> NDArray[np.float64]:
        """(3, 3): eigenvectors as columns, each times its standard deviation sqrt(lambda) (S; P §4.1 says lambda)."""
        return self.eigenvectors * np.sqrt(self.eigenvalues)

    def colors(self) -> dict[str, NDArray[np.float64]]:
        """The figures of ``recipe.COLORS_2014``, of these images: (3,) each."""
        vectors = dict(zip(("first", "second", "third"), self.eigenvectors.T, strict=True))
        return {
            "mean color": self.mean.mean((0, 1)),
            "sqrt(eigenvalues)": np.sqrt(self.eigenvalues),
            **{f"{place} eigenvector": vector for place, vector in vectors.items()},
        }

    def mean_on(self, device: torch.device | str) -> Tensor:
        """The mean image and its reflection, as they are subtracted from pixels: float32 (2, side, side, 3)."""
        mean = torch.from_numpy(self.mean).to(device, torch.float32)
        return torch.stack([mean, mean.flip(1)])

    @classmethod
    def none(cls) -> Statistics:
        """Of no image, for nets that use none of it."""
        return cls(
            np.zeros((ImageRecipe.image_size, ImageRecipe.image_size, 3)), np.zeros((3, 3)), np.zeros(3), np.eye(3), 0
        )

    @classmethod
    def load(cls, path: Path, advice: str = "") -> Statistics:
        """Read what ``save`` wrote. Raises Damaged for anything else."""
        arrays = read_npz(path, STATISTICS, advice)
        try:
            return cls.of(arrays)
        except ValueError as error:
            raise Damaged(path, f"cannot be read ({error})", advice) from error

    @classmethod
    def of(cls, arrays: dict[str, Any]) -> Statistics:
        """Of arrays by their names. Raises ValueError for arrays of another form, or that contradict each other."""
        require_arrays(arrays, STATISTICS)
        statistics = cls(**{**arrays, "images": int(arrays["images"])})
        axes, covariance = statistics.color_axes, statistics.covariance
        if not np.allclose(axes @ axes.T, covariance, rtol=0, atol=1e-5 * max(1, abs(covariance).max())):
            raise ValueError("the eigenvectors are not those of the covariance")
        return statistics


@dataclass
class Sums(Arrays):
    """Integer sums over images: exact, so the order of adding and merging does not matter.

    int64 holds them for 2**31 images of 256x256: 65,536 pixels x 255**2 an image is less than 2**32. Sums of no image
    add to those of images of any side.
    """

    images: int = 0
    pixels: NDArray[np.int64] = field(default_factory=lambda: np.zeros((1, 1, 3), np.int64))  # (side, side, 3)
    products: NDArray[np.int64] = field(default_factory=lambda: np.zeros((3, 3), np.int64))  # of channel pairs

    def add(self, images: NDArray[np.uint8]) -> None:
        """Count in uint8 images (n, side, side, 3), n below 2**24, side at most 256."""
        self.images += len(images)
        self.pixels = self.pixels + images.sum(0, dtype=np.uint32)
        for image in images:
            planes = np.ascontiguousarray(image.transpose(2, 0, 1)).astype(np.float32)
            rows = np.vecdot(planes[:, None], planes)  # at most 256 pixels: whole numbers below 2**24, exact in float32
            self.products += rows.astype(np.int64).sum(-1)

    def merge(self, other: Sums) -> None:
        """Count in what ``other`` has summed."""
        self.images += other.images
        self.pixels = self.pixels + other.pixels
        self.products += other.products

    @classmethod
    def load(cls, path: Path) -> Sums:
        """Read what ``save`` wrote. Raises Damaged for anything else."""
        arrays = read_npz(path, SUMS)
        return cls(int(arrays["images"]), arrays["pixels"], arrays["products"])

    def statistics(self) -> Statistics:
        """Divide. The covariance is formed in whole numbers first, so nothing cancels."""
        count = self.images * self.pixels[..., 0].size
        total = self.pixels.sum((0, 1)).astype(object)
        covariance = ((self.products.astype(object) * count - np.outer(total, total)) / count**2).astype(np.float64)
        values, vectors = np.linalg.eigh(covariance)
        values, vectors = values[::-1].clip(0), vectors[:, ::-1]
        largest = vectors[np.abs(vectors).argmax(0), range(3)]
        return Statistics(self.pixels / self.images, covariance, values, vectors * np.sign(largest), self.images)
