"""What the flags ask for."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
from running import SMALL, TRAIN, here, losses

from alexnet2012 import paper_recipe, source_recipe
from alexnet2012.recipe import VARIANTS, Recipe
from alexnet2012.training import Settings
from alexnet2012.training.trainer import Trainer
from train_imagenet import flags, flags_of, settings

FLAGS = {name: flags_of(name) for name in VARIANTS}


def asked(*words: str) -> Settings:
    return settings(flags().parse_args(words))


def test_without_flags_it_is_the_paper() -> None:
    assert asked().recipe == paper_recipe()
    assert asked() == Settings(data="data/imagenet", recipe=paper_recipe())


@pytest.mark.parametrize("variant", VARIANTS)
def test_each_variant_has_a_flag(variant: str) -> None:
    assert asked(*FLAGS[variant]).recipe == paper_recipe().varied(variant)
    assert asked(*FLAGS[variant]).variants == (variant,)


def test_variants_of_the_source_recipe() -> None:
    both = asked("--recipe", "source", "--no-lrn", "--without", "conv4")
    assert both.recipe == source_recipe().varied("no-lrn", "without-conv4")
    assert both.variants == ("no-lrn", "without-conv4")


def test_layers_left_out_add_up() -> None:
    both = asked("--without", "conv4", "--without", "conv3")
    assert (both.recipe.without, both.variants) == (("conv3", "conv4"), ("without-conv3", "without-conv4"))


@pytest.mark.parametrize(("flags", "said"), [((), 1), (("--wide-init",), 0)], ids=["paper", "wide-init"])
def test_the_start_names_the_plateaus_cause(flags: tuple[str, ...], said: int, tree: Path, tmp_path: Path) -> None:
    ended = here(TRAIN, *SMALL, *flags, "--data", tree, "--out", tmp_path / "run", "--max-steps", 1)
    assert ended.code == 0 and "loss     begins near ln(5) = 1.609" in ended.out
    assert ended.out.count("N(0, 0.01) in conv3 to conv5 starts the net almost flat (--wide-init has 0.03)") == said


@pytest.mark.parametrize(("recipe", "said"), [(paper_recipe(), 1), (source_recipe(), 0)], ids=["paper", "source"])
def test_the_stuck_warning_names_the_plateaus_cause(
    recipe: Recipe, said: int, capsys: pytest.CaptureFixture[str]
) -> None:
    stuck = SimpleNamespace(net=SimpleNamespace(classes=1000), recipe=recipe, step=7812)
    Trainer.warn_if_stuck(cast(Trainer, stuck), 6.9)
    warned = capsys.readouterr().err
    assert "has not left ln(1000) = 6.908" in warned and warned.count("\n") == 1
    assert warned.count("N(0, 0.01) in conv3 to conv5 (--wide-init has 0.03)") == said


def test_numbers_replace_the_recipes() -> None:
    words = "--recipe source --width 0.25 --epochs 4 --batch-size 32 --lr 0.001 --warmup-epochs 2".split()  # noqa: SIM905
    expected = source_recipe(width=0.25, epochs=4, batch_size=32, warmup_epochs=2.0)
    assert asked(*words).recipe == dataclasses.replace(expected, lr=0.001, bias_lr=asked(*words).recipe.bias_lr)
    assert asked(*words).recipe.bias_lr == pytest.approx(0.002)


def test_the_linear_rule_scales_the_rate_with_the_batch() -> None:
    recipe = asked("--batch-size", "512", "--lr-scaling", "linear").recipe
    assert (recipe.lr, recipe.bias_lr) == pytest.approx((0.04, 0.04))
    assert asked("--batch-size", "512").recipe.lr == 0.01


def test_runs_of_different_functions_lie_in_different_directories() -> None:
    changes = [*FLAGS.values(), ("--recipe", "source"), ("--data", "sample"), ("--schedule", "plateau")]
    changes += [("--epochs", "4"), ("--batch-size", "32"), ("--lr", "0.001"), ("--seed", "1"), ("--width", "0.5")]
    changes += [("--precision", "bf16"), ("--warmup-epochs", "2"), ()]
    assert len({asked(*change).directory for change in changes}) == len(changes)
    assert len({str(asked(*change).identity()) for change in changes}) == len(changes)
    assert asked("--workers", "3", "--max-steps", "7", "--placement", "together").directory == asked().directory


@pytest.mark.parametrize(
    "words",
    [("--recipe", "source"), ("--one-tower",), ("--no-exchange",), ("--without", "conv3", "--activation", "tanh"),
     ("--precision", "bf16"), ("--schedule", "plateau", "--no-dropout", "--no-color-noise")],
    ids=str,
)  # fmt: skip
def test_other_nets_train_from_the_command_line(words: tuple[str, ...], tree: Path, tmp_path: Path) -> None:
    ended = here(TRAIN, *SMALL, "--data", tree, "--out", tmp_path / "run", "--max-steps", 2, *words)
    assert (ended.code, ended.err) == (0, "")
    assert list(losses(tmp_path / "run")) == [1, 2]


def test_a_run_to_its_last_epoch(tree: Path, tmp_path: Path) -> None:
    ended = here(TRAIN, *SMALL, "--data", tree, "--out", tmp_path / "run", "--epochs", 1)
    assert (ended.code, ended.err) == (0, "")
    assert f"done: {tmp_path / 'run'}, step 6" in ended.out
