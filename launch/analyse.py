"""Memory, operations and bandwidth of a net: python launch/analyse.py --net d2l --batch-size 128"""

from __future__ import annotations

from argparse import ArgumentTypeError, Namespace
from functools import partial
from typing import TYPE_CHECKING

from alexnet2012 import benchmark, distributed, network, reporting, training
from alexnet2012.core.atomic_files import write_output
from alexnet2012.core.command_line import Parser, main, output_file
from alexnet2012.core.errors import InputError
from alexnet2012.core.messages import say
from alexnet2012.network.reference import NETS
from alexnet2012.recipe import CLASSES, Recipe, paper_recipe

if TYPE_CHECKING:
    from collections.abc import Sequence

    from alexnet2012.network.costs import Cost, Device
    from alexnet2012.network.summary import LayerNumbers

STEPS = 5  # timed


def flags() -> Parser:
    parser = Parser(
        "Print a net's layers, parameters, operations, memory and bytes moved, and the least time for them."
    )
    add = parser.add_argument
    add("--net", default="2012", choices=("2012", *NETS), metavar="NET", help=f"or a reference net: {', '.join(NETS)}")
    add(
        "--batch-size",
        type=batch_sizes,
        default="128",
        metavar="B[,B...]",
        help="images at a time, in one or more sizes",
    )
    add("--classes", type=int, help="(default: 1000, or 10 for nets that are trained on ten)")
    add("--tflops", type=float, help="peak of a device of yours; needs --gbps (default: GTX 580, A100 and H100)")
    add("--gbps", type=float, help="its memory's bandwidth in GB/s")
    add("--figure", type=output_file, metavar="FILE", help="draw the roofline (PNG)")
    add("--measure", action="store_true", help="also train on synthetic images here: images/s and peak memory")
    return parser


def batch_sizes(text: str) -> list[int]:
    if not all(size.isdecimal() and 0 < int(size) < 10**6 for size in text.split(",")):
        raise ArgumentTypeError(f"{text}: must be whole numbers from 1, with commas between")
    return [int(size) for size in text.split(",")]


def run(given: Namespace) -> None:
    own = [number for number in (given.tflops, given.gbps) if number is not None]
    if len(own) == 1 or not all(number > 0 for number in own):
        raise InputError("--tflops and --gbps: each needs the other, both above 0")
    if given.classes is not None and given.classes < 2:
        raise InputError(f"--classes {given.classes}: must be at least 2")
    recipe = NETS[given.net].recipe() if given.net in NETS else paper_recipe()
    classes = given.classes or (NETS[given.net].classes if given.net in NETS else CLASSES)
    costs = network.costs
    devices = list(costs.DEVICES.values())
    if own:
        devices = [costs.Device("the device", given.tflops * 1e12, given.gbps * 1e9)]
    layers = network.summary.describe(recipe, classes)
    print(*costs.output_lines(recipe, classes), sep="\n")
    print_net(layers)
    for batch in given.batch_size:
        phases = print_batch(layers, recipe, classes, batch, devices)
    if given.figure:
        figure = reporting.figures.roofline.draw_roofline(phases, devices)
        with write_output(given.figure) as written:
            figure.savefig(written, format="png")
        say(f"{given.figure}: the roofline, batch {given.batch_size[-1]}")
    if given.measure:
        for batch in given.batch_size:
            measure(recipe, classes, batch)


def print_net(layers: Sequence[LayerNumbers]) -> None:
    """Parameters and operations, in convolutions and in the fully connected layers."""

    def shares(name: str) -> tuple[int, str]:
        parts = [0, 0]
        for one in layers:
            parts[one.layer.startswith("fc")] += getattr(one, name)
        percent = [100 * part / sum(parts) for part in parts]
        return sum(parts), f"convolutions {percent[0]:.1f} %, fully connected {percent[1]:.1f} %"

    parameters, of_parameters = shares("parameters")
    multiply_adds, of_operations = shares("multiply_adds")
    backward = sum(one.operations for one in network.costs.training(layers, 1, False)) - 2 * multiply_adds
    print(f"parameters   {parameters:,}, {4 * parameters / 1e6:,.1f} MB in float32: {of_parameters}")
    print(f"operations   an image, forward {2 * multiply_adds / 1e6:,.1f} MFLOP: {of_operations};", end=" ")
    print(f"backward {backward / 1e6:,.1f} MFLOP")


def print_batch(
    layers: Sequence[LayerNumbers], recipe: Recipe, classes: int, batch: int, devices: Sequence[Device]
) -> dict[str, Sequence[Cost]]:
    """Memory, traffic and least times of a batch."""
    costs, velocities = network.costs, recipe.momentum > 0
    say(f"batch {batch}")
    print_memory("training keeps", layers, batch, velocities)
    if recipe.towers == 2:
        print_memory("a device of two", costs.describe_tower(recipe, classes), batch, velocities)
    phases: dict[str, Sequence[Cost]] = {
        "inference": costs.inference(layers, batch), "training": costs.training(layers, batch, velocities)
    }  # fmt: skip
    for name, each in phases.items():
        operations, moved = sum(cost.operations for cost in each), sum(cost.moved for cost in each)
        print(f"  {name:15} {operations / 1e9:,.1f} GFLOP, {moved / 1e6:,.0f} MB moved:", end=" ")
        print(f"{operations / moved:.1f} FLOP a byte; at least", end=" ")
        times = {device.name: sum(cost.seconds(device) for cost in each) for device in devices}
        print(*(f"{1000 * s:,.2f} ms on {device} ({batch / s:,.0f}/s)" for device, s in times.items()), sep=", ")
    return {name: [cost for cost in each if cost.operations] for name, each in phases.items()}


def print_memory(title: str, layers: Sequence[LayerNumbers], batch: int, velocities: bool) -> None:
    state = network.costs.state_bytes(layers, velocities)
    kept = batch * sum(one.kept for one in layers)
    of_state = "weights, gradients and velocities" if velocities else "weights and gradients"
    print(f"  {title:15} {(state + kept) / 1e6:,.0f} MB: {of_state} {state / 1e6:,.0f},", end=" ")
    print(f"activations for the gradient {kept / 1e6:,.0f}")


def measure(recipe: Recipe, classes: int, batch: int) -> None:
    """Train on synthetic images, as training computes, on one device; the first step is not timed."""
    import torch

    compare = benchmark.compare
    with distributed.layout.open_layout(towers=1) as layout:
        device = layout.devices[0]
        before = compare.forget_peak(device)
        net = network.build.build_net(recipe, classes).place([device])
        optimizer = training.optimizer.make_optimizer(net, recipe)
        images = torch.randn(batch, recipe.channels, recipe.crop_size, recipe.crop_size, device=device)
        labels = torch.arange(batch, device=device) % classes
        step = partial(benchmark.training_step.trained(net, optimizer), images, labels)
        step()
        speed = STEPS * batch / compare.timed(step, STEPS, device)
        megabytes = (compare.peak(device) - before) / 1e6
        say(f"batch {batch} here, on {device}: {speed:,.1f} images/s, peak {megabytes:,.0f} MB")


if __name__ == "__main__":
    main(lambda: flags().parse_args(), run)
