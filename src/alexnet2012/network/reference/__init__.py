"""Reference nets, which others teach or published beside AlexNet. Each says what it changed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from alexnet2012.core.lazy import Registry, lazily
from alexnet2012.recipe import Recipe

if TYPE_CHECKING:
    from torch import nn

    from alexnet2012.network.reference.net import ReferenceNet as ReferenceNet
else:
    __getattr__, __dir__ = lazily(__name__, {"net": "ReferenceNet"})


@dataclass(frozen=True)
class Definition:
    """A reference net, and how its authors train it."""

    recipe: Callable[[], Recipe]
    layers: Callable[[Recipe, int], Iterator[tuple[str, nn.Module]]]  # of so many classes, by name
    draw: Callable[[nn.Module], None] | None = None  # initial weights of a module; None: as ``layers`` drew them
    classes: int = 10  # of the data that its authors train it on
    schedule: str = "constant"
    early_stop: int | None = None  # epochs
    val_fraction: float | None = None  # of the training images
    published: Mapping[str, str] = field(default_factory=dict)  # our names of layers -> its publisher's, for exports
    variants: tuple[str, ...] = ()  # those of ``recipe.VARIANTS`` that it has


NETS: Registry[Definition] = Registry(
    __name__,
    {
        "d2l": "d2l:D2L",
        "lenet": "lenet:LENET",
        "lenet-relu": "lenet:LENET_RELU",
        "torchvision": "torchvision:TORCHVISION",
        "conv-local-13pct": "cuda_convnet:CONV_LOCAL_13PCT",
        "conv-local-13pct-lrn": "cuda_convnet:CONV_LOCAL_13PCT_LRN",
        "conv-local-11pct": "cuda_convnet:CONV_LOCAL_11PCT",
        "19pct": "cuda_convnet:NET_19PCT",
        "18pct": "cuda_convnet:NET_18PCT",
    },
)
