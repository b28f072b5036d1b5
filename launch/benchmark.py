"""Speed, each figure beside a peer or a limit: python launch/benchmark.py all --device cpu --json FILE"""

from __future__ import annotations

import alexnet2012.core.openmp  # noqa: F401  (before torch)

# isort: split
import dataclasses
import json
import os
import subprocess
import sys
import tempfile
from argparse import Namespace
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from rich.console import Console

from alexnet2012.benchmark import evaluation, exchange, growth, loading, lrn, training_step
from alexnet2012.benchmark.compare import Figure
from alexnet2012.benchmark.report import machine, speed_lines
from alexnet2012.benchmark.synthetic import refuse_small
from alexnet2012.core.atomic_files import write_output
from alexnet2012.core.command_line import Parser, main
from alexnet2012.core.errors import InputError
from alexnet2012.core.threads import cores
from alexnet2012.network.lrn.layer import lrn_kernel
from outputs import output_file

Measure = Callable[[Namespace, torch.device], Iterator[Figure]]


def under_torchrun(section: str, *counts: int) -> Measure:
    """The same section measured by rank 0 of as many processes as ``counts`` say, one after the other."""

    def measure(given: Namespace, device: torch.device) -> Iterator[Figure]:
        for count in counts:
            with tempfile.TemporaryDirectory() as name:
                found = Path(name) / "figures.json"
                run = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(count)]
                own = [__file__, section, "--device", given.device, "--json", str(found)]
                if subprocess.run([*run, *own], stdout=subprocess.DEVNULL, check=False).returncode:
                    raise InputError(f"{section}: one of its {count} processes failed, as said above")
                for figure in json.loads(found.read_text())["figures"]:
                    yield Figure(**figure)

    return measure


SECTIONS: dict[str, Measure] = {
    "lrn": lambda given, device: lrn.figures(device),
    "step": lambda given, device: training_step.figures(device),
    "exchange": under_torchrun("between-ranks", 2),
    "loader": lambda given, device: loading.figures(device, given.data),
    "evaluate": lambda given, device: evaluation.figures(device, given.data),
    "growth": lambda given, device: growth.figures(device, given.data),
    "replicas": under_torchrun("of-replicas", 2, 4),
}
RANKS: dict[str, Callable[[torch.device], Iterator[Figure]]] = {  # what this command has several ranks measure
    "between-ranks": exchange.figures,
    "of-replicas": growth.replicas,
}


def flags() -> Parser:
    parser = Parser("Speed: every part beside a peer or its limit, in turns, medians and spread of several rounds.")
    add = parser.add_argument
    sections = ("all", *SECTIONS)
    ranks = tuple(RANKS) if "RANK" in os.environ else ()
    add("section", nargs="?", default="all", choices=sections + ranks, metavar="|".join(sections))
    add("--device", default="cpu", choices=("cpu", "cuda"))
    add("--data", type=Path, help="a prepared set that loader, evaluate and growth read (default: one is made)")
    add("--json", type=output_file, help="write the figures and the machine's description")
    return parser


def start(given: Namespace) -> None:
    if given.device == "cuda" and not torch.cuda.is_available():
        raise InputError("--device cuda: torch sees no CUDA device here")
    if given.data:
        refuse_small(given.data)
    device = torch.device(given.device)
    described = machine(device) | {"LRN kernel": lrn_kernel(device)}
    figures: list[Figure] = []
    try:
        for figure in measured(given, device):
            figures.append(figure)
    finally:  # what was measured before an interruption is kept
        if figures:
            tell(figures, described, given.json)


def tell(figures: list[Figure], described: dict[str, str], file: Path | None) -> None:
    print(*speed_lines(figures), "; ".join(f"{name} {value}" for name, value in described.items()), sep="\n")
    if file:
        report = {"machine": described, "figures": [dataclasses.asdict(figure) for figure in figures]}
        with write_output(file) as written:
            written.write_text(json.dumps(report, indent=1) + "\n")


def measured(given: Namespace, device: torch.device) -> Iterator[Figure]:
    if given.section in RANKS:
        yield from RANKS[given.section](device)
        return
    torch.set_num_threads(cores())
    with Console(stderr=True).status("measuring") as status:
        for name in SECTIONS if given.section == "all" else [given.section]:
            for figure in SECTIONS[name](given, device):
                status.update(f"measuring {name}: {figure.what}")
                yield figure


if __name__ == "__main__":
    main(lambda: start(flags().parse_args()))
