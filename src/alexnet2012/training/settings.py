"""What a run was asked to do."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from alexnet2012.core.command_line import option
from alexnet2012.core.errors import InputError
from alexnet2012.core.threads import refuse_threads
from alexnet2012.data import DATASETS, LOADERS
from alexnet2012.distributed import TIMEOUT
from alexnet2012.network.reference import NETS
from alexnet2012.recipe import RECIPES, VARIANTS, Recipe, variant_fields
from alexnet2012.training.schedule import SCHEDULES

NAMED = {  # fields of the recipe that have a part of their own in the directory's name
    "batch_size", "lr", "bias_lr", "weight_decay", "weight_decays", "width", "warmup_epochs", "epochs"
}  # fmt: skip


def loader(name: str) -> str:
    """The value of ``--loader``; ``torch`` is the former name of ``pillow``."""
    return "pillow" if name == "torch" else name


@dataclass(frozen=True)
class Settings:
    """Everything a run is asked: what it computes first, then how."""

    data: str = option("data/imagenet", f"a directory, or one of {', '.join(DATASETS)}", "data")
    recipe: Recipe = field(default_factory=Recipe)  # variants, width, epochs, batch size and learning rate are in it
    schedule: str = option(
        "steps", f"of the learning rate: {', '.join(SCHEDULES)}", "recipe", unset="steps, or that of --net"
    )
    seed: int = option(0, "of everything random", "recipe")
    precision: str = option(
        "fp32", "of products; bf16 also stores activations so; tf32: CUDA only", "speed",
        choices=("fp32", "tf32", "bf16"),
    )  # fmt: skip
    compile: bool = option(False, "compile the net at the first step: takes minutes; CUDA graphs on CUDA", "speed")
    out: Path | None = option(None, "the run's directory", "run", unset="runs/ and a name made of the settings")
    max_steps: int | None = option(None, "stop after this step of the run", "run")
    loader: str = option("dali", "decodes the images", "speed", type=loader, choices=tuple(LOADERS))
    workers: int = option(2, "decoding threads a process", "speed")
    threads: int | None = option(
        None, "CPU threads a process", "speed", unset="OMP_NUM_THREADS, else its share of the cores"
    )
    placement: str | None = option(
        None, "a tower a process, or both in each", "layout", choices=("split", "together"),
        unset="split; together for a net of one tower",
    )  # fmt: skip
    checkpoint_every: int | None = option(None, "steps between checkpoints, besides the one after each epoch", "run")
    keep: int = option(3, "checkpoints kept, besides the best and one before each drop of the learning rate", "run")
    time_limit: float | None = option(None, "minutes, then save and stop; the same command continues the run", "run")
    collective_timeout: float = option(TIMEOUT, "seconds to wait for a rank that does not answer", "layout")
    pairs_across_nodes: bool = option(False, "let the towers of a pair lie on two nodes", "layout")
    on_bad_image: str = option(
        "stop", "skip: another image takes its place in training", "data", choices=("stop", "skip")
    )
    log_every: int = option(20, "steps between rows of metrics.jsonl", "run")
    early_stop: int | None = option(
        None, "epochs without a better validation error (or loss: --monitor) that end the run; 2012 had none", "run",
        metavar="PATIENCE", unset="never, or that of --net",
    )  # fmt: skip
    val_fraction: float | None = option(
        None, "share of the training images to validate on, held back from training", "data", metavar="F",
        unset="validate on the validation split, or that of --net",
    )  # fmt: skip

    def __post_init__(self) -> None:
        """Raises InputError for a value no run can have."""
        if self.schedule not in SCHEDULES:
            raise InputError(f"--schedule {self.schedule}: must be one of {', '.join(SCHEDULES)}")
        if not 0 <= self.seed < 2**63:
            raise InputError(f"--seed {self.seed}: must be in 0..2^63-1")
        for name in (
            "max_steps",
            "checkpoint_every",
            "log_every",
            "keep",
            "time_limit",
            "early_stop",
            "collective_timeout",
        ):
            if getattr(self, name) is not None and not getattr(self, name) > 0:  # not a number is neither
                raise InputError(f"--{name.replace('_', '-')} {getattr(self, name)}: must be above 0")
        refuse_threads(threads=self.threads, workers=self.workers)
        if self.val_fraction is not None and not 0 < self.val_fraction < 1:
            raise InputError(f"--val-fraction {self.val_fraction:g}: must be above 0 and below 1")

    @property
    def changes(self) -> dict[str, Any]:
        """The fields in which the recipe differs from the one of its name."""
        recipe = self.recipe
        named = NETS[recipe.net].recipe() if recipe.net in NETS else RECIPES.get(recipe.name, Recipe)()
        return {name: value for name, value in vars(recipe).items() if value != getattr(named, name)}

    @property
    def variants(self) -> tuple[str, ...]:
        """The variants that the recipe has and the one of its name has not: keys of ``VARIANTS``."""
        recipe, changes = self.recipe, self.changes.keys()

        def has(field: str, value: Any) -> bool:
            found = getattr(recipe, field)
            return set(value) <= set(found) if field == "without" else value == found

        fields = {name: variant_fields(name, recipe.name) for name in VARIANTS}
        return tuple(name for name, of in fields.items() if of.keys() & changes and all(map(has, of, of.values())))

    @property
    def other_changes(self) -> dict[str, Any]:
        """``changes`` that neither a variant nor a part of ``directory`` of their own names."""
        named = NAMED | {field for name in self.variants for field in variant_fields(name, self.recipe.name)}
        return {name: value for name, value in self.changes.items() if name not in named}

    @property
    def directory(self) -> Path:
        """Where the run is kept: ``--out``, or ``runs/`` and a name made of every setting that changes the function."""
        if self.out is not None:
            return self.out
        recipe = self.recipe
        data = self.data if Path(self.data).name == self.data else Path(self.data).resolve().name
        parts = [data, recipe.name, *self.variants, f"batch{recipe.batch_size}", f"lr{recipe.lr:g}"]
        parts += [f"decay{recipe.weight_decay:g}"] if recipe.weight_decay != Recipe.weight_decay else []
        parts += [f"width{recipe.width:g}"] if recipe.width != 1 else []
        parts += [f"{name.replace('_', '-')}{in_words(value)}" for name, value in self.other_changes.items()]
        parts += [f"warmup{recipe.warmup_epochs:g}"] if recipe.warmup_epochs else []
        parts += [f"val{self.val_fraction:g}"] if self.val_fraction else []
        parts += [f"early-stop{self.early_stop}"] if self.early_stop else []
        parts += [f"epochs{recipe.epochs}", self.schedule, self.precision, f"seed{self.seed}"]
        return Path("runs") / "-".join(parts)

    def identity(self) -> dict[str, Any]:
        """The settings that change what is computed: a run resumes only with the same ones. JSON values.

        One beside the recipe that a later version adds is named only where it is not its default: older runs lack it.
        """
        named = self.data in DATASETS or not Path(self.data).is_dir()
        data = self.data if named else str(Path(self.data).resolve())
        recipe = {f"recipe.{name}": listed(value) for name, value in self.recipe.described().items()}
        own = {"recipe": self.recipe.name, "schedule": self.schedule, "seed": self.seed, "precision": self.precision}
        ours = {"early_stop": self.early_stop, "val_fraction": self.val_fraction}
        return {"data": data, **own, **{name: value for name, value in ours.items() if value is not None}, **recipe}


def in_words(value: Any) -> str:
    """A field's value in a directory's name."""
    return (
        ",".join(map(in_words, value))
        if isinstance(value, tuple)
        else f"{value:g}"
        if type(value) is float
        else str(value)
    )


def listed(value: Any) -> Any:
    """JSON knows lists, not tuples."""
    return list(value) if isinstance(value, tuple) else value
