import dataclasses
import io
import math
import warnings

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from alexnet2012.data import pixels_native
from alexnet2012.data.dataset import load
from alexnet2012.data.datasets import ArrayDataset
from alexnet2012.data.pixels import central_square, cut, decode, normalize, pnm, pnm_pixels, scaled
from alexnet2012.data.plan import Augmentations
from alexnet2012.data.statistics import Statistics
from alexnet2012.network.reference import NETS
from alexnet2012.recipe import paper_recipe, source_recipe

DRAWS = np.random.default_rng(0)


def noise(width: int, height: int) -> Image.Image:
    return Image.fromarray(DRAWS.integers(0, 256, (height, width, 3), dtype=np.uint8))


def encoded(image: Image.Image, kind: str = "PNG", **settings) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **settings)
    return file.getvalue()


def views(count: int, divisor: float = 1.0) -> Augmentations:
    """Odd rows are reflected."""
    top, left = DRAWS.integers(0, 33, (2, count))
    shift = DRAWS.normal(0, 9, (count, 3)).astype(np.float32)
    return Augmentations(
        np.arange(count), top, left, np.arange(count) % 2 == 1, shift, np.zeros((count, 4), np.int64), divisor
    )


def triangle(side: int, scaled: int, first: int) -> NDArray[np.float64]:
    """(256, side): the weights of bilinear resizing to ``scaled``, rows ``first`` on; edges are repeated."""
    matrix, width = np.zeros((256, side)), max(1.0, side / scaled)
    for row in range(256):
        centre = (first + row + 0.5) * side / scaled - 0.5
        for tap in range(math.floor(centre - width), math.ceil(centre + width) + 1):
            matrix[row, min(max(tap, 0), side - 1)] += max(0.0, 1 - abs(tap - centre) / width)
    return matrix / matrix.sum(1, keepdims=True)


def test_a_square_of_256_passes_untouched():
    image = noise(256, 256)
    assert np.array_equal(decode(encoded(image)), np.asarray(image))


@pytest.mark.parametrize("size", [(500, 375), (333, 500), (769, 512), (28, 28), (100, 133), (256, 301), (257, 2000)])
def test_the_shorter_side_becomes_256_and_the_centre_is_cut(size):
    image, shorter = noise(*size), min(size)
    weights = [triangle(side, scaled := math.floor(side * 256 / shorter + 0.5), (scaled - 256) // 2) for side in size]
    expected = np.einsum("yh,hwc,xw->yxc", weights[1], np.asarray(image, np.float64), weights[0], optimize=True)
    assert np.abs(decode(encoded(image)) - expected).max() < 1.5  # Pillow rounds after each of two passes


def test_the_central_square_lies_inside_whatever_the_shape():
    for width in (1, 2, 255, 256, 257, 4768):
        for height in (1, 3, 256, 301, 5980, 100_000):
            left, top, right, bottom = central_square(width, height)
            assert 0 <= left < right <= width + 1e-9 and 0 <= top < bottom <= height + 1e-9
            assert (right - left if width <= height else bottom - top) == min(width, height)


def test_every_kind_of_file_becomes_rgb():
    image = noise(256, 256)
    turned = Image.Exif()
    turned[0x112] = 6  # orientation: shown turned by 90 degrees
    grey = np.repeat(np.asarray(image.convert("L"))[..., None], 3, axis=2)
    plain = decode(encoded(image, "JPEG"))
    assert np.array_equal(decode(encoded(image, "JPEG", exif=turned)), plain)
    assert np.array_equal(decode(encoded(image, "JPEG", progressive=True)), plain)
    assert np.array_equal(decode(encoded(image.convert("L"))), grey)
    assert np.array_equal(decode(encoded(image.convert("RGBA"))), np.asarray(image))
    cmyk = np.asarray(image.convert("CMYK").convert("RGB"), np.int64)
    assert np.abs(decode(encoded(image.convert("CMYK"), "JPEG", quality=100)) - cmyk).mean() < 3
    palette = image.resize((16, 16)).resize((256, 256), Image.Resampling.NEAREST).quantize(64)
    expected = np.asarray(palette.convert("RGB"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.array_equal(decode(encoded(palette, transparency=bytes(range(64)))), expected)
    deep = Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257)
    assert np.array_equal(decode(encoded(deep)), grey)


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_a_truncated_file_is_refused(kind):
    whole = encoded(noise(64, 64), kind)
    for size in (0, 1, 20, len(whole) // 2, len(whole) - 100):
        with pytest.raises(Exception, match=r"truncated|no JPEG|Truncated|broken"):
            decode(whole[:size])


def test_other_formats_are_refused_since_dali_would():
    with pytest.raises(OSError, match="no JPEG or PNG file"):
        decode(encoded(Image.new("L", (64, 64)), "GIF"))


def mean_image() -> NDArray[np.float32]:
    return DRAWS.uniform(0, 255, (256, 256, 3)).astype(np.float32)


def statistics(mean: NDArray[np.float32]) -> Statistics:
    return dataclasses.replace(Statistics.none(), mean=mean)


@pytest.fixture(params=["C++", "numpy"])
def _both_ways(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a machine without a compiler does too."""
    if request.param == "numpy":
        monkeypatch.setattr(pixels_native, "library", lambda: None)


@pytest.mark.usefixtures("_both_ways")
@pytest.mark.parametrize("divisor", [1.0, 1.1])
def test_the_papers_mean_lies_under_the_crop_and_is_reflected_with_it(divisor):
    image, mean, given = np.asarray(noise(256, 256)), mean_image(), views(5, divisor)
    out = torch.empty(5, 224, 224, 3, dtype=torch.uint8)
    for row in range(5):
        cut(image, given, row, out[row].numpy())
    normalized = normalize(out, given, statistics(mean).mean_on("cpu"), paper_recipe())
    assert normalized.is_contiguous(memory_format=torch.channels_last) and normalized.dtype == torch.float32
    for row in range(5):
        less = (image + given.noise[row] - mean)[given.top[row] :, given.left[row] :][:224, :224] / divisor
        expected = less[:, ::-1] if given.reflect[row] else less
        assert np.array_equal(normalized[row].permute(1, 2, 0).numpy(), expected.astype(np.float32))


@pytest.mark.parametrize("size", [28, 5, 6, 1])
def test_crops_of_any_size_are_reflected_whole(size):
    image, out = np.asarray(noise(32, 30)), np.full((3, size, size, 3), 7, np.uint8)
    given = dataclasses.replace(views(2), top=np.array([2, 1]), left=np.array([0, 4]))
    for row in range(2):
        cut(image, given, row, out[row])
    assert np.array_equal(out[0], image[2 : 2 + size, :size])
    assert np.array_equal(out[1], image[1 : 1 + size, 4 : 4 + size][:, ::-1]) and (out[2] == 7).all()


@pytest.mark.usefixtures("_both_ways")
def test_the_sources_mean_is_its_centre_whatever_the_crop():
    mean = mean_image()
    black, given = torch.zeros(4, 224, 224, 3, dtype=torch.uint8), views(4)
    normalized = normalize(black, given, statistics(mean).mean_on("cpu"), source_recipe())
    for crop, shift in zip(normalized, given.noise, strict=True):
        assert np.array_equal(crop.permute(1, 2, 0).numpy(), shift - mean[16:240, 16:240])


@pytest.mark.parametrize("shape", [(40, 30, 3), (30, 40)])
def test_pixels_behind_a_header_are_what_pillow_reads_and_nothing_shorter(shape):
    pixels = DRAWS.integers(0, 256, shape, dtype=np.uint8)
    file = pnm(pixels)
    with Image.open(io.BytesIO(file)) as image:
        assert np.array_equal(np.asarray(image), pixels)
    found = pnm_pixels(file)
    assert found is not None and np.array_equal(found, pixels)
    assert np.array_equal(decode(file), decode(encoded(Image.fromarray(pixels))))
    for broken in (file[:-1], file + b"x", file[:9], file.replace(b"255", b"127", 1), b"P6\n0 0\n255\n"):
        with pytest.raises(OSError, match="no JPEG or PNG file"):
            decode(broken)


def test_small_images_are_decoded_once_and_larger_ones_are_not_held(monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = DRAWS.integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)
    dataset = ArrayDataset(pixels, np.array([2, 0, 1]), ["a", "b", "c"], "memory", None)
    read: list[int] = []
    encoded = ArrayDataset.encoded
    monkeypatch.setattr(ArrayDataset, "encoded", lambda self, index: read.append(index) or encoded(self, index))
    for _ in range(2):
        for index in (1, 2):
            found, label = load(dataset, index, 32)
            assert np.array_equal(found, pixels[index]) and label == [2, 0, 1][index]
    assert load(dataset.with_statistics(Statistics.none()), 1, 32)[1] == 0 and read == [1, 2]
    for _ in range(2):
        assert load(dataset, 1, 96)[0].shape == (96, 96, 3)
    assert read == [1, 2, 1, 1]


def test_one_channel_is_the_luminance_and_of_grey_exactly_the_grey() -> None:
    recipe = NETS["lenet"].recipe()
    colors = torch.tensor([[200.0, 30, 90], [77, 77, 77]]).reshape(2, 3, 1, 1)
    colored, grey = scaled(colors, recipe).flatten().tolist()
    assert colored == pytest.approx((0.299 * 200 + 0.587 * 30 + 0.114 * 90) / 255)
    assert grey == np.float32(77) / np.float32(255)
