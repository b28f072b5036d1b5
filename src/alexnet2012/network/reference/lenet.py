"""LeNet as Dive into Deep Learning teaches it before AlexNet, and, by its exercise, with ReLU and dropout."""

from __future__ import annotations

import dataclasses

from torch import nn

from alexnet2012.network.reference import Definition
from alexnet2012.network.reference.d2l import Layers, book_recipe, fully_connected, scaled
from alexnet2012.network.reference.net import ACTIVATIONS
from alexnet2012.recipe import SWITCHES, Recipe, side_behind


def recipe(net: str = "lenet") -> Recipe:
    """The book's: SGD 0.1, batches of 128, 10 epochs, 28x28."""
    return dataclasses.replace(book_recipe(net, size=28, lr=0.1), activation="sigmoid", dropout=0.0)


def relu_recipe() -> Recipe:
    """The same training, ReLU in place of every sigmoid, dropout behind fc6 and fc7."""
    return dataclasses.replace(recipe("lenet-relu"), activation="relu", dropout=0.5)


def layers(recipe: Recipe, classes: int) -> Layers:
    """Shapes of one image of 28 pixels behind each line, at full width."""
    side = side_behind(recipe.crop_size, (5, 1, 2), (2, 2, 0), (5, 1, 0), (2, 2, 0))
    a, b, *neurons = (scaled(count, recipe) for count in (6, 16, 120, 84))
    activation = ACTIVATIONS[recipe.activation]
    yield "conv1", nn.Conv2d(recipe.channels, a, 5, padding=2)
    yield "activation1", activation()
    yield "pool1", nn.AvgPool2d(2, 2)  # 6x14x14
    yield "conv2", nn.Conv2d(a, b, 5)
    yield "activation2", activation()
    yield "pool2", nn.AvgPool2d(2, 2)  # 16x5x5
    yield "flat", nn.Flatten()
    yield from fully_connected(recipe, classes, b * side**2, *neurons)


LENET = Definition(recipe, layers, takes=SWITCHES)
LENET_RELU = Definition(relu_recipe, layers, takes=SWITCHES)
