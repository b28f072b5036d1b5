"""The most probable classes of photographs: python launch/predict.py PHOTO... --checkpoint FILE"""

from __future__ import annotations

import itertools
import os
import sys
from argparse import Namespace
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from alexnet2012 import distributed, evaluation, reporting
from alexnet2012.core import messages
from alexnet2012.core.atomic_files import write_output
from alexnet2012.core.command_line import Parser, checkpoint_file, main, output_file, refuse_overwriting
from alexnet2012.core.errors import InputError
from alexnet2012.core.threads import refuse_threads
from alexnet2012.training import Settings

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

DRAWN = 32  # pictures in a figure, at most


def flags() -> Parser:
    parser = Parser("Print the five most probable classes of each photograph.")
    add = parser.add_argument
    add("photos", nargs="+", metavar="PHOTO", help="an image file, a folder of them, or - to read names from stdin")
    add(
        "--checkpoint",
        type=checkpoint_file,
        required=True,
        metavar="FILE",
        help="or sample: a small net that knows ten clothes",
    )
    add(
        "--figure",
        type=output_file,
        metavar="FILE",
        help=f"draw the first {DRAWN} photographs with their classes (PNG)",
    )
    parser.add_options(Settings, "threads")
    return parser


def files(photos: Iterable[str]) -> Iterator[Path]:
    """The files that the arguments name, a folder's in alphabetical order."""
    for photo in photos:
        if photo == "-":
            lines = os.fsdecode(sys.stdin.buffer.read()).split("\n")
            yield from files(line for line in lines if line and line != "-")
        elif Path(photo).is_dir():
            yield from sorted(path for path in Path(photo).rglob("*") if path.is_file())
        else:
            yield Path(photo)


def readable(paths: Iterable[Path], side: int, problems: list[str]) -> Iterator[tuple[Path, NDArray[np.uint8]]]:
    """Each photograph's pixels, uint8 (side, side, 3); a line on stderr, kept in ``problems``, for what is no image."""
    for path in paths:
        try:
            yield path, evaluation.model.read_pixels(path, side)
        except InputError as error:
            problems.append(str(error))
            messages.error(str(error))


def run(given: Namespace) -> None:
    import numpy as np  # here: flags need none of it
    import torch

    paths = list(files(given.photos))
    if not paths:
        raise InputError(f"{', '.join(given.photos)}: no file there; name photographs, or a folder that holds some")
    refuse_overwriting([given.figure], [*paths, given.checkpoint])
    refuse_threads(threads=given.threads)
    problems: list[str] = []
    drawn: list[tuple[NDArray[np.uint8], NDArray[np.float32]]] = []
    with distributed.layout.open_layout(towers=1, threads=given.threads) as layout:
        net = evaluation.model.load_checkpoint(given.checkpoint, layout.devices)
        photographs = readable(paths, net.recipe.image_size, problems)
        while batch := list(itertools.islice(photographs, evaluation.model.BATCH_SIZE)):
            pixels = np.stack([pixels for _, pixels in batch])
            for (path, picture), row in zip(batch, net.probabilities(torch.from_numpy(pixels)), strict=True):
                messages.say(path)
                for name, probability in net.best(row, 5):
                    messages.say(f"  {100 * probability:5.1f} %  {name}")
                drawn += [(picture, row.numpy())] if given.figure and len(drawn) < DRAWN else []
    if drawn:
        draw(drawn, net, given.figure)
    if problems:
        raise InputError(f"{len(problems)} of {len(paths)} files could not be read; they are named above")


def draw(
    rows: list[tuple[NDArray[np.uint8], NDArray[np.float32]]], net: evaluation.model.TrainedAlexNet, file: Path
) -> None:
    """The photographs with the five most probable classes as bars, as in figure 4 of the paper."""
    import numpy as np

    images, probabilities = (np.stack(column) for column in zip(*rows, strict=True))
    figure = reporting.figures.figure4.draw_guesses(
        images, [None] * len(rows), probabilities, net.class_names, len(evaluation.crops.crop_offsets(net.recipe, 10))
    )
    with write_output(file) as written:
        figure.savefig(written, format="png")
    messages.say(f"{file}: {len(rows)} photographs")


if __name__ == "__main__":
    main(lambda: flags().parse_args(), run)
