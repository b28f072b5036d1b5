"""The paper's ablations: python launch/ablate.py --variants base,no-lrn --seeds 0,1,2 --out DIR --data DATA"""

from __future__ import annotations

import alexnet2012.core.openmp  # noqa: F401  (before torch)

# isort: split
import json
import sys
from argparse import Namespace
from pathlib import Path

import train_imagenet
from alexnet2012.core.atomic_files import write_text
from alexnet2012.core.command_line import Parser, main
from alexnet2012.core.errors import InputError
from alexnet2012.core.threads import cores
from alexnet2012.distributed.layout import check_pairs, default_placement
from alexnet2012.recipe import Recipe, variant_fields
from alexnet2012.reporting.ablation import estimate
from alexnet2012.reporting.ablation import table as ablation
from alexnet2012.reporting.ablation.execution import Execution, slots
from alexnet2012.reporting.ablation.study import ALL, BASE, CROPS, Planned, Run, all_runs, found_runs
from alexnet2012.reporting.figures.style import save
from alexnet2012.training.run_log import duration

HERE = Path(__file__).parent
OWN = ("out", "seed", "time_limit", "describe", "net")  # flags of train_imagenet.py that are not a study's to give


def flags() -> Parser:
    parser = Parser("Train variants of the net with everything else equal; flags of train_imagenet.py apply to all.")
    add = parser.add_argument
    add("--variants", type=variants, help=f"of {', '.join(ALL)}; commas between (default: all)")
    add("--seeds", type=seeds, default=[0, 1, 2], help="commas between")
    add("--out", type=Path, help="the study's directory: a run directory each, and the report")
    add("--jobs", type=int, default=1, help="runs at a time; they split the cores and GPUs")
    add("--processes", type=int, default=1, help="processes a run, under torchrun")
    add("--plan", action="store_true", help="print what would run, and for how long, and end")
    add("--report", type=Path, metavar="DIR", help="rebuild the report of DIR without training")
    return parser


def variants(text: str) -> list[str]:
    """The base net is always among them: a difference needs it."""
    names = text.split(",")
    if unknown := sorted(set(names) - set(ALL)):
        raise InputError(f"--variants {','.join(unknown)}: must be of {', '.join(ALL)}")
    return [name for name in ALL if name in {BASE, *names}]


def variants_of(recipe: Recipe) -> list[str]:
    """Every variant but those that ``recipe`` has already."""

    def changes(variant: str) -> bool:
        return any(getattr(recipe, field) != value for field, value in variant_fields(variant, recipe.name).items())

    return [name for name in ALL if name == BASE or changes(name)]


def seeds(text: str) -> list[int]:
    numbers = text.split(",")
    if not all(number.isdecimal() for number in numbers):
        raise InputError(f"--seeds {text}: must be whole numbers with commas between")
    return sorted({int(number) for number in numbers})


def run(given: Namespace, common: list[str]) -> None:
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
    execution = Execution(lambda one: training(one, given.processes), evaluation, given.jobs, say)
    try:
        execution.carry_out(planned)
    finally:
        if any(one.finished for one in planned):
            report(given.out)
    if execution.stopping:
        left = sum(not one.finished for one in planned)
        say(f"stopped with {left} of {len(planned)} runs to finish; the same command goes on")


def plan(given: Namespace, common: list[str]) -> list[Planned]:
    """Every run of the study, seed by seed, so that one cut short has every variant. Raises InputError."""
    refuse_own_flags(common)
    named = given.variants or variants_of(train_imagenet.recipe(train_imagenet.flags().parse_args(common)))
    planned = []
    for seed in given.seeds:
        for variant in named:
            run = Run.of(given.out, variant, seed)
            words = (*common, *train_imagenet.flags_of(variant), "--seed", str(seed), "--out", str(run.path))
            one = Planned(run, train_imagenet.settings(train_imagenet.flags().parse_args(words)), words)
            if given.processes > 1:
                towers = one.settings.recipe.towers
                placement = one.settings.placement or default_placement(towers)
                check_pairs(placement, given.processes, given.processes, towers, 0)
            one.refuse_other_settings()
            planned.append(one)
    return planned


def refuse_own_flags(common: list[str]) -> None:
    """Raises InputError for flags that would make runs differ in more than variant and seed."""
    parser = train_imagenet.flags()
    given = parser.parse_args(common)
    changed = [name for name in OWN if getattr(given, name, None) != parser.get_default(name)]
    if changed or train_imagenet.variants(given):
        flag = f"--{changed[0].replace('_', '-')}" if changed else train_imagenet.variants(given)[0]
        raise InputError(f"{flag}: not for all runs; a study has --out, --seeds and --variants")


def training(one: Planned, processes: int) -> list[str]:
    torchrun = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    return [sys.executable, *(torchrun if processes > 1 else []), str(HERE / "train_imagenet.py"), *one.flags]


def evaluation(one: Planned) -> list[str]:
    checkpoint, settings = one.run.directory.last, one.settings
    words = [HERE / "evaluate.py", checkpoint, "--data", settings.data, "--crops", CROPS, "--json", one.run.errors]
    words += ["--predictions", one.run.predictions[CROPS], "--centre-predictions", one.run.predictions[1]]
    words += ["--loader", settings.loader, "--workers", settings.workers]
    words += ["--threads", settings.threads] if settings.threads else []
    return [sys.executable, *map(str, words)]


def print_plan(planned: list[Planned], jobs: int) -> None:
    """A line a run, and how long they will take: one training step is timed for it."""
    speed = estimate.speed(planned[0].settings.recipe, len(slots(jobs)[0].cores))
    expected = [estimate.seconds(one, speed) for one in planned]
    for one, time in zip(planned, expected, strict=True):
        state = "done" if one.finished else "to evaluate" if one.trained else "to train"
        print(f"{state:11}  {duration(time):>8}  train_imagenet.py {' '.join(one.flags)}")
    left, together = sum(not one.finished for one in planned), min(jobs, cores())
    total = duration(max(*expected, sum(expected) / together))
    print(f"{left} of {len(planned)} runs to do, about {total} with --jobs {jobs}; ", end="")
    print("estimated from one training step, reading images not counted")


def report(directory: Path) -> None:
    """Write ``ablation.json``, ``ablation.md`` and ``figures/ablation``; print the table."""
    runs = found_runs(directory)
    tables = ablation.tables_of(runs)
    try:
        command = json.loads((directory / "command.json").read_text())
    except (OSError, ValueError):
        command = []  # only told
    text = ablation.markdown(runs, tables)
    write_text(directory / "ablation.json", json.dumps(ablation.summary(runs, tables, command), indent=2) + "\n")
    write_text(directory / "ablation.md", text)
    drawn = ablation.draw(tables[CROPS], runs[0].config()["settings"]["recipe.name"])
    save({"ablation": drawn}, directory / "figures")
    say(text)
    if left := [run.name for run in all_runs(directory) if not run.evaluated]:
        say(f"left out, not evaluated yet or without predictions: {'; '.join(left)}; the study's own command goes on")


def say(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    main(lambda: run(*flags().parse_known_args()))
