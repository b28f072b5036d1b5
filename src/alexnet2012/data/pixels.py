"""From encoded bytes to pixels, and from crops to the network's input: what both loaders share."""

from __future__ import annotations

import io
import math

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from alexnet2012.data.plan import Augmentations
from alexnet2012.recipe import ImageRecipe

SIDE = ImageRecipe.image_size  # pixels
Places = NDArray[np.int64] | NDArray[np.bool_]
FORMATS = ("JPEG", "PNG")  # what every loader decodes, whatever the file is called


def open_image(encoded: bytes) -> Image.Image:
    """Read the header. Raises an exception of Pillow if it is not whole."""
    try:
        return Image.open(io.BytesIO(encoded), formats=FORMATS)
    except UnidentifiedImageError:
        raise UnidentifiedImageError("cannot identify image file") from None  # Pillow's names the buffer's address


def decode(encoded: bytes, side: int = SIDE) -> NDArray[np.uint8]:
    """Decode strictly to RGB (256, 256, 3): the central square at the resolution where the shorter side is 256 (P §2).

    Reference nets take another ``side``. EXIF orientation is ignored, as in 2012. Raises an exception of
    Pillow for bytes that are no whole image.
    """
    with open_image(encoded) as image:
        colors = _eight_bit(image)
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


def cut(image: NDArray[np.uint8], augmentations: Augmentations, row: int, out: NDArray[np.float32]) -> None:
    """Write the crop of ``image`` (256, 256, 3) for row ``row``, with its noise, into ``out`` (3, 224, 224)."""
    top, left, size = augmentations.top[row], augmentations.left[row], out.shape[-1]
    crop = image[top : top + size, left : left + size]
    crop = crop[:, ::-1] if augmentations.reflect[row] else crop
    np.add(crop.transpose(2, 0, 1), augmentations.noise[row][:, None, None], out=out)


def normalize(images: Tensor, augmentations: Augmentations, mean: Tensor, recipe: ImageRecipe) -> Tensor:
    """Noisy crops, float32 (n, 3, 224, 224), to the network's input: ``less_mean``, over the divisor; in place."""
    images = less_mean(images, augmentations.top, augmentations.left, augmentations.reflect, mean, recipe)
    return images.div_(augmentations.divisor) if augmentations.divisor != 1 else images


def less_mean(images: Tensor, top: Places, left: Places, reflect: Places, mean: Tensor, recipe: ImageRecipe) -> Tensor:
    """Crops, float32 (n, 3, size, size), less the mean image (side, side, 3) on their device; in place.

    ``top``, ``left`` and ``reflect``, (n,) or (1,) for all, say where they were cut and which were reflected.
    ``paper``: the mean's part under the crop, reflected with it (P §2 subtracts before cropping); ``source``: its
    central crop, under every crop (S). A net without a mean image gets what ``scaled`` gives.
    """
    size = images.shape[-1]
    if not recipe.mean_subtracted:
        return scaled(images, recipe)
    if recipe.mean_central:
        edge = (len(mean) - size) // 2
        return images.sub_(mean[edge : edge + size, edge : edge + size].permute(2, 0, 1))
    both = torch.stack([mean, mean.flip(1)]).permute(0, 3, 1, 2).contiguous()
    crops = both.unfold(2, size, 1).unfold(3, size, 1).permute(0, 2, 3, 1, 4, 5)  # reflected, top, left: a view
    places = (reflect.astype(np.int64), top, np.where(reflect, mean.shape[1] - size - left, left))
    return images.sub_(crops[tuple(torch.from_numpy(place).to(mean.device, non_blocking=True) for place in places)])


def scaled(images: Tensor, recipe: ImageRecipe) -> Tensor:
    """RGB pixels (n, 3, h, w) of 0..255 as a net without a mean image reads them: its channels, offset and scale.

    One channel is the luminance (ITU-R BT.601), and of a grey image exactly its grey.
    """
    if recipe.channels == 1:
        red, green, blue = images.split(1, dim=1)
        images = red + 0.587 * (green - red) + 0.114 * (blue - red)  # 0.299 of red remains
    offset, scale = (images.new_tensor(value)[:, None, None] for value in (recipe.pixel_offset, recipe.pixel_scale))
    return (images - offset) / scale
