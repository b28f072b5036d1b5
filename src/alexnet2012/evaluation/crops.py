"""The views of a test image (P §4.1): the centre crop, or ten crops."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor

from alexnet2012.data.pixels import scaled
from alexnet2012.recipe import ImageRecipe

CROPS = (1, 10)
CENTRE = {1: 0, 10: 4}  # by number of crops: which of them is the centre one


def crop_offsets(recipe: ImageRecipe, crops: int) -> list[tuple[int, int, bool]]:
    """(top, left, reflected) of each view: the centre; or corners and centre, then their reflections (P §4.1).

    A net trained without crops and reflections has the centre alone.
    """
    edge = recipe.image_size - recipe.crop_size
    centre = (edge // 2, edge // 2)
    if crops == 1 or not recipe.augmented:
        return [(*centre, False)]
    five = [(0, 0), (0, edge), (edge, 0), (edge, edge), centre]
    return [(*offset, reflected) for reflected in (False, True) for offset in five]


def crops_of(images: Tensor, mean: Tensor, recipe: ImageRecipe, crops: int) -> Iterator[Tensor]:
    """Each view of uint8 ``images`` (n, 256, 256, 3): float (n, 3, 224, 224), ready for the net.

    ``mean`` is the mean image (256, 256, 3) on the images' device. Its part under the crop is subtracted and reflected
    with it (P §2); in the ``source`` recipe its central crop, after reflecting (S).
    """
    size, edge = recipe.crop_size, (recipe.image_size - recipe.crop_size) // 2
    pixels, mean = images.permute(0, 3, 1, 2).contiguous().float(), mean.permute(2, 0, 1)
    central = mean[:, edge : edge + size, edge : edge + size]
    if recipe.mean_subtracted and not recipe.mean_central:
        pixels -= mean
    for top, left, reflected in crop_offsets(recipe, crops):
        crop = pixels[:, :, top : top + size, left : left + size]
        crop = crop.flip(3) if reflected else crop
        if not recipe.mean_subtracted:
            yield scaled(crop, recipe)
        else:
            yield crop - central if recipe.mean_central else crop
