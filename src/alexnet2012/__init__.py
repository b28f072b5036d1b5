"""The 2012 AlexNet as it was: two towers, their four meeting points, the paper's recipe."""

from typing import TYPE_CHECKING

from alexnet2012.core.lazy import lazily

if TYPE_CHECKING:
    from alexnet2012.evaluation.model import TrainedAlexNet as TrainedAlexNet
    from alexnet2012.evaluation.model import load_checkpoint as load_checkpoint
    from alexnet2012.network import AlexNet as AlexNet
    from alexnet2012.network import LocalResponseNorm as LocalResponseNorm
    from alexnet2012.recipe import Recipe as Recipe
    from alexnet2012.recipe import paper_recipe as paper_recipe
    from alexnet2012.recipe import source_recipe as source_recipe
else:
    __getattr__, __dir__ = lazily(
        __name__,
        {
            "evaluation.model": "TrainedAlexNet load_checkpoint",
            "network": "AlexNet LocalResponseNorm",
            "recipe": "Recipe paper_recipe source_recipe",
        },
    )
