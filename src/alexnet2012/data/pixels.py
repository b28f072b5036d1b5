"""From encoded bytes to pixels, and from crops to the network's input: what both loaders share."""

from __future__ import annotations

import io
import math
import re

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from alexnet2012.data import pixels_native
from alexnet2012.data.plan import Augmentations
from alexnet2012.recipe import ImageRecipe

SIDE = ImageRecipe.image_size  # pixels
Places = NDArray[np.int64] | NDArray[np.bool_]
FORMATS = ("JPEG", "PNG")  # what every loader decodes, whatever the file is called
PNM_HEADER = re.compile(rb"P([56])\n([1-9]\d{0,5}) ([1-9]\d{0,5})\n255\n")  # as ``pnm`` writes it


def open_image(encoded: bytes) -> Image.Image:
    """Read the header. Raises an exception of Pillow if it is not whole."""
    try:
        return Image.open(io.BytesIO(encoded), formats=FORMATS)
    except UnidentifiedImageError:
        raise UnidentifiedImageError(f"no {' or '.join(FORMATS)} file") from None  # Pillow's names the buffer's address


def pnm(pixels: NDArray[np.uint8]) -> bytes:
    """RGB (h, w, 3) or grey (h, w) as a PPM or PGM file: a header, then the pixels as they are."""
    return b"P%d\n%d %d\n255\n" % (6 if pixels.ndim == 3 else 5, *pixels.shape[1::-1]) + pixels.tobytes()


def pnm_pixels(encoded: bytes) -> NDArray[np.uint8] | None:
    """The pixels of a file of ``pnm``, a view of its bytes; None for any other."""
    if not (header := PNM_HEADER.match(encoded)):
        return None
    kind, width, height = map(int, header.groups())
    shape = (height, width, 3) if kind == 6 else (height, width)
    if len(encoded) != header.end() + math.prod(shape):
        return None
    return np.frombuffer(encoded, np.uint8, offset=header.end()).reshape(shape)


def decode(encoded: bytes, side: int = SIDE) -> NDArray[np.uint8]:
    """Decode strictly to RGB (256, 256, 3): the central square at the resolution where the shorter side is 256 (P §2).

    Reference nets take another ``side``. EXIF orientation is ignored, as in 2012. The array may be a view of
    ``encoded``. Raises an exception of Pillow for bytes that are no whole image.
    """
    if (pixels := pnm_pixels(encoded)) is None:
        with open_image(encoded) as image:
            colors = _eight_bit(image)
    elif pixels.shape == (side, side, 3):
        return pixels
    else:
        colors = Image.fromarray(pixels)
    square = colors if colors.size == (side, side) else _resize(colors, side)
    return np.asarray(square.convert("RGB"))


def central_square(width: int, height: int, side: int = SIDE) -> tuple[float, float, float, float]:
    """The part of an image, (left, top, right, bottom) in its own pixels, that becomes the 256x256 image (P §2).

    The image is scaled so that its shorter side is 256 and its longer a whole number (halves up); of that, the
    central 256 (an odd pixel is left over right or below). Both loaders resize this part alone.
    """
    shorter = min(width, height)
    scaled = [(2 * side * edge + shorter) // (2 * shorter) for edge in (width, height)]
    first = [(edge - side) // 2 for edge in scaled]
    (left, right), (top, bottom) = (
        (start * edge / size, (start + side) * edge / size)
        for start, edge, size in zip(first, (width, height), scaled, strict=True)
    )
    return left, top, right, bottom


def _eight_bit(image: Image.Image) -> Image.Image:
    """Grey (mode L) or RGB. Transparency is dropped; 16-bit grey is divided by 257, as DALI does."""
    image.load()
    if image.mode.startswith("I"):
        return Image.fromarray(np.round(np.asarray(image) / 257).astype(np.uint8))
    image.info.pop("transparency", None)
    return image if image.mode == "L" else image.convert("RGB")


def _resize(image: Image.Image, side: int) -> Image.Image:
    """The central square at 256x256, bilinear; shrinking widens the filter (antialiasing).

    Before shrinking, edges are repeated as far as the filter reaches: DALI does so, Pillow would cut the filter off.
    """
    left, top, right, bottom = central_square(*image.size, side)
    if (shorter := min(image.size)) > side:
        margin, pixels = math.ceil(shorter / side), np.asarray(image)
        widths = [(margin, margin)] * 2 + [(0, 0)] * (pixels.ndim - 2)
        image = Image.fromarray(np.pad(pixels, widths, mode="edge"))
        left, top, right, bottom = (edge + margin for edge in (left, top, right, bottom))
    return image.resize((side, side), Image.Resampling.BILINEAR, box=(left, top, right, bottom))


def cut(image: NDArray[np.uint8], augmentations: Augmentations, row: int, out: NDArray[np.uint8]) -> None:
    """Write the crop of ``image`` (256, 256, 3) for row ``row``, reflected if it is to be, into ``out`` (224, 224, 3).

    Numpy needs ten times as long: it moves three bytes at a time.
    """
    top, left, size = int(augmentations.top[row]), int(augmentations.left[row]), len(out)
    reflect = augmentations.reflect[row]
    if (built := pixels_native.library()) and image.strides[1:] == (3, 1):
        pixels_native.cut(built, image, top * image.strides[0] + left * 3, reflect, out)
    else:
        crop = image[top : top + size, left : left + size]
        out[:] = crop[:, ::-1] if reflect else crop


def normalize(crops: Tensor, augmentations: Augmentations, mean: Tensor, recipe: ImageRecipe) -> Tensor:
    """Crops, uint8 (n, 224, 224, 3), to the network's input, float32 (n, 3, 224, 224), channels last in memory.

    Their colour noise is added and the mean subtracted (``less_mean``); the recipe may divide the result.
    """
    noise, divisor, size, side = augmentations.noise, augmentations.divisor, crops.shape[1], mean.shape[1]
    offsets = augmentations.top, augmentations.left, augmentations.reflect
    built = pixels_native.library() if crops.device.type == "cpu" and recipe.mean_subtracted else None
    if built and crops.is_contiguous():
        out = torch.empty(crops.shape)
        reflected, top, left = mean_places(*offsets, size, side, recipe)
        places = 3 * ((reflected * side + top) * side + left)
        pixels_native.normalize(built, crops, noise, mean, np.ascontiguousarray(places), divisor, out)
        return out.permute(0, 3, 1, 2)
    images = crops.permute(0, 3, 1, 2).float()
    images += torch.from_numpy(noise).to(images.device, non_blocking=True)[:, :, None, None]
    images = less_mean(images, *offsets, mean, recipe)
    return images.div_(divisor) if divisor != 1 else images


def less_mean(images: Tensor, top: Places, left: Places, reflect: Places, mean: Tensor, recipe: ImageRecipe) -> Tensor:
    """Crops, float32 (n, 3, size, size), less the mean image as ``Statistics.mean_on`` gives it; in place.

    ``top``, ``left`` and ``reflect``, (n,) or (1,) for all, say where they were cut and which were reflected.
    A net without a mean image gets what ``scaled`` gives.
    """
    size = images.shape[-1]
    if not recipe.mean_subtracted:
        return scaled(images, recipe)
    crops = mean.unfold(1, size, 1).unfold(2, size, 1)  # reflected, top, left, (3, size, size): a view
    places = mean_places(top, left, reflect, size, mean.shape[1], recipe)
    return images.sub_(crops[tuple(torch.from_numpy(place).to(mean.device, non_blocking=True) for place in places)])


def mean_places(top: Places, left: Places, reflect: Places, size: int, side: int, recipe: ImageRecipe) -> list[NDArray]:
    """Which part of the mean image is subtracted from each crop: reflected (0 or 1), top, left, int64 (n,) each.

    ``paper``: what lies under the crop, reflected with it (P §2 subtracts before cropping); ``source``: the central
    crop, under every crop (S).
    """
    if recipe.mean_central:
        edge = np.full(len(top), (side - size) // 2)
        return [np.zeros_like(edge), edge, edge]
    return [reflect.astype(np.int64), top.astype(np.int64), np.where(reflect, side - size - left, left)]


def scaled(images: Tensor, recipe: ImageRecipe) -> Tensor:
    """RGB pixels (n, 3, h, w) of 0..255 as a net without a mean image reads them: its channels, offset and scale.

    One channel is the luminance (ITU-R BT.601), and of a grey image exactly its grey.
    """
    if recipe.channels == 1:
        red, green, blue = images.split(1, dim=1)
        images = red + 0.587 * (green - red) + 0.114 * (blue - red)  # 0.299 of red remains
    offset, scale = (images.new_tensor(value)[:, None, None] for value in (recipe.pixel_offset, recipe.pixel_scale))
    return (images - offset) / scale
