"""Where a training step's time goes: a profile by part."""

from __future__ import annotations

import time
from collections import defaultdict

import torch
from torch.profiler import ProfilerActivity, profile, record_function

from alexnet2012.benchmark.loading import BATCH
from alexnet2012.benchmark.training_step import trained
from alexnet2012.core.threads import cores
from alexnet2012.data import TrainingPlan, open_dataset
from alexnet2012.distributed.layout import open_layout
from alexnet2012.network import AlexNet
from alexnet2012.recipe import paper_recipe
from alexnet2012.training import Settings
from alexnet2012.training.batches import TrainingBatches
from alexnet2012.training.optimizer import in_bfloat16, make_optimizer

WARM, STEPS = 3, 5
WAIT = "waiting for data"
REST, IDLE = "everything else", "nothing on the device"
PARTS = {  # the first that an operation's name holds -> its part
    WAIT: WAIT,
    "convolution_backward": "convolutions, backward",
    "convolution": "convolutions, forward",
    "response_norm_backward": "LRN and ReLU, backward",
    "response_norm": "LRN and ReLU, forward",
    "max_pool2d": "pooling, both ways",
    "mm": "fc6 to fc8, both ways",
    "linear": "fc6 to fc8, both ways",
    "Optimizer": "update",
    "copy_": "copies",
    "clone": "copies",
}


def parts_of_step(device: torch.device, precision: str) -> dict[str, float]:
    """Milliseconds of a training step of the full net on the sample, by part, the longest first.

    Of the CPU's threads that run operations, or on CUDA of the device, where what is left of the step is idle.
    """
    recipe, dataset = paper_recipe(batch_size=BATCH[device.type]), open_dataset("sample", "train")
    with open_layout("together") as layout:
        plan = TrainingPlan(recipe, len(dataset), recipe.batch_size, 0, dataset.statistics, recipe.epochs)
        batches = TrainingBatches(layout, dataset, plan, Settings("sample", recipe, workers=cores()), range(plan.steps))
        net = AlexNet(recipe, len(dataset.classes)).place([device])
        optimizer = make_optimizer(net, recipe)
        step = trained(in_bfloat16(net, optimizer) if precision == "bf16" else net, optimizer)
        arriving = iter(batches)

        def run(steps: int) -> float:
            start = time.perf_counter()
            for _ in range(steps):
                with record_function(WAIT):
                    images, labels = next(arriving)
                step(images, labels)
            (torch.cuda.synchronize if device.type == "cuda" else torch.cpu.synchronize)(device)
            return 1000 * (time.perf_counter() - start)

        run(WARM)
        activities = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * (device.type == "cuda")
        with profile(activities=activities) as profiled:
            whole = run(STEPS)
        batches.close()
    milliseconds: dict[str, float] = defaultdict(float)
    for row in profiled.key_averages():
        part = next((part for name, part in PARTS.items() if name in row.key), REST)
        spent = row.self_device_time_total if device.type == "cuda" else row.self_cpu_time_total
        milliseconds[part] += spent / 1000 / STEPS
    if device.type == "cuda":
        milliseconds[IDLE] = max(whole / STEPS - sum(milliseconds.values()), 0.0)
    return dict(sorted(milliseconds.items(), key=lambda part: -part[1]))
