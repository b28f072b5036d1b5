"""torchvision's ``alexnet``: the one-tower net of 2014 ("One weird trick"), straight from there.

64, 192, 384, 256 and 256 kernels, no LRN, padding 2 in conv1, dropout before fc6 and fc7 that rescales in training,
PyTorch's own initial weights. Trained as a walk-through of 2024 does ("The Math Behind Deep CNN: AlexNet"): CIFAR-10
at 224 pixels of -1..1, batches of 64, SGD 0.01 with momentum 0.9, learning rate halved on a plateau, early stopping,
80/20 split.
"""

from __future__ import annotations

from functools import partial

from torch import nn

from alexnet2012.network.reference import Definition, d2l
from alexnet2012.network.reference.d2l import Layers
from alexnet2012.network.reference.net import ACTIVATIONS
from alexnet2012.recipe import CLASSES, SWITCHES, Recipe, side_behind

PUBLISHED = {  # our names of the layers with weights, in order, and torchvision's
    **{"conv1": "features.0", "conv2": "features.3", "conv3": "features.6", "conv4": "features.8"},
    **{"conv5": "features.10", "fc6": "classifier.1", "fc7": "classifier.4", "fc8": "classifier.6"},
}


def recipe(net: str = "torchvision") -> Recipe:
    """50 epochs at most (ours): early stopping is to end it. ReduceLROnPlateau's patience of 3 drops at the fourth."""
    return Recipe(
        name=net, net=net, towers=1, optimizer="sgd", batch_size=64, epochs=50, lr=0.01,
        bias_lr=0.01, momentum=0.9, weight_decay=0.0, drop_factor=2.0, plateau_drops=50, plateau_patience=4,
        monitor="loss", min_lr=1e-6,
        image_size=224, crop_size=224, crop_offsets=1, reflect=0.0, color_noise=0.0, mean_subtracted=False,
        pixel_offset=(127.5,), pixel_scale=(127.5,), init="default",
    )  # fmt: skip


def layers(recipe: Recipe, classes: int) -> Layers:
    """torchvision's modules in order, weights drawn as there, its convolutions and matrices named as ours."""
    import torchvision  # only here: it takes a second

    side_behind(recipe.crop_size, (11, 4, 2), (3, 2, 0), (5, 1, 2), (3, 2, 0), (3, 2, 0))  # 3x3 padded by 1 keep it
    net = torchvision.models.alexnet(num_classes=classes, dropout=recipe.dropout)
    names = iter(PUBLISHED)
    for place, module in enumerate([*net.features, net.avgpool, nn.Flatten(), *net.classifier]):
        if isinstance(module, nn.Conv2d | nn.Linear):
            yield next(names), module
        elif isinstance(module, nn.ReLU):
            yield f"activation{place}", ACTIVATIONS[recipe.activation]()
        else:
            yield f"{type(module).__name__.lower()}{place}", module


of_2024 = partial(Definition, schedule="plateau", early_stop=7, val_fraction=0.2)
TORCHVISION = of_2024(recipe, layers, classes=CLASSES, published=PUBLISHED, takes=("activation", "dropout", "init"))
ONE_COLUMN = of_2024(partial(recipe, "one-column"), partial(d2l.layers, padding=2), takes=SWITCHES)
