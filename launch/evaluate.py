"""Error rates of checkpoints, as in 2012: python launch/evaluate.py CHECKPOINT --data DATA --crops 10"""

from __future__ import annotations

import json
from argparse import Namespace
from pathlib import Path

from alexnet2012.data import open_dataset
from alexnet2012.distributed import Layout, agree, naming_lost_ranks, open_layout
from alexnet2012.errors import InputError
from alexnet2012.evaluation import ErrorRates
from alexnet2012.evaluation.crops import CROPS
from alexnet2012.evaluation.ensemble import Assessment, assess, assess_kept, checked_weights
from alexnet2012.evaluation.evaluate import Passage
from alexnet2012.evaluation.predictions import load_alike, write_per_class
from alexnet2012.recipe import RESULTS_2012
from alexnet2012.trained import TrainedAlexNet, load_checkpoint
from command_line import Parser, alike, main
from outputs import output_file, progress, write_whole

ILSVRC_2012 = (50_000, 1_000)  # validation images, classes


def flags() -> Parser:
    parser = Parser("Top-1 and top-5 error of one checkpoint, or of several and of their averaged softmax outputs.")
    add = parser.add_argument
    add("checkpoints", nargs="*", type=Path, metavar="CHECKPOINT")
    add("--average", nargs="+", type=Path, metavar="FILE", help="average predictions kept in files instead")
    add("--weights", nargs="+", type=float, metavar="WEIGHT", help="of each in the average (default: equal)")
    add("--data", default="data/imagenet", help="a directory, sample, fashion-mnist or cifar10")
    add("--split", default="val", choices=("val", "train"))
    add("--crops", type=int, default=1, choices=CROPS, help="the centre crop, or ten crops (P §4.1)")
    add("--json", type=output_file, metavar="FILE", help="write the errors")
    add("--predictions", type=output_file, metavar="FILE", help="keep the (averaged) softmax outputs, an npz")
    add(
        "--per-class",
        type=output_file,
        metavar="FILE",
        help="write errors and commonest confusion of each class, a CSV",
    )
    add("--batch-size", type=int, default=128, help="images at a time over all processes")
    add("--loader", default="dali", choices=("dali", "torch"))
    add("--workers", type=int, default=2, help="decoding threads a process")
    add("--placement", default="split", choices=("split", "together"), help="a tower a process, or both in each")
    return parser


def arguments() -> Namespace:
    """The flags, as far as they can be checked without files."""
    given = flags().parse_args()
    if bool(given.checkpoints) == bool(given.average):
        raise InputError("give either checkpoints or --average FILES; see evaluate.py --help")
    if given.batch_size < 1 or given.workers < 1:
        raise InputError("--batch-size and --workers: must be at least 1")
    given.weights = checked_weights(given.weights, len(given.average or given.checkpoints))
    return given


def run(given: Namespace) -> None:
    with open_layout(given.placement) as layout:
        if given.average:
            agree(layout, lambda: report(given, assess_kept(load_alike(given.average), given.weights)))
            return
        agree(layout, lambda: check(given, layout))
        dataset = open_dataset(given.data, given.split)
        nets = [load_in(layout, path) for path in given.checkpoints]
        if layout.first:
            print(f"{given.data}, {given.split}: {len(dataset)} images; {layout.describe()}; loader {given.loader}")
        passage = Passage(given.crops, given.batch_size, given.loader, given.workers)
        statistics = [net.statistics for net in nets]
        with naming_lost_ranks(layout.heartbeat), progress("images", len(dataset), layout.first) as done:
            assessment = assess(nets, statistics, given.weights, layout, dataset, passage, done)
        agree(layout, lambda: report(given, assessment))


def check(given: Namespace, layout: Layout) -> None:
    """Refuse nets that do not fit the data or the layout. Raises InputError."""
    dataset = open_dataset(given.data, given.split)
    for path in given.checkpoints:
        net = load_checkpoint(path, "cpu")
        if layout.split and net.recipe.towers == 1:
            raise InputError(f"{path}: one tower cannot be split over processes; add --placement together")
        net.refuse_other_classes(dataset, given.data)


def load_in(layout: Layout, path: Path) -> TrainedAlexNet:
    """The checkpoint's towers that this process holds."""
    return load_checkpoint(path, layout.devices, layout.exchange(2) if layout.split else None)


def report(given: Namespace, assessment: Assessment) -> None:
    """Print the errors and write the files asked for."""
    members, kept = given.average or given.checkpoints, assessment.predictions
    for line in table(members, assessment):
        print(line, flush=True)
    if given.json:
        text = json.dumps(summary(members, assessment), indent=2) + "\n"
        write_whole(given.json, lambda path: path.write_text(text))
    if given.predictions:
        write_whole(given.predictions, kept.save)
    if given.per_class:
        write_whole(given.per_class, lambda path: write_per_class(kept, path))


def table(members: list[Path], assessment: Assessment) -> list[str]:
    """The errors in percent; beside them those of 2012 where the data are ILSVRC-2012's."""
    crops = assessment.predictions.crops
    both = f"{len(members)} averaged, " if len(members) > 1 else ""
    rows: list[tuple[str, int, int, ErrorRates]] = []
    if both:
        rows += [(f"{path}, {views(crops)}", 1, crops, r) for path, r in zip(members, assessment.each, strict=True)]
    if assessment.centre and crops > 1:
        rows.append((both + views(1), len(members), 1, assessment.centre))
    rows.append((both + views(crops), len(members), crops, assessment.average))
    width = max(len(name) for name, *_ in rows)
    then = "   2012: top-1, top-5" if is_ilsvrc_2012(assessment) else ""
    lines = [f"{'error in percent':{width}}   top-1   top-5{then}"]
    for name, nets, of_crops, rates in rows:
        in_2012 = f"   {results_2012(nets, of_crops)}" if then else ""
        lines.append(f"{name:{width}}  {rates.top1_error:6.2f}  {rates.top5_error:6.2f}{in_2012}")
    return [*lines, f"{assessment.average.images} images"]


def views(crops: int) -> str:
    return "centre crop" if crops == 1 else "ten crops"


def is_ilsvrc_2012(assessment: Assessment) -> bool:
    return assessment.predictions.probabilities.shape == ILSVRC_2012


def results_2012(nets: int, crops: int) -> str:
    """What 2012 measured with as many nets and crops, on ILSVRC-2012 or else on the data of the year it did."""
    found = [result for result in RESULTS_2012 if (result.nets, result.crops) == (nets, crops)]
    if not found:
        return "not measured"
    one = found[0]
    where = "" if one.data == "ILSVRC-2012 validation" else f" on {one.data}"
    return f"{one.top1_error}, {one.top5_error}{where}"


def summary(members: list[Path], assessment: Assessment) -> dict[str, object]:
    """The errors for a program."""
    crops = assessment.predictions.crops
    result: dict[str, object] = {**vars(assessment.average), "crops": crops}
    if assessment.centre and crops > 1:
        result["centre_crop"] = vars(assessment.centre)
    if len(members) > 1:
        result["each"] = [
            {"file": str(path), **vars(rates)} for path, rates in zip(members, assessment.each, strict=True)
        ]
    return result


if __name__ == "__main__":
    main(lambda: run(alike(arguments)))
