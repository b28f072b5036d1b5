"""The 2012 AlexNet as it was: two towers, their four meeting points, the paper's recipe."""

from alexnet2012.network import AlexNet, LocalResponseNorm
from alexnet2012.recipe import Recipe, paper_recipe, source_recipe

__all__ = ["AlexNet", "LocalResponseNorm", "Recipe", "paper_recipe", "source_recipe"]
