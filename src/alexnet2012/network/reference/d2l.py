"""Dive into Deep Learning's AlexNet, for Fashion-MNIST.

Of the 2012 net it keeps the kernels and neurons. It has one tower, so conv2, conv4 and conv5 read all maps; no LRN;
padding 1 in conv1, so 54 outputs instead of 55 and 5x5 before fc6 instead of 6x6; dropout that rescales in training;
Xavier's initial weights; one channel of scale 0..1; plain gradient descent without momentum, decay or augmentation.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from torch import nn

from alexnet2012.network.reference import Definition
from alexnet2012.network.reference.net import ACTIVATIONS
from alexnet2012.recipe import SWITCHES, Recipe, side_behind

Layers = Iterator[tuple[str, nn.Module]]


def recipe() -> Recipe:
    """The book's: SGD 0.01, batches of 128, 10 epochs, 28x28 resized to 224."""
    return book_recipe("d2l", size=224, lr=0.01)


def book_recipe(net: str, size: int, lr: float) -> Recipe:
    """What the book's nets share: grey images of ``size`` pixels in 0..1, as they are; SGD without more; Xavier."""
    return Recipe(
        name=net, net=net, towers=1, optimizer="sgd", batch_size=128, epochs=10, lr=lr, bias_lr=lr,
        momentum=0.0, weight_decay=0.0, image_size=size, crop_size=size, crop_offsets=1, reflect=0.0, color_noise=0.0,
        channels=1, mean_subtracted=False, pixel_offset=(0.0,), pixel_scale=(255.0,), init="xavier",
    )  # fmt: skip


def layers(recipe: Recipe, classes: int, padding: int = 1) -> Layers:
    """Shapes of one image of 224 pixels behind each line, at full width and ``padding`` 1 of conv1."""
    side = side_behind(
        recipe.crop_size, (11, 4, padding), (3, 2, 0), (5, 1, 2), (3, 2, 0), (3, 1, 1), (3, 1, 1), (3, 1, 1), (3, 2, 0)
    )
    a, b, c, d, e, neurons = (scaled(count, recipe) for count in (96, 256, 384, 384, 256, 4096))
    activation = ACTIVATIONS[recipe.activation]
    yield "conv1", nn.Conv2d(recipe.channels, a, 11, stride=4, padding=padding)
    yield "activation1", activation()
    yield "pool1", nn.MaxPool2d(3, 2)  # 96x26x26
    yield "conv2", nn.Conv2d(a, b, 5, padding=2)
    yield "activation2", activation()
    yield "pool2", nn.MaxPool2d(3, 2)  # 256x12x12
    yield "conv3", nn.Conv2d(b, c, 3, padding=1)
    yield "activation3", activation()
    yield "conv4", nn.Conv2d(c, d, 3, padding=1)
    yield "activation4", activation()
    yield "conv5", nn.Conv2d(d, e, 3, padding=1)
    yield "activation5", activation()
    yield "pool5", nn.MaxPool2d(3, 2)  # 256x5x5
    yield "flat", nn.Flatten()
    yield from fully_connected(recipe, classes, e * side**2, neurons, neurons)


def fully_connected(recipe: Recipe, classes: int, inputs: int, *neurons: int) -> Layers:
    """fc6 and further ones, each with activation and dropout, and the classifier."""
    for number, outputs in enumerate(neurons, 6):
        yield f"fc{number}", nn.Linear(inputs, outputs)
        yield f"activation{number}", ACTIVATIONS[recipe.activation]()
        if recipe.dropout:
            yield f"dropout{number}", nn.Dropout(recipe.dropout)
        inputs = outputs
    yield "fc8", nn.Linear(inputs, classes)


def scaled(count: int, recipe: Recipe) -> int:
    """So many kernels or neurons at the recipe's width."""
    return max(1, round(count * recipe.width))


def recipe_28() -> Recipe:
    """Ours: momentum, He's weights, ten epochs of falling learning rate."""
    book = book_recipe("d2l-28", size=28, lr=0.05)
    return dataclasses.replace(book, momentum=0.9, init="he", dropout=0.5)


def layers_28(recipe: Recipe, classes: int) -> Layers:
    """The book's exercise: a net for images of 28 pixels as they are; shapes of one image behind each line."""
    side = side_behind(recipe.crop_size, (3, 1, 1), (2, 2, 0), (3, 1, 1), (2, 2, 0))
    a, b, neurons = (scaled(count, recipe) for count in (32, 64, 128))
    activation = ACTIVATIONS[recipe.activation]
    yield "conv1", nn.Conv2d(recipe.channels, a, 3, padding=1)
    yield "activation1", activation()
    yield "pool1", nn.MaxPool2d(2, 2)  # 32x14x14
    yield "conv2", nn.Conv2d(a, b, 3, padding=1)
    yield "activation2", activation()
    yield "pool2", nn.MaxPool2d(2, 2)  # 64x7x7
    yield "flat", nn.Flatten()
    yield from fully_connected(recipe, classes, b * side**2, neurons)


D2L = Definition(recipe, layers, takes=SWITCHES)
D2L_28 = Definition(recipe_28, layers_28, schedule="cosine", takes=SWITCHES)
