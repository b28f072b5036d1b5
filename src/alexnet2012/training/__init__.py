"""Training: the optimizer, the schedule, the loop, checkpoints."""

from alexnet2012.training.optimizer import PaperSGD
from alexnet2012.training.run import run
from alexnet2012.training.settings import Settings

__all__ = ["PaperSGD", "Settings", "run"]
