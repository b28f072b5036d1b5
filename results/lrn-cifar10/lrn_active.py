"""Does LRN do anything in a trained net? python results/lrn-cifar10/lrn_active.py CHECKPOINT --data DATA --json FILE

For each LRN layer, over the centre crops of the test images: the mean of alpha times the window's sum of squares (to be
compared with k, to which it is added), and the factor (k + alpha * sum) ** -beta that multiplies the activations that
are not 0. If LRN were a constant factor, that factor's standard deviation would be 0.
"""

from __future__ import annotations

import argparse
import json
from functools import partial
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from alexnet2012 import load_checkpoint
from alexnet2012.data import evaluation_batches, open_dataset, open_loader
from alexnet2012.evaluation.crops import crops_of
from alexnet2012.network.lrn.layer import LocalResponseNorm


class Moments:
    """Mean, standard deviation and largest of values that arrive in batches."""

    def __init__(self) -> None:
        self.count, self.sum, self.squares, self.largest = 0, 0.0, 0.0, 0.0

    def add(self, values: Tensor) -> None:
        values = values.double()
        self.count += values.numel()
        self.sum += float(values.sum())
        self.squares += float((values**2).sum())
        self.largest = max(self.largest, float(values.max()))

    def found(self) -> dict[str, float]:
        mean = self.sum / self.count
        spread = max(self.squares / self.count - mean**2, 0.0) ** 0.5
        return {"mean": mean, "standard_deviation": spread, "relative": spread / mean, "largest": self.largest}


def note(sums: Moments, factors: Moments, layer: LocalResponseNorm, inputs: tuple[Tensor, ...]) -> None:
    """Add what ``layer`` computes from its input (n, channels, height, width)."""
    (x,), half = inputs, layer.size // 2
    scaled = layer.alpha * F.pad(x.square(), (0, 0, 0, 0, half, half)).unfold(1, layer.size, 1).sum(-1)
    sums.add(scaled)
    factors.add(((layer.k + scaled) ** -layer.beta)[x != 0])


def main() -> None:
    parser = argparse.ArgumentParser(description="How far LRN is from a constant factor in a trained net.")
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--json", type=Path, required=True)
    given = parser.parse_args()
    net = load_checkpoint(given.checkpoint).eval()
    sums: dict[str, Moments] = {}
    factors: dict[str, Moments] = {}
    for name, layer in net.named_modules():
        if isinstance(layer, LocalResponseNorm):
            sums[name], factors[name] = Moments(), Moments()
            layer.register_forward_pre_hook(partial(note, sums[name], factors[name]))
    dataset = open_dataset(str(given.data), "val")
    batches = evaluation_batches(len(dataset), 500, 0, 1)
    loader = open_loader("pillow", dataset, batches, net.recipe, 1, torch.device("cpu"))
    mean = net.statistics.mean_on(torch.device("cpu"))
    with torch.no_grad():
        for images, _ in loader:
            for crop in crops_of(images, mean, net.recipe, 1):
                net(crop)
    loader.close()
    found = {name: {"alpha_sum": sums[name].found(), "factor": factors[name].found()} for name in sums}
    given.json.write_text(json.dumps(found, indent=1) + "\n")
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
