"""A part of a data set's images: for instance the training images held back for validation."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from alexnet2012.core.errors import InputError
from alexnet2012.core.random_streams import Purpose, philox
from alexnet2012.data.dataset import Dataset
from alexnet2012.data.statistics import Statistics


class Subset(Dataset):
    """Some images of ``whole``, by index, in that order."""

    def __init__(self, whole: Dataset, indices: NDArray[np.int64]) -> None:
        super().__init__(np.asarray(whole.labels)[indices], whole.classes, None)
        self.whole, self.indices, self.square256 = whole, indices, whole.square256

    @property
    def statistics(self) -> Statistics:
        """Unless given, those that a prepared ``whole`` keeps, of all its images, else those of these images alone."""
        kept = self._statistics is None and self.square256
        return self.whole.statistics if kept else super().statistics

    def encoded(self, index: int) -> bytes:
        return self.whole.encoded(int(self.indices[index]))

    def name(self, index: int) -> str:
        return self.whole.name(int(self.indices[index]))

    def identity(self) -> bytes:
        return self.whole.identity() + self.indices.tobytes()


def hold_out(train: Dataset, fraction: float, seed: int) -> tuple[Dataset, Dataset]:
    """The training images in two parts, the second of about ``fraction`` of them, drawn by ``seed``.

    Raises InputError if one of them would be empty.
    """
    held = round(len(train) * fraction)
    if not 0 < held < len(train):
        raise InputError(f"--val-fraction {fraction:g}: of {len(train)} training images leaves a part empty")
    order = philox(Purpose.HELD_BACK, seed).random_raw(len(train)).argsort(kind="stable")
    return Subset(train, np.sort(order[held:])), Subset(train, np.sort(order[:held]))
