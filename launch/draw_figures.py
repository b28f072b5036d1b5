"""The paper's figures: python launch/draw_figures.py CHECKPOINT --data DATA --metrics FILE | --figure 1 --data DATA"""

from __future__ import annotations

import alexnet2012.core.openmp  # noqa: F401  (before torch)

# isort: split
from argparse import Namespace
from pathlib import Path

from matplotlib.figure import Figure

from alexnet2012.command_line import Parser, main
from alexnet2012.data import open_dataset
from alexnet2012.errors import InputError
from alexnet2012.evaluation.evaluate import Passage
from alexnet2012.evaluation.features import spread
from alexnet2012.reporting.figures import gallery
from alexnet2012.reporting.figures.figure1 import claims, draw_figure1
from alexnet2012.reporting.figures.style import save
from alexnet2012.trained import TrainedAlexNet, load_checkpoint
from alexnet2012.training.four_layers import learn_figure1, small_images
from outputs import progress

CIFAR10 = Path("data/cifar10")  # where figure 1's data of 2012 would lie


def flags() -> Parser:
    parser = Parser(
        "Draw figure 3 of a CHECKPOINT, with --data also figure 4; with --metrics learning curves; --figure 1 trains."
    )
    add = parser.add_argument
    add("checkpoint", nargs="?", type=Path, metavar="CHECKPOINT")
    add("--data", help="a directory, sample, fashion-mnist or cifar10: of figure 4, or 1")
    add("--metrics", nargs="+", type=Path, metavar="FILE", help="metrics.jsonl of one run or several")
    add("--out", type=Path, default=Path("figures"), help="directory for the PNG and PDF files, and for fc7's values")
    add(
        "--figure",
        type=int,
        choices=(1,),
        help="1: train the small nets of figure 1 (default data: cifar10 if there, else fashion-mnist)",
    )
    add("--epochs", type=int, default=10, help="of each net of figure 1; there are nine")
    add("--images", type=int, help="training images for figure 1 (default: all)")
    add("--seed", type=int, default=0, help="of figure 1's nets")
    add("--neighbours-among", type=int, metavar="N", help="training images to compare (default: all; 16 KB each)")
    add("--batch-size", type=int, default=128)
    add("--loader", default="dali", choices=("dali", "torch"))
    add("--workers", type=int, default=2, help="decoding threads")
    return parser


def arguments() -> Namespace:
    """The flags, as far as they can be checked without files."""
    given = flags().parse_args()
    if not (given.checkpoint or given.metrics or given.figure):
        raise InputError("nothing to draw; give a CHECKPOINT, --metrics FILE, both, or --figure 1")
    if given.data and not (given.checkpoint or given.figure):
        raise InputError("--data: needs a CHECKPOINT to draw figure 4 of")
    for name in ("batch_size", "workers", "neighbours_among", "epochs", "images"):
        if getattr(given, name) is not None and getattr(given, name) < 1:
            raise InputError(f"--{name.replace('_', '-')} {getattr(given, name)}: must be at least 1")
    if not 0 <= given.seed < 2**63:
        raise InputError(f"--seed {given.seed}: must be in 0..2^63-1")
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
        tell(save(figure1(given), given.out))


def tell(paths: list[Path]) -> None:
    for path in paths:
        print(path, flush=True)


def figure1(given: Namespace) -> dict[str, Figure]:
    """ReLU and tanh on small images, and the same net with LRN. Raises InputError for other data."""
    data = given.data or ("cifar10" if CIFAR10.is_dir() else "fashion-mnist")
    there = "" if given.data else f" ({CIFAR10} is {'there' if data == 'cifar10' else 'not there'})"
    print(f"figure 1 on {data}{there}, {given.epochs} epochs of each net", flush=True)
    train, val = (open_dataset(data, split) for split in ("train", "val"))
    images = small_images(train, val, given.images)
    learned = learn_figure1(*images, len(train.classes), given.epochs, given.seed, lambda line: print(line, flush=True))
    for line in claims(learned):
        print(line)
    return {"figure1": draw_figure1(learned, data, len(images[0].labels))}


def figure4(net: TrainedAlexNet, given: Namespace) -> dict[str, Figure]:
    """Both halves. Raises InputError for data of other classes."""
    train, val = (open_dataset(given.data, split) for split in ("train", "val"))
    for dataset in (train, val):
        net.refuse_other_classes(dataset, given.data)
    train, val = train.with_statistics(net.statistics), val.with_statistics(net.statistics)
    train = spread(train, given.neighbours_among or len(train))
    passage = Passage(1, given.batch_size, given.loader, given.workers)
    with progress("fc7 of the training images", len(train)) as done:
        near = gallery.neighbours(net, train, val, given.out, passage, done)
    return gallery.guesses(net, val) | near


if __name__ == "__main__":
    main(lambda: run(arguments()))
