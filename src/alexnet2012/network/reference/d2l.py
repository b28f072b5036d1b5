"""Dive into Deep Learning's AlexNet, for Fashion-MNIST.

Of the 2012 net it keeps the kernels and neurons. It has one tower, so conv2, conv4 and conv5 read all maps; no LRN;
padding 1 in conv1, so 54 outputs instead of 55 and 5x5 before fc6 instead of 6x6; dropout that rescales in training;
Xavier's initial weights; one channel of scale 0..1; plain gradient descent without momentum, decay or augmentation.
"""

from __future__ import annotations

from collections.abc import Iterator

from torch import nn

from alexnet2012.network.reference import Definition
from alexnet2012.recipe import Recipe

Layers = Iterator[tuple[str, nn.Module]]


def recipe() -> Recipe:
    """The book's: SGD 0.01, batches of 128, 10 epochs, 28x28 resized to 224."""
    return book_recipe("d2l", size=224, lr=0.01)


def book_recipe(net: str, size: int, lr: float) -> Recipe:
    """What the book's nets share: grey images of ``size`` pixels in 0..1, as they are; SGD without more."""
    return Recipe(
        name=net, net=net, towers=1, optimizer="sgd", batch_size=128, epochs=10, lr=lr, bias_lr=lr,
        momentum=0.0, weight_decay=0.0, image_size=size, crop_size=size, crop_offsets=1, reflect=0.0, color_noise=0.0,
        channels=1, mean_subtracted=False, pixel_offset=(0.0,), pixel_scale=(255.0,),
    )  # fmt: skip


def layers(recipe: Recipe, classes: int) -> Layers:
    """Shapes of one image behind each line."""
    yield "conv1", nn.Conv2d(1, 96, 11, stride=4, padding=1)
    yield "relu1", nn.ReLU()
    yield "pool1", nn.MaxPool2d(3, 2)  # 96x26x26
    yield "conv2", nn.Conv2d(96, 256, 5, padding=2)
    yield "relu2", nn.ReLU()
    yield "pool2", nn.MaxPool2d(3, 2)  # 256x12x12
    yield "conv3", nn.Conv2d(256, 384, 3, padding=1)
    yield "relu3", nn.ReLU()
    yield "conv4", nn.Conv2d(384, 384, 3, padding=1)
    yield "relu4", nn.ReLU()
    yield "conv5", nn.Conv2d(384, 256, 3, padding=1)
    yield "relu5", nn.ReLU()
    yield "pool5", nn.MaxPool2d(3, 2)  # 256x5x5
    yield "flat", nn.Flatten()
    yield "fc6", nn.Linear(6400, 4096)
    yield "relu6", nn.ReLU()
    yield "dropout6", nn.Dropout(0.5)
    yield "fc7", nn.Linear(4096, 4096)
    yield "relu7", nn.ReLU()
    yield "dropout7", nn.Dropout(0.5)
    yield "fc8", nn.Linear(4096, classes)


def draw(module: nn.Module) -> None:
    """Xavier's weights; biases as PyTorch draws them."""
    if isinstance(module, nn.Conv2d | nn.Linear):
        nn.init.xavier_uniform_(module.weight)


D2L = Definition(recipe, layers, draw)
