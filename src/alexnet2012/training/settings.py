"""What a run was asked to do."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alexnet2012.core.errors import InputError
from alexnet2012.data import DATASETS
from alexnet2012.distributed import TIMEOUT
from alexnet2012.recipe import Recipe
from alexnet2012.training.schedule import SCHEDULES


@dataclass(frozen=True)
class Settings:
    """Everything a run is asked: what it computes first, then how."""

    data: str  # a directory, "sample", "fashion-mnist" or "cifar10"
    recipe: Recipe  # variants, width, epochs, batch size and rate are in it
    variants: tuple[str, ...] = ()  # their names, keys of recipe.VARIANTS
    schedule: str = "steps"
    seed: int = 0
    precision: str = "fp32"  # of products: "fp32", on CUDA also "tf32", or "bf16", also of the activations
    compile: bool = False  # the net's training passes
    out: Path | None = None
    max_steps: int | None = None  # absolute: stop after this step of the run
    loader: str = "dali"
    workers: int = 2  # threads that decode, a process
    threads: int | None = None  # of the CPU that compute, a process; None: as distributed.default_threads says
    placement: str | None = None  # "split" or "together"; None: as distributed.default_placement says
    checkpoint_every: int | None = None  # steps
    keep: int = 3  # checkpoints, beside the best and one before each drop of the rate
    time_limit: float | None = None  # minutes: stop at the next step's edge
    collective_timeout: float = TIMEOUT  # seconds of waiting in a collective before a silent rank counts as lost
    pairs_across_nodes: bool = False
    on_bad_image: str = "stop"  # or "skip": replace it by another image of the plan
    log_every: int = 20  # steps
    early_stop: int | None = None  # epochs without a better validation error after which the run ends; 2012 had none
    val_fraction: float | None = None  # of the training images, held back to validate on; None: the validation split

    def __post_init__(self) -> None:
        """Raises InputError for a value no run can have."""
        if self.schedule not in SCHEDULES:
            raise InputError(f"--schedule {self.schedule}: must be one of {', '.join(SCHEDULES)}")
        if not 0 <= self.seed < 2**63:
            raise InputError(f"--seed {self.seed}: must be in 0..2^63-1")
        for name in (
            "max_steps",
            "workers",
            "threads",
            "checkpoint_every",
            "log_every",
            "keep",
            "time_limit",
            "early_stop",
            "collective_timeout",
        ):
            if getattr(self, name) is not None and not getattr(self, name) > 0:  # not a number is neither
                raise InputError(f"--{name.replace('_', '-')} {getattr(self, name)}: must be above 0")
        if self.val_fraction is not None and not 0 < self.val_fraction < 1:
            raise InputError(f"--val-fraction {self.val_fraction:g}: must be above 0 and below 1")

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


def listed(value: Any) -> Any:
    """JSON knows lists, not tuples."""
    return list(value) if isinstance(value, tuple) else value
