"""Ablation studies: every variant of the base net trained with everything else equal."""

from alexnet2012.core.lazy import lazily
from alexnet2012.recipe import VARIANTS

BASE = "base"
ALL = (BASE, *VARIANTS)  # in the order of the table

__getattr__, __dir__ = lazily(__name__)
