"""Error rates of checkpoints, as in 2012: python launch/evaluate.py CHECKPOINT --data DATA --crops 10"""

from __future__ import annotations

import alexnet2012.core.openmp  # noqa: F401  (before torch)

# isort: split
import json
from argparse import Namespace
from pathlib import Path

from alexnet2012.core.atomic_files import write_output
from alexnet2012.core.command_line import Parser, alike, loader, main
from alexnet2012.core.errors import InputError
from alexnet2012.data import open_dataset
from alexnet2012.distributed.collectives import broadcast_from_main
from alexnet2012.distributed.layout import Layout, default_placement, naming_lost_ranks, open_layout
from alexnet2012.evaluation.crops import CROPS
from alexnet2012.evaluation.ensemble import Assessment, assess, assess_kept, checked_weights
from alexnet2012.evaluation.evaluate import EvaluationSettings
from alexnet2012.evaluation.model import TrainedAlexNet, load_checkpoint
from alexnet2012.evaluation.predictions import load_alike, write_per_class
from alexnet2012.network.exchange import exchange_between
from alexnet2012.reporting.error_table import summary, table
from outputs import output_file, progress, refuse_overwriting

OF_CHECKPOINTS = (  # flags
    "data", "split", "crops", "batch_size", "loader", "workers", "threads", "placement", "centre_predictions"
)  # fmt: skip


def flags() -> Parser:
    parser = Parser("Errors and loss of one checkpoint, or of several and of their averaged softmax outputs.")
    add = parser.add_argument
    add("checkpoints", nargs="*", type=Path, metavar="CHECKPOINT")
    add("--average", nargs="+", type=Path, metavar="FILE", help="average predictions kept in files instead")
    add("--weights", nargs="+", type=float, metavar="WEIGHT", help="of each in the average (default: equal)")
    add("--data", default="data/imagenet", help="a directory, sample, fashion-mnist or cifar10")
    add("--split", default="val", choices=("val", "train"))
    add("--crops", type=int, default=1, choices=CROPS, help="the centre crop, or ten crops (P §4.1)")
    add("--json", type=output_file, metavar="FILE", help="write the errors")
    add("--predictions", type=output_file, metavar="FILE", help="keep the (averaged) softmax outputs, an npz")
    add("--centre-predictions", type=output_file, metavar="FILE", help="the same of the centre crop alone")
    add(
        "--per-class",
        type=output_file,
        metavar="FILE",
        help="write errors and commonest confusion of each class, a CSV",
    )
    add("--batch-size", type=int, default=128, help="images at a time over all processes")
    add("--loader", type=loader, default="dali", choices=("dali", "pillow"))
    add("--workers", type=int, default=2, help="decoding threads a process")
    add("--threads", type=int, help="CPU threads a process (default: OMP_NUM_THREADS, else its share of the cores)")
    add(
        "--placement",
        choices=("split", "together"),
        help="a tower a process, or both in each (default: split, together for a net of one tower)",
    )
    return parser


def arguments() -> Namespace:
    """The flags, as far as they can be checked without files."""
    parser = flags()
    given = parser.parse_args()
    if bool(given.checkpoints) == bool(given.average):
        raise InputError("give either checkpoints or --average FILES; see evaluate.py --help")
    idle = [name for name in OF_CHECKPOINTS if given.average and getattr(given, name) != parser.get_default(name)]
    if idle:
        raise InputError(
            f"--{idle[0].replace('_', '-')}: says nothing to --average, whose files hold what the nets said"
        )
    if min(given.batch_size, given.workers, given.threads or 1) < 1:
        raise InputError("--batch-size, --workers and --threads: must be at least 1")
    outputs = (given.json, given.predictions, given.centre_predictions, given.per_class)
    refuse_overwriting(outputs, given.average or given.checkpoints)
    given.weights = checked_weights(given.weights, len(given.average or given.checkpoints))
    return given


def run(given: Namespace) -> None:
    towers = alike(lambda: [load_checkpoint(path, "cpu").recipe.towers for path in given.checkpoints]) or [2]
    placement = given.placement or default_placement(min(towers))
    with open_layout(placement, max(towers), threads=given.threads) as layout:
        if given.average:
            broadcast_from_main(layout, lambda: report(given, assess_kept(load_alike(given.average), given.weights)))
            return
        broadcast_from_main(layout, lambda: check(given, layout))
        dataset = open_dataset(given.data, given.split)
        nets = [load_in(layout, path) for path in given.checkpoints]
        crops = given.crops if any(net.recipe.augmented for net in nets) else 1
        if layout.is_main:
            announce(given, layout, nets)
            if crops < given.crops:
                print("crops    1: trained without crops and reflections, a net has one view of an image", flush=True)
        settings = EvaluationSettings(crops, given.batch_size, given.loader, given.workers)
        statistics = [net.statistics for net in nets]
        with naming_lost_ranks(layout.heartbeat), progress("images", len(dataset), layout.is_main) as done:
            assessment = assess(nets, statistics, given.weights, layout, dataset, settings, kept(given, crops), done)
        broadcast_from_main(layout, lambda: report(given, assessment))


def kept(given: Namespace, crops: int) -> set[int]:
    """Of which numbers of crops the flags want predictions."""
    wanted = {crops} if given.predictions or given.per_class else set()
    return wanted | {1} if given.centre_predictions else wanted


def check(given: Namespace, layout: Layout) -> None:
    """Refuse nets that do not fit the data or the layout. Raises InputError."""
    dataset = open_dataset(given.data, given.split)
    side = load_checkpoint(given.checkpoints[0], "cpu").recipe.image_size
    for path in given.checkpoints:
        net = load_checkpoint(path, "cpu")
        if net.recipe.image_size != side:
            raise InputError(
                f"{path}: reads images of {net.recipe.image_size} pixels, {given.checkpoints[0]} of {side}; "
                "evaluate them apart and average their --predictions"
            )
        if layout.split and net.recipe.towers == 1:
            raise InputError(f"{path}: one tower cannot be split over processes; leave --placement out")
        net.refuse_other_classes(dataset, given.data)


def load_in(layout: Layout, path: Path) -> TrainedAlexNet:
    """The checkpoint's towers that this process holds."""
    return load_checkpoint(path, layout.devices, exchange_between(layout, 2) if layout.split else None)


def announce(given: Namespace, layout: Layout, nets: list[TrainedAlexNet]) -> None:
    """What was chosen, once."""
    for path, net in zip(given.checkpoints, nets, strict=True):
        print(f"net      {path}: recipe {net.recipe.name}, width {net.recipe.width:g}, {net.classes} classes")
    print(f"data     {given.data}, {given.split}; loader {given.loader}, {given.workers} decoding threads a process")
    devices = layout.describe(max(net.recipe.towers for net in nets))
    print(f"devices  {devices}; {layout.threads} threads a process", flush=True)


def report(given: Namespace, assessment: Assessment) -> None:
    """Print the errors and write the files asked for."""
    members, predictions = given.average or given.checkpoints, assessment.predictions
    print("\n".join(table(members, assessment)), flush=True)
    if given.json:
        with write_output(given.json) as file:
            file.write_text(json.dumps(summary(members, assessment), indent=2) + "\n")
    for path, crops in ((given.predictions, assessment.crops), (given.centre_predictions, 1)):
        if path:
            with write_output(path) as file:
                predictions[crops].save(file)
    if given.per_class:
        with write_output(given.per_class) as file:
            write_per_class(predictions[assessment.crops], file)


if __name__ == "__main__":
    main(lambda: run(alike(arguments)))
