"""launch/train_imagenet.py with work that outlasts --collective-timeout: rank 1's second gradient, rank 0's figures."""

import importlib
import itertools
import os
import runpy
import time

import torch.nn.functional
from running import TRAIN
from torch import Tensor

from alexnet2012.distributed import heartbeat as liveness

SLOW = 6.0  # seconds; with --collective-timeout 2 and the silence below a wrongly timed rank has long been lost
liveness.SILENCE = 2.0
cross_entropy, calls = torch.nn.functional.cross_entropy, itertools.count(1)


def slow_once(*arguments: Tensor) -> Tensor:
    loss = cross_entropy(*arguments)
    if os.environ["RANK"] == "1" and next(calls) == 2:
        loss.register_hook(lambda gradient: time.sleep(SLOW))
    return loss


torch.nn.functional.cross_entropy = slow_once  # type: ignore[assignment]
importlib.import_module("alexnet2012.reporting.figures.gallery").save_figures = lambda *arguments: time.sleep(SLOW)
runpy.run_path(str(TRAIN), run_name="__main__")
