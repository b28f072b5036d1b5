"""launch/train_imagenet.py whose --compile traces the net but has torch's own operations execute the graphs."""

import functools
import runpy

import torch
from running import TRAIN

torch.compile = functools.partial(torch.compile, backend="aot_eager")
runpy.run_path(str(TRAIN), run_name="__main__")
