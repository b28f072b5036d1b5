"""The paper's figures of a trained net: python launch/draw_figures.py CHECKPOINT --data DATA --metrics FILE"""

from __future__ import annotations

import sys
from argparse import Namespace
from pathlib import Path

from matplotlib.figure import Figure
from rich.console import Console
from rich.progress import Progress

from alexnet2012.data import open_dataset
from alexnet2012.errors import InputError
from alexnet2012.evaluation.evaluate import Passage
from alexnet2012.evaluation.features import spread
from alexnet2012.reporting.figures import gallery
from alexnet2012.reporting.figures.style import save
from alexnet2012.trained import TrainedAlexNet, load_checkpoint
from command_line import Parser, main


def flags() -> Parser:
    parser = Parser("Draw figure 3 of a CHECKPOINT, with --data also figure 4, with --metrics learning curves.")
    add = parser.add_argument
    add("checkpoint", nargs="?", type=Path, metavar="CHECKPOINT")
    add("--data", help="a directory, sample, fashion-mnist or cifar10: figure 4")
    add("--metrics", nargs="+", type=Path, metavar="FILE", help="metrics.jsonl of one run or several")
    add("--out", type=Path, default=Path("figures"), help="directory for the PNG and PDF files, and for fc7's values")
    add("--neighbours-among", type=int, metavar="N", help="training images to compare (default: all; 16 KB each)")
    add("--batch-size", type=int, default=128)
    add("--loader", default="dali", choices=("dali", "torch"))
    add("--workers", type=int, default=2, help="decoding threads")
    return parser


def arguments() -> Namespace:
    """The flags, as far as they can be checked without files."""
    given = flags().parse_args()
    if not (given.checkpoint or given.metrics):
        raise InputError("nothing to draw; give a CHECKPOINT, --metrics FILE, or both")
    if given.data and not given.checkpoint:
        raise InputError("--data: needs a CHECKPOINT to draw figure 4 of")
    if min(given.batch_size, given.workers, given.neighbours_among or 1) < 1:
        raise InputError("--batch-size, --workers and --neighbours-among: must be at least 1")
    return given


def run(given: Namespace) -> None:
    figures = gallery.curves(given.metrics) if given.metrics else {}
    if given.checkpoint:
        net = load_checkpoint(given.checkpoint)
        figures |= gallery.kernels(net) | (figure4(net, given) if given.data else {})
    try:
        paths = save(figures, given.out)
    except OSError as error:
        raise InputError(f"--out {given.out}: cannot be written ({error.strerror})") from error
    for path in paths:
        print(path)


def figure4(net: TrainedAlexNet, given: Namespace) -> dict[str, Figure]:
    """Both halves. Raises InputError for data of other classes."""
    train, val = (open_dataset(given.data, split) for split in ("train", "val"))
    for dataset in (train, val):
        net.refuse_other_classes(dataset, given.data)
    train, val = train.with_statistics(net.statistics), val.with_statistics(net.statistics)
    train = spread(train, given.neighbours_among or len(train))
    passage = Passage(1, given.batch_size, given.loader, given.workers)
    with Progress(console=Console(stderr=True), disable=not sys.stderr.isatty()) as bar:
        task = bar.add_task("fc7 of the training images", total=len(train))
        near = gallery.neighbours(net, train, val, given.out, passage, lambda done: bar.advance(task, done))
    return gallery.guesses(net, val) | near


if __name__ == "__main__":
    main(lambda: run(arguments()))
