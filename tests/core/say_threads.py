"""Says how many threads each process of a layout takes, on a machine of eight cores."""

import os

import torch

from alexnet2012.distributed.layout import open_layout

os.sched_getaffinity = lambda process: set(range(8))
with open_layout() as layout:
    assert layout.threads == torch.get_num_threads()
    print(f"rank {layout.rank}: {layout.threads} threads\n", end="", flush=True)
