"""launch/train_imagenet.py whose --compile traces the net, a line a graph, executed by torch's own operations."""

import functools
import runpy

import torch
from running import TRAIN
from torch._dynamo import lookup_backend


def tracing(graph: object, inputs: object) -> object:
    print("traced a graph\n", end="", flush=True)
    return lookup_backend("aot_eager")(graph, inputs)


torch.compile = functools.partial(torch.compile, backend=tracing)
runpy.run_path(str(TRAIN), run_name="__main__")
