"""ImageNet, from the official archives to what training reads: shards of 256x256 images, and their statistics.

    python data_prep/prepare_imagenet.py SOURCE --out data/imagenet

SOURCE, recognised by what it holds: ILSVRC2012_img_train.tar, ILSVRC2012_img_val.tar and ILSVRC2012_devkit_t12.tar.gz
(read in place, never unpacked); or train/<wnid>/ and val/<wnid>/; or a flat val/ with the devkit or Kaggle's
LOC_val_solution.csv; or Kaggle's ILSVRC/Data/CLS-LOC beside its tables. All give the same set.

Stopped, even killed, the same command goes on where it was. An image that cannot be read stops it with the image's
name: ILSVRC-2012 has none, so the download is damaged.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from alexnet2012 import data
from alexnet2012.core.atomic_files import write_text
from alexnet2012.core.command_line import Parser, exit_code, exit_process, progress
from alexnet2012.core.errors import InputError, printable
from alexnet2012.core.threads import cores
from alexnet2012.data import prepare
from alexnet2012.recipe import COLORS_2014


def main(arguments: list[str] | None = None) -> int:
    """Returns the shell's exit code."""
    return exit_code(lambda: run(parse(arguments)))


def run(flags: argparse.Namespace) -> None:
    """Prepare, and verify if asked to. Raises InputError."""
    console, shards = Console(), prepare.shards
    try:
        with progress(f"listing the images of {flags.source}", None):
            source = prepare.source.open_source(flags.source)
        settings = shards.Settings(flags.quality, flags.seed, encoding=flags.encoding)
        total = sum(map(len, source.images.values()))
        with progress("preparing", total) as bar:
            manifest = shards.prepare(
                source, flags.out, settings, flags.workers, flags.skip_unreadable, lambda done: bar(completed=done)
            )
        print_summary(console, manifest, flags.out)
        if flags.verify:
            check(console, source, manifest, flags)
    except KeyboardInterrupt:
        print("stopped; the same command goes on from here", file=sys.stderr)
        raise


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """The flags. Raises InputError."""
    parser = Parser("ImageNet's official archives, or an extracted copy of them, made into shards and statistics.")
    parser.add_argument("source", metavar="SOURCE", type=Path, help="directory with the archives, or the images")
    parser.add_argument("--out", type=Path, default=Path("data/imagenet"), help="directory to make")
    parser.add_argument(
        "--encoding",
        default="jpeg",
        choices=("jpeg", "ppm"),
        help="of the stored images; ppm: pixels as they are, 7 times as large and many times as fast to read",
    )
    parser.add_argument("--quality", type=between(1, 95), default=95, help="of the stored JPEGs")
    parser.add_argument("--seed", type=between(0, 2**32), default=0, help="of the order")
    parser.add_argument("--workers", type=between(1, 1024), default=cores(), help="processes; by default one a core")
    parser.add_argument(
        "--skip-unreadable", action="store_true", help="leave unreadable images out, and list them, instead of stopping"
    )
    parser.add_argument(
        "--verify",
        action="store_true",
        help="afterwards read everything again: counts, labels, checksums, each image, the archives' MD5 (verify.json)",
    )
    parser.add_quiet()
    flags = parser.parse_args(arguments)
    if flags.encoding == "ppm" and flags.quality != parser.get_default("quality"):
        raise InputError(f"--quality {flags.quality}: is of JPEGs; leave it out with --encoding ppm")
    return flags


def between(least: int, most: int) -> Callable[[str], int]:
    """A flag's type: a whole number from ``least`` to ``most``."""

    def number(text: str) -> int:
        if not (text.isdecimal() and least <= int(text) <= most):
            raise argparse.ArgumentTypeError(f"{text}: must be a whole number from {least} to {most}")
        return int(text)

    return number


def print_summary(console: Console, manifest: dict[str, Any], out: Path) -> None:
    """What was made, and what was odd about the source."""
    size = sum(shard["bytes"] for split in manifest["splits"].values() for shard in split["shards"])
    counts = " + ".join(f"{split['images']:,} {name}" for name, split in manifest["splits"].items())
    console.print(
        f"{out}: {counts} images of {manifest['settings']['classes']:,} classes, {size / 1e9:.2f} GB", soft_wrap=True
    )
    table = Table("what the source's images were", "how many", "which (all in manifest.json)")
    for kind, keys in {**manifest["repaired"], "unreadable, left out": manifest["unreadable"]}.items():
        named = printable(", ".join(keys[:3])) + ", ..." * (len(keys) > 3)
        table.add_row(kind, f"{len(keys):,}", Text(named))
    console.print(table)


def check(console: Console, source: prepare.source.Source, manifest: dict[str, Any], flags: argparse.Namespace) -> None:
    """Verify, print and write ``verify.json``. Raises InputError with the first problem."""
    verify = prepare.verify
    with progress("verifying", sum(map(len, source.images.values()))) as bar:
        checks, problems = verify.verify(source, flags.out, flags.workers, lambda done: bar(completed=done))
    with progress("MD5 of the archives", None):
        archives = verify.check_archives(source)
    table = Table("check", "found", "expected", "")
    for row in checks + archives:
        verdict = "holds" if row.holds else "differs" if row in archives else "FAILS"
        table.add_row(row.what, *(f"{n:,}" if isinstance(n, int) else n for n in (row.found, row.expected)), verdict)
    console.print(table)
    if len(source.wnids) == prepare.source.OFFICIAL["classes"]:
        console.print(color_table(data.open_dataset(str(flags.out), "train").statistics))
    report = flags.out / "verify.json"
    write_report(report, checks, archives, problems, manifest)
    if failed := [row.what for row in checks if not row.holds]:
        first = problems[0] if problems else failed[0]
        raise InputError(f"{flags.out}: does not hold what it should: {first}; all in {report}")


def color_table(statistics: data.Statistics) -> Table:
    """The colours of the training images beside the authors'; other ways to resize and store make them differ a bit."""
    table = Table("colors of training images", "here", "the authors', 2014")
    for name, values in statistics.colors().items():
        form = ".3f" if "vector" in name else ".1f"
        table.add_row(name, *(", ".join(f"{value:{form}}" for value in own) for own in (values, COLORS_2014[name])))
    return table


def write_report(
    path: Path,
    checks: list[prepare.verify.Check],
    archives: list[prepare.verify.Check],
    problems: list[str],
    manifest: dict[str, Any],
) -> None:
    """The tables in full, as JSON."""
    report = {
        "checks": [{**row._asdict(), "holds": row.holds} for row in checks],
        "archives": [{**row._asdict(), "holds": row.holds} for row in archives],
        "problems": problems,
        "repaired": manifest["repaired"],
        "unreadable": manifest["unreadable"],
    }
    try:
        write_text(path, json.dumps(report, indent=1) + "\n")
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror})") from error


if __name__ == "__main__":
    exit_process(main())
