"""Evaluation with ten crops beside the forward passes alone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch

from alexnet2012.benchmark.compare import Figure, compare, compared
from alexnet2012.benchmark.synthetic import prepared_and_files
from alexnet2012.benchmark.training_step import inputs
from alexnet2012.core.threads import cores
from alexnet2012.data import open_dataset
from alexnet2012.data.dataset import spread
from alexnet2012.distributed.layout import open_layout
from alexnet2012.evaluation.evaluate import EvaluationSettings, evaluate, evaluating
from alexnet2012.network import AlexNet

LIMIT = "ten forward passes of the centre crop"
IMAGES = {"cpu": 64, "cuda": 2048}
BATCH = {"cpu": 32, "cuda": 256}


def figures(device: torch.device, data: Path | None = None) -> Iterator[Figure]:
    """The full net in float32: reading, decoding, cutting and counting are what it has more."""
    images, batch = IMAGES[device.type], BATCH[device.type]
    with prepared_and_files(data) as (prepared, _), open_layout("together") as layout:
        dataset = open_dataset(prepared, "train")
        some = spread(dataset, images)
        net = AlexNet(classes=len(dataset.classes)).place([device])
        crops, _ = inputs(batch, device)

        def forward() -> None:
            with evaluating(net):
                for _ in range(10 * images // batch):
                    net(crops)

        candidates = {
            "ours": lambda: evaluate(net, layout, some, EvaluationSettings(10, batch, "dali", cores())),
            LIMIT: forward,
        }
        results = compare(candidates, device, rounds=5, seconds=0)
        yield from compared("evaluate", f"ten crops, {images} images", results, {LIMIT: 0.9}, images)
