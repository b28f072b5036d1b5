"""Speed, each figure beside a peer or a limit: python launch/benchmark.py all --device cpu --json FILE"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import subprocess
import sys
import tempfile
from argparse import Namespace
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from alexnet2012 import benchmark, network, reporting
from alexnet2012.core.atomic_files import write_output
from alexnet2012.core.command_line import Parser, main, output_file
from alexnet2012.core.errors import InputError
from alexnet2012.core.messages import say
from alexnet2012.core.threads import cores

if TYPE_CHECKING:
    import torch

    from alexnet2012.benchmark.compare import Figure

Measure = Callable[[Namespace, "torch.device"], Iterator["Figure"]]


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
                    yield benchmark.compare.Figure(**figure)

    return measure


SECTIONS: dict[str, Measure] = {
    "start": lambda given, device: benchmark.loading.start_figures(Path(__file__).with_name("train_imagenet.py")),
    "lrn": lambda given, device: benchmark.lrn.figures(device),
    "step": lambda given, device: benchmark.training_step.figures(device),
    "exchange": under_torchrun("between-ranks", 2),
    "loader": lambda given, device: benchmark.loading.figures(device, given.data),
    "evaluate": lambda given, device: benchmark.loading.evaluation_figures(device, given.data),
    "growth": lambda given, device: benchmark.growth.figures(device, given.data),
    "replicas": under_torchrun("of-replicas", 2, 4),
}
RANKS: dict[str, Measure] = {  # what this command has several ranks measure
    "between-ranks": lambda given, device: benchmark.exchange.figures(device),
    "of-replicas": lambda given, device: benchmark.growth.replicas(device),
}


def flags() -> Parser:
    parser = Parser("Speed: every part beside a peer or its limit, in turns, medians and spread of several rounds.")
    add = parser.add_argument
    sections = ("all", *SECTIONS)
    ranks = tuple(RANKS) if "RANK" in os.environ else ()
    add("section", nargs="?", default="all", choices=sections + ranks, metavar="|".join(sections))
    add("--device", default="cpu", choices=("cpu", "cuda"))
    add("--data", type=Path, help="a prepared set that loader, evaluate and growth read (default: one is made)")
    add("--page", type=output_file, help="draw where a training step's time goes, by part (.png, .pdf)")
    add("--json", type=output_file, help="write the figures and the machine's description")
    return parser


def start(given: Namespace) -> None:
    import torch  # here: flags need none of it

    if given.device == "cuda" and not torch.cuda.is_available():
        raise InputError("--device cuda: torch sees no CUDA device here")
    if given.data:
        benchmark.synthetic.refuse_small(given.data)
    device = torch.device(given.device)
    described = benchmark.compare.machine(device) | {"LRN kernel": network.lrn.layer.lrn_kernel(device)}
    figures: list[Figure] = []
    try:
        for figure in measured(given, device):
            figures.append(figure)
    finally:  # what was measured before an interruption is kept
        if figures:
            report(figures, described, given.json)
    if given.page:
        draw_page(given, device, described)


def draw_page(given: Namespace, device: torch.device, described: dict[str, str]) -> None:
    """Where the time of a training step goes: in float32 and bfloat16, on CUDA in bfloat16."""
    precisions = ["bf16"] if device.type == "cuda" else ["fp32", "bf16"]
    batch = benchmark.loading.BATCH[device.type]
    steps = {f"{name}, batch {batch}": benchmark.parts.parts_of_step(device, name) for name in precisions}
    title = f"A training step, {described.get('device', described['processor'])}"
    figure = reporting.figures.roofline.draw_parts(title, steps)
    with write_output(given.page) as written:
        figure.savefig(written, format=given.page.suffix[1:] or "png")
    say(f"{given.page}: where a training step's time goes")


def report(figures: list[Figure], described: dict[str, str], file: Path | None) -> None:
    about = "; ".join(f"{name} {value}" for name, value in described.items())
    say("\n".join([*benchmark.compare.speed_lines(figures), about]))
    if file:
        found = {"machine": described, "figures": [dataclasses.asdict(figure) for figure in figures]}
        with write_output(file) as written:
            written.write_text(json.dumps(found, indent=1) + "\n")


def measured(given: Namespace, device: torch.device) -> Iterator[Figure]:
    import torch  # as above
    from rich.console import Console

    if given.section in RANKS:
        yield from RANKS[given.section](given, device)
        return
    torch.set_num_threads(cores())
    with contextlib.ExitStack() as kept, Console(stderr=True).status("measuring") as status:
        if given.section == "all" and not given.data:  # one set for all sections
            given.data, _ = kept.enter_context(benchmark.synthetic.prepared_and_files())
        for name in SECTIONS if given.section == "all" else [given.section]:
            for figure in SECTIONS[name](given, device):
                status.update(f"measuring {name}: {figure.what}")
                yield figure


if __name__ == "__main__":
    main(lambda: flags().parse_args(), start)
