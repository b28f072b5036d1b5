"""The 2012 AlexNet as it was: two towers, their four meeting points, the paper's recipe."""

from typing import TYPE_CHECKING, Any

from alexnet2012.network import AlexNet, LocalResponseNorm
from alexnet2012.recipe import Recipe, paper_recipe, source_recipe

if TYPE_CHECKING:
    from alexnet2012.trained import TrainedAlexNet, load_checkpoint

__all__ = [
    "AlexNet", "LocalResponseNorm", "Recipe", "TrainedAlexNet", "load_checkpoint", "paper_recipe", "source_recipe",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    """What reads checkpoints is imported when it is used: it brings all of training with it."""
    if name in ("TrainedAlexNet", "load_checkpoint"):
        from alexnet2012 import trained

        return getattr(trained, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
