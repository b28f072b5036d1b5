"""A net from a checkpoint, and its answers about pictures."""

from __future__ import annotations

import io
import os
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, cast, overload

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

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
AT_ONCE = 32  # pictures that pass through the net together


class Prediction(NamedTuple):
    """One of a picture's most probable classes."""

    name: str
    probability: float


class Predictor:
    """Predictions of a net with a checkpoint's weights: a mixin of ``AlexNet`` and of the reference nets."""

    recipe: Recipe
    classes: int

    def take(self: Any, saved: dict[str, Any]) -> None:
        """Its weights, ``class_names`` and ``statistics`` from ``saved``, from ``checkpoint.load``."""
        self.class_names = in_words(saved["class_names"])
        self.statistics = checkpoint.statistics_in(saved)
        self.load_state_dict({name: saved["weights"][name] for name in self.state_dict()})
        self.eval()

    def refuse_other_classes(self: Any, dataset: Dataset, data: str) -> None:
        """Raises InputError where the classes of ``dataset``, called ``data``, are not the net's."""
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
        """The ``top`` most probable classes, the most probable first, as (name, probability): a list an image.

        Of one image, a PIL image or a path, its list; of several, a list of theirs. Softmax outputs are averaged over
        ten ``crops`` (P §4.1), or are of the centre crop with ``crops=1`` and where the net was trained without crops
        and reflections. Raises InputError naming a file that is no image, TypeError for what is neither path nor PIL
        image.
        """
        if crops not in CROPS:
            raise ValueError(f"crops={crops}: must be one of {CROPS}")
        if top < 1:
            raise ValueError(f"top={top}: must be at least 1")
        if isinstance(images, Image.Image | str | os.PathLike):
            return self.predict([images], top, crops)[0]
        pictures, guesses = list(images), []
        for first in range(0, len(pictures), AT_ONCE):
            side = self.recipe.image_size
            pixels = np.stack([square_pixels(picture, side) for picture in pictures[first : first + AT_ONCE]])
            probabilities = self.probabilities(torch.from_numpy(pixels), crops)
            guesses += [self.best(row, top) for row in probabilities]
        return guesses

    def probabilities(self: Any, pixels: Tensor, crops: int = 10) -> Tensor:
        """Softmax outputs (n, classes) for uint8 images (n, 256, 256, 3), on the CPU."""
        device = self.held[0].device
        mean = self.statistics.mean_on(device)
        with evaluating(self):
            return softmax_outputs(self, pixels.to(device), mean, crops)[0].cpu()

    def best(self: Any, probabilities: Tensor, top: int) -> list[Prediction]:
        """The ``top`` most probable of ``probabilities`` (classes,)."""
        highest = probabilities.topk(min(top, self.classes))
        return [
            Prediction(self.class_names[index], value)
            for value, index in zip(highest.values.tolist(), highest.indices.tolist(), strict=True)
        ]


class TrainedAlexNet(Predictor, AlexNet):
    """A net with a checkpoint's weights, in eval mode, with its ``recipe``, ``class_names`` and ``statistics``."""

    def __init__(self, saved: dict[str, Any], exchange: Exchange | None = None) -> None:
        """``saved`` is from ``checkpoint.load``; ``exchange`` as in ``AlexNet``."""
        super().__init__(checkpoint.recipe_in(saved), saved["classes"], exchange=exchange)
        self.take(saved)

    def draw_weights(self) -> None:
        """Nothing to draw: the weights come from the checkpoint."""


class TrainedReferenceNet(Predictor, ReferenceNet):
    """A reference net with a checkpoint's weights."""

    def __init__(self, saved: dict[str, Any]) -> None:
        super().__init__(checkpoint.recipe_in(saved), saved["classes"])
        self.take(saved)


def trained_net(saved: dict[str, Any], exchange: Exchange | None) -> TrainedAlexNet:
    """The net of ``saved``; a reference net offers all of it that evaluation and figures use."""
    if checkpoint.recipe_in(saved).net == "2012":
        return TrainedAlexNet(saved, exchange)
    return cast(TrainedAlexNet, TrainedReferenceNet(saved))


def square_pixels(picture: Picture, side: int = SIDE) -> NDArray[np.uint8]:
    """A picture as the net's data are prepared, uint8 (side, side, 3).

    Raises InputError naming a file that is no image, TypeError for what is neither path nor PIL image.
    """
    if isinstance(picture, Image.Image):
        file = io.BytesIO()
        deep = picture.mode.startswith("I;16")  # 16 bits a pixel, which decoding scales
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
    """The net of a checkpoint file, both towers on ``device``: the first GPU if there is one, unless given.

    Also of a safetensors file of ``launch/export.py``; the text ``sample`` is the small net in this package.
    ``exchange`` says which towers this process holds, where others hold the rest; several devices are a tower's each.
    Raises InputError, naming the file, for one that is missing, damaged or of another project.
    """
    net = trained_net(checkpoint.load(path), exchange)
    if device is None:
        device = "cuda" if torch.cuda.is_available() else "cpu"
    net.place([device] if isinstance(device, str | torch.device) else device)
    return net
