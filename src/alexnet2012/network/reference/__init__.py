"""Reference nets, which others teach or published beside AlexNet. Each says what it changed."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from alexnet2012.core.errors import InputError
from alexnet2012.core.lazy import Registry, lazily
from alexnet2012.recipe import SWITCHES, NetworkRecipe, Recipe, current_fields

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
    classes: int = 10  # of the data that its authors train it on
    schedule: str = "constant"
    early_stop: int | None = None  # epochs
    val_fraction: float | None = None  # of the training images
    published: Mapping[str, str] = field(default_factory=dict)  # our names of layers -> its publisher's, for exports
    takes: tuple[str, ...] = ()  # those of ``SWITCHES`` that ``layers`` reads; with "init" its weights are drawn so

    def refuse(self, recipe: Recipe) -> None:
        """Raises InputError for a recipe that wants of the net what it cannot take."""
        own = self.recipe()
        for name in (one.name for one in dataclasses.fields(NetworkRecipe)):
            if name not in self.takes and getattr(recipe, name) != getattr(own, name):
                takes = ", ".join(f"--{switch}" for switch in self.takes)
                raise InputError(
                    f"--net {recipe.net}: its {name.replace('_', ' ')} cannot be changed; it takes {takes}"
                )


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
        "d2l-28": "d2l:D2L_28",
        "one-column": "torchvision:ONE_COLUMN",
        "19pct": "cuda_convnet:NET_19PCT",
        "18pct": "cuda_convnet:NET_18PCT",
    },
)


def recorded_fields(recorded: Mapping[str, Any]) -> dict[str, Any]:
    """``current_fields`` of a run or checkpoint: before there was ``init``, reference nets read no switch but tanh."""
    fields = current_fields(recorded)
    if isinstance(net := fields.get("net"), str) and net in NETS and "init" not in fields:
        own = NETS[net].recipe()
        kept = {"activation"} if fields.get("activation") == "tanh" else set()
        fields |= {name: getattr(own, name) for name in set(SWITCHES) - kept}
    return fields
