"""Checkpoints, predictions and error rates of trained nets, and their export."""

from typing import TYPE_CHECKING

from alexnet2012.core.lazy import lazily

if TYPE_CHECKING:
    from alexnet2012.evaluation import export as export
    from alexnet2012.evaluation.errors import ErrorRates as ErrorRates
else:
    __getattr__, __dir__ = lazily(__name__, {"errors": "ErrorRates"})
