"""The paper's figures: python launch/draw_figures.py CHECKPOINT --data DATA --metrics FILE | --figure 1 RUN..."""

from __future__ import annotations

import json
from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from alexnet2012 import data, evaluation, reporting
from alexnet2012.core.atomic_files import write_text
from alexnet2012.core.command_line import Parser, checkpoint_file, main, progress
from alexnet2012.core.errors import InputError
from alexnet2012.core.messages import say
from alexnet2012.core.threads import refuse_threads
from alexnet2012.training import Settings

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def flags() -> Parser:
    parser = Parser(
        "Draw figure 3 of a CHECKPOINT, with --data also figure 4; with --metrics learning curves; figure 1 of RUNs."
    )
    add = parser.add_argument
    add(
        "paths",
        nargs="*",
        type=checkpoint_file,
        metavar="CHECKPOINT | RUN",
        help="a checkpoint file, or for figure 1 finished runs",
    )
    add("--figure", type=int, choices=(1,), help="1: the training errors of runs with ReLU and with tanh")
    add("--data", help=f"of figure 4: a directory, or one of {', '.join(data.DATASETS)}")
    add("--metrics", nargs="+", type=Path, metavar="FILE", help="metrics.jsonl of one run or several")
    add("--out", type=Path, default=Path("figures"), help="directory for the PNG and PDF files, and for fc7's values")
    add("--neighbours-among", type=int, metavar="N", help="training images to compare (default: all; 16 KB each)")
    add("--batch-size", type=int, default=128)
    parser.add_options(Settings, "loader", "workers")
    return parser


def arguments() -> Namespace:
    """The flags, as far as they can be checked without files."""
    given = flags().parse_args()
    if given.figure and not given.paths:
        raise InputError("--figure 1: draws finished runs; give their directories")
    if not (given.paths or given.metrics):
        raise InputError("nothing to draw; give a CHECKPOINT, --metrics FILE, both, or --figure 1 and its RUNs")
    if len(given.paths) > 1 and not given.figure:
        raise InputError(
            f"{given.paths[1]}: figures 3 and 4 are of one CHECKPOINT; give one, or --figure 1 and its RUNs"
        )
    given.checkpoint = given.paths[0] if given.paths and not given.figure else None
    if given.data and not given.checkpoint:
        raise InputError("--data: needs a CHECKPOINT to draw figure 4 of")
    refuse_threads(workers=given.workers)
    for name in ("batch_size", "neighbours_among"):
        if getattr(given, name) is not None and getattr(given, name) < 1:
            raise InputError(f"--{name.replace('_', '-')} {getattr(given, name)}: must be at least 1")
    return given


def run(given: Namespace) -> None:
    """Draw and save, what takes long at the end."""
    save({}, given.out)
    if given.metrics:
        save(reporting.figures.gallery.curves(given.metrics), given.out)
    if given.checkpoint:
        net = evaluation.model.load_checkpoint(given.checkpoint)
        save(reporting.figures.gallery.kernels(net), given.out)
        if given.data:
            save(figure4(net, given), given.out)
    if given.figure == 1:
        save(figure1(list(map(Path, given.paths)), given.out), given.out)


def save(figures: dict[str, Figure], out: Path) -> None:
    for path in reporting.figures.style.save(figures, out):
        say(path)


def figure1(runs: list[Path], out: Path) -> dict[str, Figure]:
    """ReLU and tanh, each at the best of its learning rates; the numbers go into ``figure1.json``."""
    one = reporting.figures.figure1
    learnings, settings = one.read_learning_curves(runs), one.read_settings(runs[0])
    best = one.best_learning_rates(learnings)
    for line in one.claims(best):
        say(line)
    write_text(out / "figure1.json", json.dumps(one.summary(best, learnings), indent=1) + "\n")
    return {"figure1": one.draw_figure1(best, settings)}


def figure4(net: evaluation.model.TrainedAlexNet, given: Namespace) -> dict[str, Figure]:
    """Both halves. Raises InputError for data of other classes."""
    train, val = (data.open_dataset(given.data, split) for split in ("train", "val"))
    for dataset in (train, val):
        net.refuse_other_classes(dataset, given.data)
    train, val = train.with_statistics(net.statistics), val.with_statistics(net.statistics)
    train = data.dataset.spread(train, given.neighbours_among or len(train))
    settings = evaluation.evaluate.EvaluationSettings(1, given.batch_size, given.loader, given.workers)
    with progress("fc7 of the training images", len(train)) as done:
        near = reporting.figures.gallery.neighbours(
            net, train, val, given.out, settings, lambda images: done(advance=images)
        )
    return reporting.figures.gallery.guesses(net, val) | near


if __name__ == "__main__":
    main(arguments, run)
