"""The paper's ablations: python launch/ablate.py --variants base,no-lrn --seeds 0,1,2 --out DIR --data DATA"""

from __future__ import annotations

import json
import sys
from argparse import Namespace
from pathlib import Path

import train_imagenet
from alexnet2012 import distributed, reporting, training
from alexnet2012.core.atomic_files import write_text
from alexnet2012.core.command_line import Parser, main, progress
from alexnet2012.core.errors import InputError
from alexnet2012.core.messages import result, say
from alexnet2012.core.threads import cores
from alexnet2012.network.reference import NETS
from alexnet2012.recipe import Recipe
from alexnet2012.reporting import ablation
from alexnet2012.reporting.ablation import ALL, BASE

HERE = Path(__file__).parent
OWN = ("seed", "time_limit", "describe", "show_batch")  # flags of train_imagenet.py that are not a study's to give


def flags() -> Parser:
    parser = Parser("Train variants of the net with everything else equal; flags of train_imagenet.py apply to all.")
    add = parser.add_argument
    add("--variants", type=variants, help=f"of {', '.join(ALL)}; commas between (default: all that differ)")
    add("--seeds", type=seeds, default="0,1,2", help="commas between")
    add("--out", type=Path, help="the study's directory: a run directory each, and the report")
    add("--jobs", type=int, default=1, help="runs at a time; they split the cores and GPUs")
    add("--processes", type=int, default=1, help="processes a run, under torchrun")
    add("--plan", action="store_true", help="print what would run, and for how long, and end")
    parser.add_quiet()
    add("--report", type=Path, metavar="DIR", help="rebuild the report of DIR without training")
    return parser


def variants(text: str) -> list[str]:
    """The base net is always among them: a difference needs it."""
    names = text.split(",")
    if unknown := sorted(set(names) - set(ALL)):
        raise InputError(f"--variants {','.join(unknown)}: must be of {', '.join(ALL)}")
    return [name for name in ALL if name in {BASE, *names}]


def variants_of(recipe: Recipe) -> list[str]:
    """Every variant that the net can take, but those that ``recipe`` has already."""

    def changes(variant: str) -> bool:
        try:
            varied = recipe.varied(variant)
            if recipe.net in NETS:
                NETS[recipe.net].refuse(varied)
        except InputError:
            return False
        return varied != recipe

    return [name for name in ALL if name == BASE or changes(name)]


def seeds(text: str) -> list[int]:
    numbers = text.split(",")
    if not all(number.isdecimal() for number in numbers):
        raise InputError(f"--seeds {text}: must be whole numbers with commas between")
    return sorted({int(number) for number in numbers})


def run(given: Namespace, common: list[str]) -> None:
    refuse_own_flags(common)
    if given.report:
        report(given.report)
        return
    if given.out is None or min(given.jobs, given.processes) < 1:
        raise InputError("--out DIR is needed, and --jobs and --processes must be at least 1; see ablate.py --help")
    existing = next(path for path in (given.out, *given.out.absolute().parents) if path.exists())
    if not existing.is_dir():
        raise InputError(f"--out {given.out}: {existing} is a file; name another directory")
    planned = plan(given, common)
    if given.plan:
        print_plan(planned, given.jobs)
        return
    given.out.mkdir(parents=True, exist_ok=True)
    write_text(given.out / "command.json", json.dumps(sys.argv) + "\n")
    try:
        with progress("runs", len(planned), unit="runs") as bar:
            execution = ablation.execution.Execution(
                lambda one: train_command(one, given.processes), evaluate_command, given.jobs, say,
                lambda: bar(advance=1),
            )  # fmt: skip
            execution.run_all(planned)
    finally:
        if any(one.finished for one in planned):
            report(given.out)
    if execution.stopping:
        left = sum(not one.finished for one in planned)
        say(f"stopped with {left} of {len(planned)} runs to finish; the same command goes on")


def plan(given: Namespace, common: list[str]) -> list[ablation.study.Planned]:
    """Every run of the study, seed by seed, so that one cut short has every variant. Raises InputError."""
    base = train_imagenet.settings(train_imagenet.parsed(common))
    if base.variants:
        raise InputError(f"{base.variants[0]}: not for all runs; a study has --variants")
    named = given.variants or variants_of(base.recipe)
    planned = []
    for seed in given.seeds:
        for variant in named:
            run = ablation.study.Run.of(given.out, variant, seed)
            words = (*common, *train_imagenet.flags_of(variant), "--seed", str(seed), "--out", str(run.path))
            one = ablation.study.Planned(run, train_imagenet.settings(train_imagenet.parsed(words)), words)
            if given.processes > 1:
                towers = one.settings.recipe.towers
                placement = one.settings.placement or distributed.layout.default_placement(towers)
                distributed.layout.check_pairs(placement, given.processes, given.processes, towers, 0)
            one.refuse_other_settings()
            planned.append(one)
    return planned


def refuse_own_flags(common: list[str]) -> None:
    """Raises InputError for flags that would make runs differ in more than variant and seed; a file may hold a seed."""
    parser = train_imagenet.flags()
    given = parser.parse_args(common)
    changed = [name for name in OWN if getattr(given, name) != parser.get_default(name)]
    if changed:
        raise InputError(
            f"--{changed[0].replace('_', '-')}: not for all runs; a study has --out, --seeds and --variants"
        )


def train_command(one: ablation.study.Planned, processes: int) -> list[str]:
    torchrun = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    return [sys.executable, *(torchrun if processes > 1 else []), str(HERE / "train_imagenet.py"), *one.flags]


def evaluate_command(one: ablation.study.Planned) -> list[str]:
    checkpoint, settings = one.run.directory.last, one.settings
    crops = ablation.study.CROPS
    words = [HERE / "evaluate.py", checkpoint, "--data", settings.data, "--crops", crops, "--json", one.run.errors]
    words += ["--predictions", one.run.predictions[crops], "--centre-predictions", one.run.predictions[1]]
    words += ["--loader", settings.loader, "--workers", settings.workers]
    words += ["--threads", settings.threads] if settings.threads else []
    return [sys.executable, *map(str, words)]


def print_plan(planned: list[ablation.study.Planned], jobs: int) -> None:
    """A line a run, and how long they will take: one training step is timed for it."""
    duration = training.run_log.duration
    speed = ablation.execution.speed(planned[0].settings.recipe, len(ablation.execution.slots(jobs)[0].cores))
    expected = [ablation.execution.expected_seconds(one, speed) for one in planned]
    for one, time in zip(planned, expected, strict=True):
        state = "done" if one.finished else "to evaluate" if one.trained else "to train"
        result(f"{state:11}  {duration(time):>8}  train_imagenet.py {' '.join(one.flags)}")
    left, together = sum(not one.finished for one in planned), min(jobs, cores())
    total = duration(max(*expected, sum(expected) / together))
    estimated = "estimated from one training step, reading images not counted"
    result(f"{left} of {len(planned)} runs to do, about {total} with --jobs {jobs}; {estimated}")


def report(directory: Path) -> None:
    """Write ``ablation.json``, ``ablation.md`` and ``figures/ablation``; print the table."""
    runs = ablation.study.found_runs(directory)
    tables = ablation.table.tables_of(runs)
    try:
        command = json.loads((directory / "command.json").read_text())
    except (OSError, ValueError):
        command = []  # only printed
    text = ablation.table.markdown(runs, tables)
    write_text(directory / "ablation.json", json.dumps(ablation.table.summary(runs, tables, command), indent=2) + "\n")
    write_text(directory / "ablation.md", text)
    drawn = ablation.table.draw(tables[ablation.study.CROPS], runs[0].config()["settings"])
    reporting.figures.style.save({"ablation": drawn}, directory / "figures")
    result(text)
    if left := [run.name for run in ablation.study.all_runs(directory) if not run.evaluated]:
        say(f"left out, not evaluated yet or without predictions: {'; '.join(left)}; the study's own command goes on")


if __name__ == "__main__":
    main(lambda: flags().parse_known_args(), lambda asked: run(*asked))
