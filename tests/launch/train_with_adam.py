"""launch/train_imagenet.py with torch's Adam in the place of the paper's rule."""

import functools
import runpy

import torch
from running import TRAIN

from alexnet2012.training.optimizer import OPTIMIZERS

paper = OPTIMIZERS["paper"]
OPTIMIZERS["paper"] = functools.partial(torch.optim.Adam, eps=1e-3)
try:
    runpy.run_path(str(TRAIN), run_name="__main__")
finally:
    OPTIMIZERS["paper"] = paper
