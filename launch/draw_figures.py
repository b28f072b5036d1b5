"""The paper's figures: python launch/draw_figures.py CHECKPOINT --data DATA --metrics FILE | --figure 1 RUN..."""

from __future__ import annotations

import alexnet2012.core.openmp  # noqa: F401  (before torch)

# isort: split
import json
from argparse import Namespace
from pathlib import Path

from matplotlib.figure import Figure

from alexnet2012.core.atomic_files import write_text
from alexnet2012.core.command_line import Parser, loader, main
from alexnet2012.core.errors import InputError
from alexnet2012.data import open_dataset
from alexnet2012.data.dataset import spread
from alexnet2012.evaluation.evaluate import EvaluationSettings
from alexnet2012.evaluation.model import TrainedAlexNet, load_checkpoint
from alexnet2012.reporting.figures import gallery
from alexnet2012.reporting.figures.figure1 import (
    best_rates,
    claims,
    draw_figure1,
    read_learnings,
    read_settings,
    summary,
)
from alexnet2012.reporting.figures.style import save
from outputs import progress


def flags() -> Parser:
    parser = Parser(
        "Draw figure 3 of a CHECKPOINT, with --data also figure 4; with --metrics learning curves; figure 1 of RUNs."
    )
    add = parser.add_argument
    add(
        "paths",
        nargs="*",
        type=Path,
        metavar="CHECKPOINT | RUN",
        help="a checkpoint file, or for figure 1 finished runs",
    )
    add("--figure", type=int, choices=(1,), help="1: the training errors of runs with ReLU and with tanh")
    add("--data", help="a directory, sample, fashion-mnist or cifar10: of figure 4")
    add("--metrics", nargs="+", type=Path, metavar="FILE", help="metrics.jsonl of one run or several")
    add("--out", type=Path, default=Path("figures"), help="directory for the PNG and PDF files, and for fc7's values")
    add("--neighbours-among", type=int, metavar="N", help="training images to compare (default: all; 16 KB each)")
    add("--batch-size", type=int, default=128)
    add("--loader", type=loader, default="dali", choices=("dali", "pillow"))
    add("--workers", type=int, default=2, help="decoding threads")
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
    for name in ("batch_size", "workers", "neighbours_among"):
        if getattr(given, name) is not None and getattr(given, name) < 1:
            raise InputError(f"--{name.replace('_', '-')} {getattr(given, name)}: must be at least 1")
    return given


def run(given: Namespace) -> None:
    """Draw and save, what takes long at the end."""
    save({}, given.out)
    if given.metrics:
        tell(save(gallery.curves(given.metrics), given.out))
    if given.checkpoint:
        net = load_checkpoint(given.checkpoint)
        tell(save(gallery.kernels(net), given.out))
        if given.data:
            tell(save(figure4(net, given), given.out))
    if given.figure == 1:
        tell(save(figure1(given.paths, given.out), given.out))


def tell(paths: list[Path]) -> None:
    for path in paths:
        print(path, flush=True)


def figure1(runs: list[Path], out: Path) -> dict[str, Figure]:
    """ReLU and tanh, each at the best of its learning rates; the numbers go into ``figure1.json``."""
    learnings, settings = read_learnings(runs), read_settings(runs[0])
    best = best_rates(learnings)
    for line in claims(best):
        print(line)
    write_text(out / "figure1.json", json.dumps(summary(best, learnings), indent=1) + "\n")
    return {"figure1": draw_figure1(best, settings)}


def figure4(net: TrainedAlexNet, given: Namespace) -> dict[str, Figure]:
    """Both halves. Raises InputError for data of other classes."""
    train, val = (open_dataset(given.data, split) for split in ("train", "val"))
    for dataset in (train, val):
        net.refuse_other_classes(dataset, given.data)
    train, val = train.with_statistics(net.statistics), val.with_statistics(net.statistics)
    train = spread(train, given.neighbours_among or len(train))
    settings = EvaluationSettings(1, given.batch_size, given.loader, given.workers)
    with progress("fc7 of the training images", len(train)) as done:
        near = gallery.neighbours(net, train, val, given.out, settings, done)
    return gallery.guesses(net, val) | near


if __name__ == "__main__":
    main(lambda: run(arguments()))
