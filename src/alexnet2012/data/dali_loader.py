"""Execute a plan with NVIDIA DALI: its threads, or the GPU's decoder, do what ``PillowLoader`` does with Pillow."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from nvidia.dali import Pipeline, fn, types
from torch import Tensor

from alexnet2012.core.errors import InputError
from alexnet2012.data.dataset import load, naming, read_image
from alexnet2012.data.loaders import Loader, ahead, empty_images
from alexnet2012.data.pixels import central_square, decode, open_image, pnm_pixels
from alexnet2012.data.plan import Augmentations, Batch
from alexnet2012.recipe import ImageRecipe

READ_AHEAD = 4  # batches being read, each by a thread of its own
DECODE_AHEAD = 2  # batches being decoded while one is used
FRAME_HEADER = re.compile(rb"\xff[\xc0-\xc3\xc5-\xc7\xc9-\xcb\xcd-\xcf]")  # of a JPEG
LARGEST_BATCH = 2**16  # images; DALI wants a bound, and reserves nothing for it
Node = Any  # a value in DALI's graph: its stubs give every operator a union of types


@dataclass
class _Opened:
    """An image's file."""

    index: int
    content: NDArray[np.uint8]  # encoded (bytes,) or, of a raw data set, its pixels (h, w, 3)
    label: int
    square: tuple[float, float, float, float] | None  # the part to resize


@dataclass
class _Read:
    """A batch read from disk: all that the pipeline's inputs take."""

    batch: Batch
    opened: list[_Opened]
    labels: NDArray[np.int64]
    inputs: dict[str, Any]  # input's name -> one value an image


class DaliLoader(Loader):
    """Resized pixels may differ from Pillow's by 1 of 255 (CMYK: by 2), others are the same.

    On a CUDA ``device`` the GPU decodes (it rounds differently). DALI is less strict than Pillow: damage behind a
    file's header may pass as pixels. A bad file is named up to two batches early.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        self.resizes = not (self.dataset.square256 and self.recipe.image_size == ImageRecipe.image_size)
        self.input = "pixels" if self.dataset.raw else "encoded"
        self._readers = ThreadPoolExecutor(READ_AHEAD)
        self._pipeline: Pipeline | None = None
        self._decoding: deque[_Read] = deque()

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        reading = ahead(self.batches, lambda batch: self._readers.submit(self._read, batch), READ_AHEAD)
        for read in ahead((task.result() for task in reading), self._start, DECODE_AHEAD):
            if len(read.labels):
                images, labels = self._finish()
            else:  # DALI takes no empty batch
                images, labels = empty_images(read.batch, self.recipe, self.device).to(self.device), read.labels
            yield images, torch.from_numpy(labels).to(self.device, non_blocking=True)

    def close(self) -> None:
        self._readers.shutdown(cancel_futures=True)
        self._pipeline = None

    def _read(self, batch: Batch) -> _Read:
        if isinstance(batch, Augmentations):
            opened = [self.readable(self._open, batch, row) for row in range(len(batch))]
        else:
            opened = [self._open(image) for image in batch.tolist()]
        inputs: dict[str, Any] = {self.input: [image.content for image in opened]}
        if self.resizes:
            left, top, right, bottom = np.array([image.square for image in opened], np.float32).reshape(-1, 4).T
            inputs |= {"start": np.stack([top, left], 1), "end": np.stack([bottom, right], 1)}
        if isinstance(batch, Augmentations):
            inputs |= _augmentation_inputs(batch, self.recipe.image_size - self.recipe.crop_size)
        return _Read(batch, opened, np.array([image.label for image in opened], np.int64), inputs)

    def _open(self, index: int) -> _Opened:
        """Read an image and what part of it to resize: Pillow recognizes most non-images by their header.

        A JPEG with two frame headers DALI decodes by one of them, and Pillow refuses; that of a thumbnail is no second.
        """
        content, label = read_image(self.dataset, index)
        square = None
        if self.dataset.raw:
            pixels = pnm_pixels(content)
            assert pixels is not None, self.dataset.name(index)
            if self.resizes:
                height, width = pixels.shape[:2]
                square = central_square(width, height, self.recipe.image_size)
            colors = pixels if pixels.ndim == 3 else np.repeat(pixels[..., None], 3, axis=2)
            return _Opened(index, colors, label, square)
        if self.resizes:
            with naming(self.dataset, index):
                square = central_square(*open_image(content).size, self.recipe.image_size)
                if content.startswith(b"\xff\xd8") and len(FRAME_HEADER.findall(content)) > 1:
                    decode(content)  # raises, unless one is a thumbnail's
        return _Opened(index, np.frombuffer(content, np.uint8), label, square)

    def _start(self, read: _Read) -> _Read:
        """Hand a batch to DALI's threads."""
        if len(read.labels):
            self._pipeline = self._pipeline or self._build(list(read.inputs))
            self._decoding.append(read)
            try:
                for name, data in read.inputs.items():
                    self._pipeline.feed_input(name, data)
                self._pipeline.schedule_run()
            except (RuntimeError, IndexError) as error:
                self._begin_again(error)
        return read

    def _finish(self) -> tuple[Tensor, NDArray[np.int64]]:
        """The images and labels of the oldest batch in DALI's hands."""
        assert self._pipeline is not None
        try:
            if self.device.type == "cpu":
                (images,) = self._pipeline.outputs()
                tensor = torch.from_dlpack(images.as_tensor())  # owns DALI's memory: nothing is copied
            else:
                (images,) = self._pipeline.outputs(torch.cuda.current_stream(self.device))
                tensor = torch.from_dlpack(images.as_tensor()).clone()  # into memory whose streams torch knows
        except (RuntimeError, IndexError) as error:
            self._begin_again(error)
            return self._finish()
        return tensor, self._decoding.popleft().labels

    def _begin_again(self, error: Exception) -> None:
        """After DALI's error, which kills its pipeline: a new one, replacements for what cannot be decoded.

        Raises InputError naming the file where there is no replacement.
        """
        reads, self._decoding, self._pipeline = list(self._decoding), deque(), None
        if sum(map(self._skip_bad, reads)) == 0:
            reason = str(error).partition("encountered:")[2].strip().partition("\n")[0]
            first = self.dataset.name(reads[0].opened[0].index)
            raise InputError(
                f"--loader dali: DALI cannot decode one of the images from {first} on ({reason}); use --loader pillow"
            ) from error
        for read in reads:
            self._start(self._read(read.batch))

    def _skip_bad(self, read: _Read) -> bool:
        """Find images that Pillow cannot read. Raises InputError for one that may not be skipped."""
        for image in read.opened:
            try:
                load(self.dataset, image.index, self.recipe.image_size)
            except InputError as error:
                self.skip(image.index, read.batch, error)
        return any(image.index in self.skipped for image in read.opened)

    def _build(self, inputs: list[str]) -> Pipeline:
        """Decode; resize if there is a ``start``; crop and reflect if there is a ``top``.

        What need not be resized is decoded no further than the crop reaches: the same pixels, in less time.
        """
        device_id, decoder = (None, "cpu") if self.device.type == "cpu" else (self.device.index or 0, "mixed")
        # A queue of one: run ahead is what ``_start`` schedules. More would have DALI demand several batches at first.
        pipeline = Pipeline(LARGEST_BATCH, self.workers, device_id, prefetch_queue_depth=1)
        with pipeline:
            given = {name: fn.external_source(name=name, layout="HWC" if name == "pixels" else None) for name in inputs}
            crop = {}
            if "top" in given:
                crop = {"crop": [self.recipe.crop_size] * 2, "crop_pos_x": given["left"], "crop_pos_y": given["top"]}
            whole = self.resizes or not crop
            if self.dataset.raw:
                images, whole = given["pixels"] if device_id is None else given["pixels"].gpu(), True
            else:
                images = (fn.decoders.image if whole else partial(fn.decoders.image_crop, **crop))(
                    _checked(given["encoded"]),
                    device=decoder,
                    adjust_orientation=False,
                    jpeg_fancy_upsampling=True,  # the GPU's chroma then is the CPU decoders'
                )
            if "start" in given:
                images = _resize(images, given, self.recipe.image_size)
            if crop:
                images = _reflect(images, given, crop if whole else {})
            pipeline.set_outputs(images)
        pipeline.build()
        return pipeline


def _augmentation_inputs(augmentations: Augmentations, free: int) -> dict[str, Any]:
    """DALI takes a crop's position as a share of the ``free`` pixels and rounds the product: exact for whole pixels."""
    return {
        "top": (augmentations.top / max(free, 1)).astype(np.float32),
        "left": (augmentations.left / max(free, 1)).astype(np.float32),
        "reflect": augmentations.reflect.astype(np.int32),
    }


def _checked(encoded: Node) -> Node:
    """``encoded``, but not before DALI has read its header.

    An unreadable header in the decoder itself crashes the process about every other time (DALI 2.4): it throws
    while other threads still decode into the batch. Here it is an ordinary error, and the decoder is never reached.
    """
    height = fn.peek_image_shape(encoded, adjust_orientation=False)[0]
    return encoded[fn.cast(height, dtype=types.DALIDataType.INT32) * 0 :]


def _resize(images: Node, given: dict[str, Node], side: int) -> Node:
    """As ``pixels.decode`` does with Pillow: triangular filter when shrinking, linear when enlarging."""
    return fn.resize(
        images,
        size=[side, side],
        roi_start=given["start"],
        roi_end=given["end"],
        interp_type=types.DALIInterpType.INTERP_LINEAR,
        antialias=True,
        subpixel_scale=False,
    )


def _reflect(images: Node, given: dict[str, Node], crop: dict[str, Any]) -> Node:
    """As ``pixels.cut`` does, within the window ``crop``: uint8 (size, size, 3)."""
    return fn.crop_mirror_normalize(
        images,
        **crop,
        mirror=given["reflect"],
        dtype=types.DALIDataType.UINT8,
        output_layout="HWC",
    )
