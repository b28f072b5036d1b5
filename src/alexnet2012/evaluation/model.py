"""Trained nets: loading a checkpoint, and predicting the classes of images."""

from __future__ import annotations

import io
import os
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, cast, overload

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from alexnet2012.core.errors import InputError
from alexnet2012.core.guarded_files import Damaged, read_bytes
from alexnet2012.data import Dataset
from alexnet2012.data.dataset import IMAGE_BYTES, in_words
from alexnet2012.data.pixels import SIDE, decode
from alexnet2012.evaluation import checkpoint
from alexnet2012.evaluation.crops import CROPS
from alexnet2012.evaluation.evaluate import evaluating, softmax_outputs
from alexnet2012.network import AlexNet
from alexnet2012.network.exchange import Exchange
from alexnet2012.network.reference import ReferenceNet
from alexnet2012.recipe import Recipe

Picture = Image.Image | str | os.PathLike[str]
BATCH_SIZE = 32  # images per forward pass


class Prediction(NamedTuple):
    """One of the most probable classes of an image."""

    name: str
    probability: float


class Predictor(nn.Module):
    """A mixin for ``AlexNet`` and the reference nets: a checkpoint's weights, in eval mode, and predictions."""

    recipe: Recipe
    classes: int

    def __init__(self, saved: dict[str, Any], **options: Any) -> None:
        """``saved`` is the result of ``checkpoint.load``, ``options`` are further arguments of the net."""
        super().__init__(checkpoint.recipe_in(saved), saved["classes"], **options)
        self.class_names = in_words(saved["class_names"])
        self.statistics = checkpoint.statistics_in(saved)
        self.load_state_dict({name: saved["weights"][name] for name in self.state_dict()})
        self.eval()

    def refuse_other_classes(self: Any, dataset: Dataset, data: str) -> None:
        """Raises InputError if the classes of ``dataset``, given as ``--data data``, differ from the net's."""
        theirs, ours = dataset.classes, self.class_names
        if len(theirs) != len(ours):
            raise InputError(f"--data {data}: has {len(theirs)} classes, the checkpoint's net {len(ours)}")
        for index, (their, our) in enumerate(zip(theirs, ours, strict=True)):
            if their != our:
                raise InputError(
                    f"--data {data}: class {index} is {their!r}, the checkpoint's is {our!r}; use its data"
                )

    @overload  # a str is an Iterable too
    def predict(  # type: ignore[overload-overlap]
        self, images: Picture, top: int = 5, crops: int = 10
    ) -> list[Prediction]: ...
    @overload
    def predict(self, images: Iterable[Picture], top: int = 5, crops: int = 10) -> list[list[Prediction]]: ...
    def predict(self, images: Picture | Iterable[Picture], top: int = 5, crops: int = 10) -> list[Any]:
        """The ``top`` most probable classes as (name, probability), the most probable first: one list per image.

        For a single image, a PIL image or a path, returns its list; for several, a list of lists. Softmax outputs are
        averaged over ten ``crops`` (paper §4.1); ``crops=1``, or a net trained without crops and reflections, uses the
        centre crop. Raises InputError naming a file that is not an image, TypeError for other objects.
        """
        if crops not in CROPS:
            raise ValueError(f"crops={crops}: must be one of {CROPS}")
        if top < 1:
            raise ValueError(f"top={top}: must be at least 1")
        if isinstance(images, Image.Image | str | os.PathLike):
            return self.predict([images], top, crops)[0]
        pictures, guesses = list(images), []
        for first in range(0, len(pictures), BATCH_SIZE):
            side = self.recipe.image_size
            pixels = np.stack([read_pixels(picture, side) for picture in pictures[first : first + BATCH_SIZE]])
            probabilities = self.probabilities(torch.from_numpy(pixels), crops)
            guesses += [self.best(row, top) for row in probabilities]
        return guesses

    def probabilities(self: Any, pixels: Tensor, crops: int = 10) -> Tensor:
        """Softmax outputs (n, classes), on the CPU, for uint8 images (n, 256, 256, 3)."""
        device = self.held[0].device
        mean = self.statistics.mean_on(device)
        with evaluating(self):
            return softmax_outputs(self, pixels.to(device), mean, crops)[0].cpu()

    def best(self: Any, probabilities: Tensor, top: int) -> list[Prediction]:
        """The ``top`` most probable classes of ``probabilities`` (classes,)."""
        highest = probabilities.topk(min(top, self.classes))
        return [
            Prediction(self.class_names[index], value)
            for value, index in zip(highest.values.tolist(), highest.indices.tolist(), strict=True)
        ]


class TrainedAlexNet(Predictor, AlexNet):
    """An ``AlexNet`` with a checkpoint's weights, ``recipe``, ``class_names`` and ``statistics``."""

    def draw_weights(self) -> None:
        """Does nothing: the weights come from the checkpoint."""


class TrainedReferenceNet(Predictor, ReferenceNet):
    """A reference net with a checkpoint's weights, ``recipe``, ``class_names`` and ``statistics``."""


def trained_net(saved: dict[str, Any], exchange: Exchange | None) -> TrainedAlexNet:
    """The net of ``saved``; a reference net has every attribute that evaluation and figures use."""
    if checkpoint.recipe_in(saved).net == "2012":
        return TrainedAlexNet(saved, exchange=exchange)
    return cast(TrainedAlexNet, TrainedReferenceNet(saved))


def read_pixels(picture: Picture, side: int = SIDE) -> NDArray[np.uint8]:
    """The pixels of an image, scaled and cropped like a prepared data set: uint8 (side, side, 3).

    Raises InputError naming a file that is not an image, TypeError for anything but a path or a PIL image.
    """
    if isinstance(picture, Image.Image):
        file = io.BytesIO()
        deep = picture.mode.startswith("I;16")  # 16 bits per channel, which decoding scales
        (picture if deep else picture.convert("RGB")).save(file, "PNG", compress_level=1)
        return decode(file.getvalue(), side)
    if not isinstance(picture, str | os.PathLike):
        raise TypeError(f"{type(picture).__name__}: give paths or PIL images (Image.fromarray makes one)")
    try:
        return decode(read_bytes(picture, IMAGE_BYTES), side)
    except Exception as error:
        reason = error.reason if isinstance(error, Damaged) else error
        raise InputError(f"{picture}: not a readable image ({reason})") from error


def load_checkpoint(
    path: str | os.PathLike[str],
    device: torch.device | str | Sequence[torch.device | str] | None = None,
    exchange: Exchange | None = None,
) -> TrainedAlexNet:
    """The net of a checkpoint file or of a safetensors file of ``launch/export.py``.

    ``path="sample"`` is the small net in this package. Both towers are placed on ``device``, by default the first GPU
    if there is one; with several devices, each tower gets one. ``exchange`` says which towers this process holds if
    others hold the rest. Raises InputError, naming the file, if it is missing, damaged or of another project.
    """
    net = trained_net(checkpoint.load(path), exchange)
    if device is None:
        device = "cuda" if torch.cuda.is_available() else "cpu"
    net.place([device] if isinstance(device, str | torch.device) else device)
    return net
