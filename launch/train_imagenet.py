"""Train the 2012 net: torchrun launch/train_imagenet.py"""

from __future__ import annotations

import alexnet2012.core.openmp  # noqa: F401  (before torch)

# isort: split
import dataclasses
from argparse import Namespace
from pathlib import Path

from rich.console import Console

from alexnet2012.core.command_line import Parser, alike, loader, main, outlive_output
from alexnet2012.core.errors import InputError
from alexnet2012.data import open_dataset
from alexnet2012.distributed.layout import TIMEOUT
from alexnet2012.evaluation.evaluate import EvaluationSettings
from alexnet2012.evaluation.model import load_checkpoint
from alexnet2012.network.reference import NETS
from alexnet2012.network.summary import describe
from alexnet2012.recipe import MIDDLE, VARIANTS, Recipe, paper_recipe, source_recipe
from alexnet2012.reporting.layer_table import layer_table
from alexnet2012.training import Settings
from alexnet2012.training.run import run
from alexnet2012.training.schedule import SCHEDULES
from alexnet2012.training.trainer import Trainer

IMAGENET_CLASSES = 1000
RECIPES = {"paper": paper_recipe, "source": source_recipe}


def flags() -> Parser:
    parser = Parser("Train the 2012 net. Running the same command again goes on where the run stands.")
    add = parser.add_argument
    add("--data", default="data/imagenet", help="a directory, sample, fashion-mnist or cifar10")
    add("--out", type=Path, help="the run's directory (default: runs/ and a name made of the settings)")
    add("--recipe", default="paper", help="paper or source, the authors' records")
    add("--epochs", type=int, help="(default: the recipe's)")
    add("--batch-size", type=int, help="images a step over all processes (default: the recipe's)")
    add("--lr", type=float, help="rate of the weights (default: the recipe's)")
    add("--weight-decay", type=float, help="of every layer (default: the recipe's)")
    add("--schedule", help=f"{', '.join(SCHEDULES)} (default: steps, or that of --net)")
    add("--seed", type=int, default=0)
    add("--width", type=float, default=1.0, help="multiplies kernels and neurons")
    add("--max-steps", type=int, help="stop after this step of the run")
    add(
        "--precision",
        default="fp32",
        choices=("fp32", "tf32", "bf16"),
        help="of products; bf16 also stores activations so",
    )
    add("--compile", action="store_true", help="compile the net at the first step: minutes; on CUDA with CUDA graphs")
    add("--loader", type=loader, default="dali", choices=("dali", "pillow"))
    add("--workers", type=int, default=2, help="decoding threads a process")
    add("--threads", type=int, help="CPU threads a process (default: OMP_NUM_THREADS, else its share of the cores)")
    add(
        "--placement",
        choices=("split", "together"),
        help="a tower a process, or both in each (default: split, together for a net of one tower)",
    )
    add("--checkpoint-every", type=int, help="steps between checkpoints, beside one an epoch")
    add("--keep", type=int, default=3, help="checkpoints kept, beside the best and one before each drop of the rate")
    add("--time-limit", type=float, help="minutes after which to save and stop; the same command goes on")
    add("--collective-timeout", type=float, default=TIMEOUT, help="seconds waited for a rank that does not answer")
    add("--pairs-across-nodes", action="store_true", help="let the towers of a pair lie on two nodes")
    add(
        "--on-bad-image", default="stop", choices=("stop", "skip"), help="skip: another one takes its place in training"
    )
    add("--lr-scaling", default="none", choices=("none", "linear"), help="linear: --lr times batch size / the recipe's")
    add("--warmup-epochs", type=float, default=0.0, help="epochs over which the rate rises from 0; 2012 had none")
    add("--log-every", type=int, default=20, help="steps between rows of metrics.jsonl")
    add("--no-lrn", action="store_true", help="no local response normalisation (P §3.3)")
    add("--no-overlap", action="store_true", help="pooling 2x2/2 (P §3.4)")
    add("--no-exchange", action="store_true", help="towers that meet only in the last layer")
    add(
        "--wide-init",
        action="store_true",
        help="N(0, 0.03) in conv3 to conv5, as --recipe source has it (S layers-145)",
    )
    add("--exchange-at", default="conv3", choices=("conv3", "conv4"), help="the convolution where towers meet")
    add("--one-tower", action="store_true", help="the paper's one-GPU net (P §3.2)")
    add(
        "--without",
        action="append",
        default=[],
        choices=MIDDLE,
        help="leave a middle layer out (P §7); may be given again",
    )
    add("--no-color-noise", action="store_true", help="(P §4.1)")
    add("--no-dropout", action="store_true", help="(P §4.2)")
    add("--activation", default="relu", choices=("relu", "tanh"), help="(P §3.1)")
    add("--net", default="2012", choices=("2012", *NETS), help="or a reference net, which others teach or published")
    add("--early-stop", type=int, metavar="PATIENCE", help="epochs without a better validation error that end the run")
    add("--val-fraction", type=float, metavar="F", help="share of the training images held back to validate on")
    add("--describe", action="store_true", help="print the net's layers in numbers and end")
    return parser


def variants(given: Namespace) -> tuple[str, ...]:
    """The names of the variants that the flags ask for."""
    asked = {name: getattr(given, name.replace("-", "_"), False) for name in VARIANTS}
    asked |= {f"exchange-at-{given.exchange_at}": True, given.activation: True}
    asked |= {f"without-{layer}": True for layer in given.without}
    return tuple(name for name in VARIANTS if asked[name])


def flags_of(variant: str) -> tuple[str, ...]:
    """The flags that ask for a variant, or for the base net."""
    if variant == "base":
        return ()
    for flag in ("--exchange-at", "--without"):
        if variant.startswith(flag[2:]):
            return flag, variant.removeprefix(flag[2:] + "-")
    return ("--activation", "tanh") if variant == "tanh" else (f"--{variant}",)


def recipe(given: Namespace) -> Recipe:
    """The named recipe with its variants and the numbers that flags replace."""
    if given.net != "2012":
        refuse_flags_of_2012(given)
        return replaced(NETS[given.net].recipe().varied(*variants(given)), given)
    if given.recipe not in RECIPES:
        raise InputError(f"--recipe {given.recipe}: must be one of {', '.join(RECIPES)}")
    return replaced(RECIPES[given.recipe]().varied(*variants(given)), given)


def refuse_flags_of_2012(given: Namespace) -> None:
    """Raises InputError for flags that only the 2012 net has."""
    parser = flags()
    for name in ("recipe", "width"):
        if getattr(given, name) != parser.get_default(name):
            raise InputError(f"--net {given.net}: has no --{name}")
    if others := [name for name in variants(given) if name not in NETS[given.net].variants]:
        raise InputError(f"--net {given.net}: has no variant {others[0]}")


def replaced(named: Recipe, given: Namespace) -> Recipe:
    named = named if given.lr is None else named.with_lr(given.lr)
    if given.lr_scaling == "linear" and given.batch_size:
        named = named.with_lr(named.lr * given.batch_size / named.batch_size)
    if given.weight_decay is not None:
        named = dataclasses.replace(named, weight_decay=given.weight_decay, weight_decays=())
    fields = ("width", "epochs", "batch_size", "warmup_epochs")
    numbers = {name: getattr(given, name) for name in fields}
    return dataclasses.replace(named, **{name: value for name, value in numbers.items() if value is not None})


def settings(given: Namespace) -> Settings:
    same_name = {field.name for field in dataclasses.fields(Settings)} & vars(given).keys() - {"recipe"}
    asked = {name: getattr(given, name) for name in same_name}
    definition = NETS.get(given.net)
    for name, usual in (("schedule", "steps"), ("early_stop", None), ("val_fraction", None)):
        if asked[name] is None:
            asked[name] = getattr(definition, name) if definition else usual
    return Settings(recipe=recipe(given), variants=variants(given), **asked)


def describe_net(asked: Settings) -> None:
    """Print the table of layers, for the classes of ``--data``, or ImageNet's 1000 where no data were named."""
    recipe, unnamed = asked.recipe, asked.data == flags().get_default("data")
    classes = IMAGENET_CLASSES if unnamed else len(open_dataset(asked.data, "val").classes)
    title = ", ".join([f"recipe {recipe.name}", *asked.variants, f"width {recipe.width:g}", f"{classes} classes"])
    Console().print(layer_table(title, describe(recipe, classes)))


def draw_figures(trainer: Trainer) -> None:
    """The paper's figures of the net as it ended, into the run's ``figures/`` and to TensorBoard."""
    from alexnet2012.reporting.figures.gallery import show_at_end  # here: matplotlib takes a second

    net = load_checkpoint(trainer.run.last, trainer.layout.devices)
    settings = EvaluationSettings(loader=trainer.settings.loader, workers=trainer.settings.workers)
    show_at_end(net, trainer.train_set, trainer.val_set, trainer.run, trainer.step, settings)


def start(given: Namespace) -> None:
    asked = alike(lambda: settings(given))
    if given.describe:
        describe_net(asked)
    else:
        outlive_output()
        run(asked, draw_figures)


if __name__ == "__main__":
    main(lambda: start(alike(lambda: flags().parse_args())))
