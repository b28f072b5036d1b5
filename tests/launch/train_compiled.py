"""launch/train_imagenet.py whose --compile traces the net and counts its graphs, executed by torch's own operations."""

import functools
import runpy

import torch
from running import TRAIN
from torch._dynamo import lookup_backend

traced: list[object] = []


def counting(graph: object, inputs: object) -> object:
    traced.append(graph)
    return lookup_backend("aot_eager")(graph, inputs)


torch.compile = functools.partial(torch.compile, backend=counting)
try:
    runpy.run_path(str(TRAIN), run_name="__main__")
finally:
    print(f"traced {len(traced)} graphs", flush=True)
