"""Error rates of checkpoints, as in 2012: python launch/evaluate.py CHECKPOINT --data DATA --crops 10"""

from __future__ import annotations

import json
from argparse import Namespace
from pathlib import Path

from alexnet2012 import data, distributed, evaluation, network, reporting
from alexnet2012.core.atomic_files import write_output
from alexnet2012.core.command_line import (
    Parser,
    checkpoint_file,
    main,
    on_all_ranks,
    output_file,
    progress,
    refuse_overwriting,
)
from alexnet2012.core.errors import InputError
from alexnet2012.core.messages import result, say
from alexnet2012.core.threads import refuse_threads
from alexnet2012.training import Settings

OF_CHECKPOINTS = (  # flags
    "data", "split", "crops", "batch_size", "loader", "workers", "threads", "placement", "centre_predictions"
)  # fmt: skip


def flags() -> Parser:
    parser = Parser("Errors and loss of one checkpoint, or of several and of their averaged softmax outputs.")
    add = parser.add_argument
    add("checkpoints", nargs="*", type=checkpoint_file, metavar="CHECKPOINT")
    add("--average", nargs="+", type=Path, metavar="FILE", help="average predictions kept in files instead")
    add("--weights", nargs="+", type=float, metavar="WEIGHT", help="of each in the average (default: equal)")
    add("--split", default="val", choices=("val", "train"))
    add("--crops", type=int, default=1, choices=(1, 10), help="the centre crop, or ten crops (paper §4.1)")
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
    parser.add_options(Settings, "data", "loader", "workers", "threads", "placement")
    parser.add_quiet()
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
    if given.batch_size < 1:
        raise InputError(f"--batch-size {given.batch_size}: must be at least 1")
    refuse_threads(threads=given.threads, workers=given.workers)
    outputs = (given.json, given.predictions, given.centre_predictions, given.per_class)
    refuse_overwriting(outputs, given.average or given.checkpoints)
    given.weights = evaluation.evaluate.normalized_weights(given.weights, len(given.average or given.checkpoints))
    return given


def run(given: Namespace) -> None:
    nets = on_all_ranks(lambda: [evaluation.model.load_checkpoint(path, "cpu") for path in given.checkpoints])
    towers = [net.recipe.towers for net in nets] or [2]
    placement = given.placement or distributed.layout.default_placement(min(towers))
    from_main = distributed.collectives.broadcast_from_main
    with distributed.layout.open_layout(placement, max(towers), threads=given.threads) as layout:
        if given.average:
            from_main(layout, lambda: report(given, average(given)))
            return
        from_main(layout, lambda: check(given, layout, nets))
        dataset = data.open_dataset(given.data, given.split)
        if layout.split:  # this process holds one tower of each
            exchange = network.exchange.exchange_between(layout, 2)
            nets = [evaluation.model.load_checkpoint(path, layout.devices, exchange) for path in given.checkpoints]
        for net in nets:
            net.place(layout.devices)
        crops = given.crops if any(net.recipe.augmented for net in nets) else 1
        if layout.is_main:
            announce(given, layout, nets)
            if crops < given.crops:
                say("crops    1: trained without crops and reflections, a net has one view of an image")
        settings = evaluation.evaluate.EvaluationSettings(crops, given.batch_size, given.loader, given.workers)
        statistics = [net.statistics for net in nets]
        with progress("images", len(dataset), layout.is_main) as done:
            assessment = evaluation.evaluate.assess(
                nets, statistics, given.weights, layout, dataset, settings, wanted_crops(given, crops),
                lambda images: done(advance=images),
            )  # fmt: skip
        from_main(layout, lambda: report(given, assessment))


def average(given: Namespace) -> evaluation.evaluate.Assessment:
    """Of the predictions kept in files."""
    return evaluation.evaluate.assess_predictions(evaluation.predictions.load_comparable(given.average), given.weights)


def wanted_crops(given: Namespace, crops: int) -> set[int]:
    """Of which numbers of crops the flags want predictions."""
    wanted = {crops} if given.predictions or given.per_class else set()
    return wanted | {1} if given.centre_predictions else wanted


def check(given: Namespace, layout: distributed.layout.Layout, nets: list[evaluation.model.TrainedAlexNet]) -> None:
    """Refuse nets that do not fit the data or the layout. Raises InputError."""
    dataset = data.open_dataset(given.data, given.split)
    side = nets[0].recipe.image_size
    for path, net in zip(given.checkpoints, nets, strict=True):
        if net.recipe.image_size != side:
            raise InputError(
                f"{path}: reads images of {net.recipe.image_size} pixels, {given.checkpoints[0]} of {side}; "
                "evaluate them apart and average their --predictions"
            )
        if layout.split and net.recipe.towers == 1:
            raise InputError(f"{path}: one tower cannot be split over processes; leave --placement out")
        net.refuse_other_classes(dataset, given.data)


def announce(given: Namespace, layout: distributed.layout.Layout, nets: list[evaluation.model.TrainedAlexNet]) -> None:
    """What was chosen, once."""
    for path, net in zip(given.checkpoints, nets, strict=True):
        say(f"net      {path}: recipe {net.recipe.name}, width {net.recipe.width:g}, {net.classes} classes")
    say(f"data     {given.data}, {given.split}; loader {given.loader}, {given.workers} decoding threads a process")
    devices = layout.describe(max(net.recipe.towers for net in nets))
    say(f"devices  {devices}; {layout.threads} threads a process")


def report(given: Namespace, assessment: evaluation.evaluate.Assessment) -> None:
    """Print the errors and write the files asked for."""
    members, predictions = given.average or given.checkpoints, assessment.predictions
    result("\n".join(reporting.tables.error_table(members, assessment)))
    if given.json:
        with write_output(given.json) as file:
            file.write_text(json.dumps(reporting.tables.error_summary(members, assessment), indent=2) + "\n")
    for path, crops in ((given.predictions, assessment.crops), (given.centre_predictions, 1)):
        if path:
            with write_output(path) as file:
                predictions[crops].save(file)
    if given.per_class:
        with write_output(given.per_class) as file:
            evaluation.predictions.write_per_class(predictions[assessment.crops], file)


if __name__ == "__main__":
    main(arguments, run)
