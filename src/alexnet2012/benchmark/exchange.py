"""The exchange between two ranks in a step, beside one gather of as many bytes, and beside a step without it."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor

from alexnet2012.benchmark.compare import Figure, compare, compared
from alexnet2012.benchmark.training_step import Step, inputs, trained
from alexnet2012.distributed.layout import open_layout
from alexnet2012.network import AlexNet
from alexnet2012.network.exchange import Exchange, exchange_between
from alexnet2012.network.summary import describe
from alexnet2012.recipe import paper_recipe
from alexnet2012.training.optimizer import make_optimizer

LIMIT = "one gather of as many bytes"
ALONE = "the same step, towers reading themselves twice"
BATCHES = {"cpu": 32, "cuda": 128}


class Mirror(Exchange):
    """An exchange without communication: a tower reads its own channels in the place of its peer's."""

    def __init__(self, tower: int) -> None:
        self.towers = (tower,)

    def gather_channels(self, outputs: list[Tensor], layer: str) -> list[Tensor]:
        return [torch.cat([x, x], dim=1) for x in outputs]

    def gather_logits(self, outputs: list[Tensor], layer: str, channels: int) -> Tensor:
        return torch.cat(outputs * 2, dim=1)[:, :channels]


def figures(device: torch.device) -> Iterator[Figure]:
    """Of one of two ranks, which call this together, under torchrun."""
    batch = BATCHES[device.type]
    with open_layout("split") as layout:
        exchange, own = exchange_between(layout, 2), layout.devices[0]
        towers = sent(batch, own)
        values = torch.zeros(batch, 2 * sum(x[0].numel() for x in towers), device=own)

        def cross() -> None:
            for x in towers:
                (both,) = exchange.gather_channels([x], "a layer")
                torch.autograd.grad(both, x, both)

        what = f"all exchanges of a step, {values.nbytes / 1e6:.1f} MB each way, batch {batch}"
        gathering = {"ours": cross, LIMIT: lambda: exchange.gather_logits([values], "all", 2 * values.shape[1])}
        gathers = compare(gathering, own, rounds=15, seconds=0)
        steps = {"ours": step(batch, own, exchange), ALONE: step(batch, own, Mirror(layout.tower))}
        waited = compare(steps, own, seconds=0)
        if layout.is_main:
            yield from compared("exchange", what, gathers)
            yield from compared("exchange", f"a training step of a tower a process, batch {batch}", waited)


def sent(batch: int, device: torch.device) -> list[Tensor]:
    """A tower's outputs that its peer reads, (batch, channels, ...) each, in the order of the layers."""
    recipe = paper_recipe()
    shapes = {layer.layer: layer.shapes[-1] for layer in describe(recipe)}
    before = dict(zip(recipe.layers[1:], recipe.layers, strict=False))
    exchanged = [shapes[before[layer]] for layer in recipe.layers if recipe.reads_both_towers(layer)]
    tensors = [torch.rand(batch, *shape, device=device) for shape in exchanged]
    images = [x.contiguous(memory_format=torch.channels_last) if x.dim() == 4 else x for x in tensors]
    return [x.requires_grad_() for x in images]


def step(batch: int, device: torch.device, exchange: Exchange) -> Step:
    net = AlexNet(paper_recipe(), exchange=exchange).place([device])
    return partial(trained(net, make_optimizer(net, net.recipe)), *inputs(batch, device))
