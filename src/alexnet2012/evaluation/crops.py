"""Crops of a test image (paper §4.1): the centre, or ten."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from torch import Tensor

from alexnet2012.data.pixels import less_mean
from alexnet2012.recipe import ImageRecipe

CROPS = (1, 10)


def crop_offsets(recipe: ImageRecipe, crops: int) -> list[tuple[int, int, bool]]:
    """(top, left, reflected) of each crop: the centre, or corners and centre, then their reflections (paper §4.1).

    A net trained without crops and reflections has the centre crop only.
    """
    edge = recipe.image_size - recipe.crop_size
    centre = (edge // 2, edge // 2)
    if crops == 1 or not recipe.augmented:
        return [(*centre, False)]
    five = [(0, 0), (0, edge), (edge, 0), (edge, edge), centre]
    return [(*offset, reflected) for reflected in (False, True) for offset in five]


def crops_of(images: Tensor, mean: Tensor, recipe: ImageRecipe, crops: int) -> Iterator[Tensor]:
    """Yields each crop of uint8 ``images`` (n, 256, 256, 3) as the net's input, float (n, 3, 224, 224).

    ``mean`` is that of ``Statistics.mean_on`` the images' device; it is subtracted as in training.
    """
    pixels, size = images.permute(0, 3, 1, 2).contiguous(), recipe.crop_size
    for top, left, reflected in crop_offsets(recipe, crops):
        crop = pixels[:, :, top : top + size, left : left + size].float()
        crop = crop.flip(3) if reflected else crop
        yield less_mean(crop, np.array([top]), np.array([left]), np.array([reflected]), mean, recipe)
