"""How right a net is: crops, error rates, averages."""

from alexnet2012.evaluation.errors import ErrorRates
from alexnet2012.evaluation.evaluate import evaluate

__all__ = ["ErrorRates", "evaluate"]
