"""Train the 2012 net: torchrun launch/train_imagenet.py"""

from __future__ import annotations

import dataclasses
from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alexnet2012 import data, evaluation, network, reporting, training
from alexnet2012.core import messages
from alexnet2012.core.command_line import Parser, main, on_all_ranks
from alexnet2012.core.errors import InputError
from alexnet2012.network.reference import NETS
from alexnet2012.recipe import AUGMENTATIONS, CLASSES, MIDDLE, RECIPES, VARIANTS, Recipe
from alexnet2012.training import Settings

if TYPE_CHECKING:
    from collections.abc import Sequence


def flags() -> Parser:
    parser = Parser("Train the 2012 net. Running the same command again continues the run.")
    add, add_variant = parser.groups["recipe"].add_argument, parser.groups["variants"].add_argument
    add("--recipe", default="paper", help="paper, or source: the authors' records")
    add("--net", default="2012", choices=("2012", *NETS), metavar="NET", help=f"or a reference net: {', '.join(NETS)}")
    parser.add_options(Recipe)
    parser.add_options(Settings)
    add_to_data = parser.groups["data"].add_argument
    add_to_data(
        "--image-size", type=int, metavar="N", help="side of what the net reads, pixels (default: the recipe's)"
    )
    add_to_data(
        "--augment", type=augmentations, metavar="NAME[,NAME]",
        help=f"training images by these alone: {', '.join(AUGMENTATIONS)}; or none (default: the recipe's)",
    )  # fmt: skip
    add("--lr-scaling", default="none", choices=("none", "linear"), help="linear: --lr times batch size / the recipe's")
    for name, variant in VARIANTS.items():
        if not variant.flag:
            add_variant(f"--{name}", action="store_true", help=variant.help)
    add_variant(
        "--exchange-at",
        choices=("conv3", "conv4"),
        help="the convolution that reads both towers (default: the recipe's)",
    )
    add_variant(
        "--without", action="append", default=[], choices=MIDDLE,
        help="leave a middle layer out (paper §7); may be given again",
    )  # fmt: skip
    add_to_run = parser.groups["run"].add_argument
    add_to_run(
        "--config", type=Path, metavar="FILE",
        help="YAML or JSON with settings, such as a run's config.json: the same again; flags replace what it says",
    )  # fmt: skip
    for name, help in (
        ("describe", "print the net's layers and initial weights in numbers, only"),
        ("show-batch", "draw the first training images as the net sees them into the run's figures/, only"),
    ):
        add_to_run(f"--{name}", action="store_true", help=help)
    parser.add_quiet()
    parser.set_defaults(recorded={})
    return parser


def augmentations(text: str) -> set[str]:
    names = set(text.split(",")) - {"none"}
    if unknown := sorted(names - set(AUGMENTATIONS)):
        raise InputError(f"--augment {','.join(unknown)}: must be of {', '.join(AUGMENTATIONS)}, or none")
    return names


def parsed(words: Sequence[str] | None = None) -> Namespace:
    """The flags; those not given are as the file of ``--config`` has them. Raises InputError."""
    parser = flags()
    given = parser.parse_args(words)
    if not given.config:
        return given
    defaults = training.run_directory.read_config(given.config)
    parser.set_defaults(**defaults)
    try:
        settings(parser.parse_args([]))
    except InputError as error:
        raise InputError(f"--config {given.config}: {error}") from error
    given = parser.parse_args(words)
    for name in ("recipe", "net"):
        if name in defaults and getattr(given, name) != defaults[name]:
            raise InputError(f"--{name} {getattr(given, name)}: --config {given.config} is of {name} {defaults[name]}")
    return given


def flags_of(variant: str) -> list[str]:
    """The flags that ask for a variant, or for the base net."""
    return [] if variant == "base" else (VARIANTS[variant].flag or f"--{variant}").split()


def variants(given: Namespace) -> tuple[str, ...]:
    """The names of the variants that the flags ask for."""

    def asked(flag: str, value: str = "") -> bool:
        found = getattr(given, flag[2:].replace("-", "_"))
        return value in (found if isinstance(found, list) else [found]) if value else found

    return tuple(name for name in VARIANTS if asked(*flags_of(name)))


def recipe(given: Namespace) -> Recipe:
    """The named recipe with the fields that a file replaces, then variants, then what other flags replace."""
    if given.net == "2012" and given.recipe not in RECIPES:
        raise InputError(f"--recipe {given.recipe}: must be one of {', '.join(RECIPES)}")
    if given.net != "2012" and given.recipe != flags().get_default("recipe"):
        raise InputError(f"--net {given.net}: has no --recipe")
    named = NETS[given.net].recipe() if given.net != "2012" else RECIPES[given.recipe]()
    asked = replaced(dataclasses.replace(named, **given.recorded).varied(*variants(given)), given)
    if given.net != "2012":
        NETS[given.net].refuse(asked)
    return asked


def replaced(named: Recipe, given: Namespace) -> Recipe:
    named = named if given.lr is None else named.with_lr(given.lr)
    if given.lr_scaling == "linear" and given.batch_size:
        named = named.with_lr(named.lr * given.batch_size / named.batch_size)
    if given.weight_decay is not None:
        named = dataclasses.replace(named, weight_decay=given.weight_decay, weight_decays=())
    if given.exchange_at == "conv3":
        named = dataclasses.replace(named, meetings=Recipe.meetings)
    if given.image_size is not None or given.augment is not None:
        chosen = named.augmentations if given.augment is None else given.augment
        named = named.with_images(named.crop_size if given.image_size is None else given.image_size, chosen)
    names = {field.name for field in dataclasses.fields(Recipe) if field.metadata} - {"lr", "weight_decay"}
    fields = {name: getattr(given, name) for name in names}
    return dataclasses.replace(named, **{name: value for name, value in fields.items() if value is not None})


def settings(given: Namespace) -> Settings:
    same_name = {field.name for field in dataclasses.fields(Settings)} & vars(given).keys() - {"recipe"}
    asked = {name: getattr(given, name) for name in same_name}
    definition: Any = Settings if given.net == "2012" else NETS[given.net]
    for name in ("schedule", "early_stop", "val_fraction"):
        if asked[name] is None:
            asked[name] = getattr(definition, name)
    found = Settings(recipe=recipe(given), **asked)
    if lost := [name for name in variants(given) if name not in found.variants]:
        raise InputError(f"{' '.join(flags_of(lost[0]))}: another flag changes the same; leave one of them out")
    return found


def describe_net(asked: Settings) -> None:
    """Print the tables of layers, for the classes of ``--data``, or the net's own where no data were named."""
    from rich.console import Console  # here: flags need none of it

    recipe, unnamed = asked.recipe, asked.data == Settings.data
    classes = NETS[recipe.net].classes if recipe.net in NETS else CLASSES
    classes = (
        classes if unnamed else len(data.open_dataset(asked.data, "train" if asked.val_fraction else "val").classes)
    )
    title = ", ".join([f"recipe {recipe.name}", *asked.variants, f"width {recipe.width:g}", f"{classes} classes"])
    Console().print(reporting.tables.layer_table(title, network.summary.describe(recipe, classes)))
    drawn = network.summary.initial_weights(recipe, classes, asked.seed)
    Console().print(reporting.tables.weights_table(f"initial weights, seed {asked.seed}", drawn))


def draw_figures(trainer: training.trainer.Trainer) -> None:
    """The paper's figures of the net as it ended, into the run's ``figures/`` and to TensorBoard."""
    net = evaluation.model.load_checkpoint(trainer.run.last, trainer.layout.devices)
    settings = evaluation.evaluate.EvaluationSettings(loader=trainer.settings.loader, workers=trainer.settings.workers)
    splits = trainer.train_set, trainer.val_set
    reporting.figures.gallery.save_figures(net, *splits, trainer.run, trainer.step, settings)


def show_batch(trainer: training.trainer.Trainer) -> None:
    """The first images of the run's first batch, into its ``figures/``."""
    figures = reporting.figures.gallery.first_batch(trainer.train_set, trainer.plan, trainer.settings)
    for path in reporting.figures.style.save(figures, trainer.run.figures):
        messages.result(path)


def start(given: Namespace) -> None:
    asked = on_all_ranks(lambda: settings(given))
    if given.describe:
        describe_net(asked)
    else:
        messages.ignore_output_errors()
        training.run.run(asked, show_batch if given.show_batch else draw_figures, given.show_batch)


if __name__ == "__main__":
    main(parsed, start)
