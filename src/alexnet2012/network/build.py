"""The net that a recipe asks for."""

from __future__ import annotations

from typing import cast

from alexnet2012.network.alexnet import AlexNet
from alexnet2012.network.exchange import Exchange
from alexnet2012.network.taught import TaughtNet
from alexnet2012.recipe import Recipe


def build_net(recipe: Recipe, classes: int, seed: int = 0, exchange: Exchange | None = None) -> AlexNet:
    """The 2012 net, or a taught one, which offers all of it that training and evaluation use."""
    if recipe.net == "2012":
        return AlexNet(recipe, classes, seed, exchange)
    return cast(AlexNet, TaughtNet(recipe, classes, seed))
