"""One training step beside torchvision's net and the usual re-implementation, and beside a matrix product."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from alexnet2012.benchmark.compare import Figure, compare, compared
from alexnet2012.benchmark.lrn import their_lrn
from alexnet2012.network import AlexNet
from alexnet2012.network.build import compile_net
from alexnet2012.recipe import Recipe, paper_recipe
from alexnet2012.training.optimizer import in_bfloat16, make_optimizer

PEER, USUAL, LIMIT = "torchvision's alexnet", "the usual re-implementation", "a matrix product of as many operations"
QUARTER = "torchvision's alexnet scaled alike"
BATCHES = {"cpu": (32,), "cuda": (128, 512)}
GOALS = {
    ("cpu", "fp32"): {PEER: 1.0, USUAL: 2.5},
    ("cpu", "bf16"): {PEER: 1.15, QUARTER: 1.0},
    ("cuda", "bf16"): {PEER: 1.0, USUAL: 3.0, QUARTER: 1.0},
}
Step = Callable[[], object]


def figures(device: torch.device) -> Iterator[Figure]:
    """Synthetic images. On CUDA in bfloat16, both nets compiled; on the CPU in float32 and in bfloat16, neither."""
    compiled = device.type == "cuda"
    for (kind, precision), goals in GOALS.items():
        for batch in BATCHES[device.type] if kind == device.type else ():
            candidates = {
                "ours": our_step(batch, device, precision, compiled),
                PEER: torchvision_step(batch, device, precision),
                LIMIT: product(batch, device, precision),
            }
            if USUAL in goals:
                candidates[USUAL] = usual_step(batch, device, precision)
            if compiled:
                candidates["ours, not compiled"] = our_step(batch, device, precision)
            yield from compared(
                "step", f"training, batch {batch}, {precision}", compare(candidates, device), goals, batch
            )
            if QUARTER in goals:
                narrow = {
                    "ours": our_step(batch, device, precision, compiled, 0.25),
                    QUARTER: torchvision_step(batch, device, precision, 0.25),
                }
                what = f"training, batch {batch}, {precision}, width 0.25"
                yield from compared("step", what, compare(narrow, device), goals, batch)


def operations(recipe: Recipe) -> int:
    """Floating point operations to train on one image, forward and backward; a multiply-add is two."""
    with torch.device("meta"), FlopCounterMode(display=False) as counted:
        AlexNet(recipe)(torch.empty(1, 3, recipe.crop_size, recipe.crop_size), step=0).sum().backward()
    return counted.get_total_flops()


def product(batch: int, device: torch.device, precision: str) -> Step:
    """As many operations as a step has, in square matrix products: the device's peak as it can be measured."""
    side = 2048 if device.type == "cpu" else 8192
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    a, b, out = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(3))
    whole, rest = divmod(operations(paper_recipe()) * batch, 2 * side**3)
    rows = round(side * rest / (2 * side**3))

    def multiply() -> None:
        for _ in range(whole):
            torch.mm(a, b, out=out)
        torch.mm(a[:rows], b, out=out[:rows])

    return multiply


def inputs(batch: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Images as the loaders give them, less the mean, and labels."""
    generator = torch.Generator().manual_seed(2012)
    side = paper_recipe().crop_size
    images = 255 * torch.rand(batch, 3, side, side, generator=generator) - 128
    return images.to(device), torch.randint(0, 1000, (batch,), generator=generator).to(device)


def our_step(batch: int, device: torch.device, precision: str, compiled: bool = False, width: float = 1.0) -> Step:
    """The paper's net and rule, both towers in this process."""
    net = AlexNet(paper_recipe(width=width)).place([device])
    optimizer = make_optimizer(net, net.recipe)
    run = compile_net(net, device) if compiled else net
    run = in_bfloat16(run, optimizer) if precision == "bf16" else run
    step = torch.zeros((), dtype=torch.int64, device=device)
    return partial(trained(lambda images: run(images, step), optimizer), *inputs(batch, device))


def torchvision_step(batch: int, device: torch.device, precision: str, width: float = 1.0) -> Step:
    """In the format that suits it, with torch's fused rule; compiled on CUDA."""
    net = scaled_torchvision(width).to(device).to(memory_format=torch.channels_last)
    images, labels = inputs(batch, device)
    run = torch.compile(net) if device.type == "cuda" else net
    images = images.contiguous(memory_format=torch.channels_last) / 128
    return partial(trained(autocast(run, precision), usual_rule(net, fused=True)), images, labels)


def scaled_torchvision(width: float) -> nn.Module:
    """torchvision's net with ``width`` times its kernels and neurons."""
    net = torchvision.models.alexnet()
    for layer in net.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            outputs, inputs, *window = layer.weight.shape
            sizes = (n if n in (3, 1000) else round(n * width) for n in (outputs, inputs))
            layer.weight = nn.Parameter(torch.empty(*sizes, *window).normal_(std=0.01))
            layer.bias = nn.Parameter(torch.zeros(len(layer.weight)))
    return net


def usual_step(batch: int, device: torch.device, precision: str) -> Step:
    """As it is mostly run: eager, contiguous."""
    net = usual_net().to(device)
    images, labels = inputs(batch, device)
    return partial(trained(autocast(net, precision), usual_rule(net)), images / 128, labels)


def usual_rule(net: nn.Module, fused: bool = False) -> torch.optim.Optimizer:
    recipe = paper_recipe()
    decay = recipe.weight_decay
    return torch.optim.SGD(net.parameters(), recipe.lr, recipe.momentum, weight_decay=decay, fused=fused)


def autocast(net: Callable[[Tensor], Tensor], precision: str) -> Callable[[Tensor], Tensor]:
    """``net`` in ``precision``, as torch does it."""

    def forward(images: Tensor) -> Tensor:
        with torch.autocast(images.device.type, torch.bfloat16, enabled=precision == "bf16"):
            return net(images)

    return forward


def trained(net: Callable[[Tensor], Tensor], optimizer: torch.optim.Optimizer) -> Callable[[Tensor, Tensor], None]:
    """A training step on images (n, 3, 224, 224) and labels (n,)."""

    def step(images: Tensor, labels: Tensor) -> None:
        optimizer.zero_grad()
        F.cross_entropy(net(images).float(), labels).backward()
        optimizer.step()

    return step


def usual_net() -> nn.Module:
    """ "AlexNet" as mostly written in PyTorch: one tower of 96/256/384/384/256 kernels, not grouped."""
    lrn, pool = their_lrn, partial(nn.MaxPool2d, 3, 2)
    return nn.Sequential(
        nn.Conv2d(3, 96, 11, 4, 2), nn.ReLU(), lrn(), pool(),
        nn.Conv2d(96, 256, 5, 1, 2), nn.ReLU(), lrn(), pool(),
        nn.Conv2d(256, 384, 3, 1, 1), nn.ReLU(),
        nn.Conv2d(384, 384, 3, 1, 1), nn.ReLU(),
        nn.Conv2d(384, 256, 3, 1, 1), nn.ReLU(), pool(),
        nn.Flatten(),
        nn.Dropout(), nn.Linear(256 * 6 * 6, 4096), nn.ReLU(),
        nn.Dropout(), nn.Linear(4096, 4096), nn.ReLU(),
        nn.Linear(4096, 1000),
    )  # fmt: skip
