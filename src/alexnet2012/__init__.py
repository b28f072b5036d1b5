"""The 2012 AlexNet as it was: two towers, their four meeting points, the paper's recipe."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from alexnet2012.evaluation.model import TrainedAlexNet, load_checkpoint
    from alexnet2012.network import AlexNet, LocalResponseNorm
    from alexnet2012.recipe import Recipe, paper_recipe, source_recipe

__all__ = [
    "AlexNet", "LocalResponseNorm", "Recipe", "TrainedAlexNet", "load_checkpoint", "paper_recipe", "source_recipe",
]  # fmt: skip
ROOMS = {
    "AlexNet": "network",
    "LocalResponseNorm": "network",
    "TrainedAlexNet": "evaluation.model",
    "load_checkpoint": "evaluation.model",
}


def __getattr__(name: str) -> Any:
    """What is used is imported, and no more: flags, and what must come before torch, need no torch."""
    if name in __all__:
        return getattr(import_module(f"alexnet2012.{ROOMS.get(name, 'recipe')}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
