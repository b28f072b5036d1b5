"""How right a net is: crops, error rates, averages."""

from alexnet2012.evaluation.evaluate import ErrorRates, evaluate, probabilities

__all__ = ["ErrorRates", "evaluate", "probabilities"]
