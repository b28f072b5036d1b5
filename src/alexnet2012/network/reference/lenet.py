"""LeNet as Dive into Deep Learning teaches it before AlexNet, and, by its exercise, with ReLU and dropout."""

from __future__ import annotations

from torch import nn

from alexnet2012.network.reference import Definition
from alexnet2012.network.reference.d2l import Layers, book_recipe, draw
from alexnet2012.recipe import Recipe


def recipe() -> Recipe:
    """The book's: SGD 0.1, batches of 128, 10 epochs, 28x28."""
    return book_recipe("lenet", size=28, lr=0.1)


def relu_recipe() -> Recipe:
    """The same training."""
    return book_recipe("lenet-relu", size=28, lr=0.1)


def layers(recipe: Recipe, classes: int) -> Layers:
    """With sigmoids, as the book has it; shapes of one image behind each line."""
    yield "conv1", nn.Conv2d(1, 6, 5, padding=2)
    yield "sigmoid1", nn.Sigmoid()
    yield "pool1", nn.AvgPool2d(2, 2)  # 6x14x14
    yield "conv2", nn.Conv2d(6, 16, 5)
    yield "sigmoid2", nn.Sigmoid()
    yield "pool2", nn.AvgPool2d(2, 2)  # 16x5x5
    yield "flat", nn.Flatten()
    yield "fc6", nn.Linear(400, 120)
    yield "sigmoid6", nn.Sigmoid()
    yield "fc7", nn.Linear(120, 84)
    yield "sigmoid7", nn.Sigmoid()
    yield "fc8", nn.Linear(84, classes)


def relu_layers(recipe: Recipe, classes: int) -> Layers:
    """ReLU in place of every sigmoid, dropout behind fc6 and fc7."""
    for name, module in layers(recipe, classes):
        if not isinstance(module, nn.Sigmoid):
            yield name, module
            continue
        yield name.replace("sigmoid", "relu"), nn.ReLU()
        if name in ("sigmoid6", "sigmoid7"):
            yield name.replace("sigmoid", "dropout"), nn.Dropout(0.5)


LENET = Definition(recipe, layers, draw)
LENET_RELU = Definition(relu_recipe, relu_layers, draw)
