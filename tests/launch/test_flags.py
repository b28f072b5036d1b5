"""What the flags ask for."""

from __future__ import annotations

import dataclasses
import importlib
import json
import re
import shlex
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
from running import ROOT, SMALL, TRAIN, here, losses

from alexnet2012 import paper_recipe, source_recipe
from alexnet2012.recipe import VARIANTS, Recipe
from alexnet2012.training import Settings
from alexnet2012.training.trainer import Trainer
from train_imagenet import flags_of, parsed, settings

FLAGS = {name: flags_of(name) for name in VARIANTS}


def asked(*words: str) -> Settings:
    return settings(parsed(words))


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
    changes += [("--precision", "bf16"), ("--warmup-epochs", "2"), ("--dropout", "0.3"), ("--activation", "sigmoid")]
    changes += [("--augment", "flip"), ()]
    assert len({asked(*change).directory for change in changes}) == len(changes)
    assert len({str(asked(*change).identity()) for change in changes}) == len(changes)
    assert asked("--workers", "3", "--max-steps", "7", "--placement", "together").directory == asked().directory


def test_a_switch_sets_the_field_of_the_old_name() -> None:
    assert asked("--dropout", "0") == asked("--no-dropout") and asked("--dropout", "0").variants == ("no-dropout",)
    assert asked("--augment", "flip,crop").recipe == asked("--no-color-noise").recipe
    assert asked("--augment", "flip,crop,color") == asked()


@pytest.mark.parametrize(
    ("words", "fields"),
    [
        ("--augment none", {"crop_offsets": 1, "reflect": 0.0, "color_noise": 0.0, "image_size": 256}),
        ("--recipe source --augment crop,color", {"crop_offsets": 33, "reflect": 0.0, "color_noise_divisor": 1.1}),
        ("--net d2l --augment crop", {"crop_size": 224, "image_size": 256, "crop_offsets": 33, "reflect": 0.0}),
        ("--net lenet --augment flip", {"crop_size": 28, "image_size": 28, "crop_offsets": 1, "reflect": 0.5}),
        ("--net d2l --image-size 112", {"crop_size": 112, "image_size": 112, "crop_offsets": 1}),
        ("--net 18pct --augment flip,crop", {"crop_size": 32, "image_size": 36, "crop_offsets": 5}),
        ("--net torchvision --augment color", {"color_noise": 0.1, "image_size": 224, "crop_offsets": 1}),
    ],
)
def test_augmentations_and_image_sizes(words: str, fields: dict[str, object]) -> None:
    recipe = asked(*words.split()).recipe
    assert {name: getattr(recipe, name) for name in fields} == fields


AGAIN = [
    *FLAGS.values(), ("--recipe", "source", "--no-overlap"), ("--net", "torchvision", "--lr", "0.1"),
    ("--net", "19pct", "--activation", "tanh", "--weight-decay", "0"),
    ("--data", "sample", "--seed", "3", "--precision", "bf16", "--schedule", "plateau", "--val-fraction", "0.2",
     "--early-stop", "4", "--width", "0.25", "--batch-size", "32", "--epochs", "7", "--warmup-epochs", "0.5"),
]  # fmt: skip


def written(settings: object, path: Path) -> Path:
    path.write_text(json.dumps({"settings": settings}))
    return path


@pytest.mark.parametrize("words", AGAIN, ids=" ".join)
def test_the_configuration_of_a_run_asks_for_the_same_again(words: tuple[str, ...], tmp_path: Path) -> None:
    first = asked(*words)
    for name in ("config.json", "config.yaml"):
        again = asked("--config", str(written(first.identity(), tmp_path / name)), "--out", "elsewhere")
        assert (again.identity(), again.variants) == (first.identity(), first.variants)
        assert dataclasses.replace(again, out=None).directory == first.directory


def test_flags_replace_what_the_file_says(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("settings:\n  recipe: source\n  recipe.lr: 1e-3\n  data: sample\n  loader: pillow\n  seed: 4\n")
    kept = asked("--config", str(file))
    assert kept.recipe == source_recipe(lr=0.001) and (kept.data, kept.loader, kept.seed) == ("sample", "pillow", 4)
    changed = asked("--config", str(file), "--lr", "0.01", "--seed", "0", "--no-lrn")
    assert changed.recipe == dataclasses.replace(source_recipe(bias_lr=0.2).varied("no-lrn"), lr=0.01)
    assert (changed.data, changed.seed, changed.variants) == ("sample", 0, ("no-lrn",))
    exchanging = written(asked("--exchange-at", "conv4").identity(), tmp_path / "conv4.json")
    assert asked("--config", str(exchanging), "--exchange-at", "conv3").recipe == asked().recipe


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("settings: {width: 0.5}", "settings has no 'width'; did you mean recipe.width?"),
        ("settings: {sede: 1}", "settings has no 'sede'; did you mean seed?"),
        ("settings: {1: 1}", "settings has no '1'"),
        ("settings: {recipe.width: wide}", "recipe.width is 'wide', must be a number"),
        ("settings: {seed: true}", "seed is True, must be a whole number"),
        ("settings: {recipe.kernels: 96}", "recipe.kernels is 96, must be a list"),
        ("settings: {recipe.kernels: [1, 2]}", "kernels: has 2 values, not 5"),
        ("settings: {precision: fp8}", "precision is 'fp8', must be one of fp32, tf32, bf16"),
        ("settings: {recipe.net: vgg}", "recipe.net is 'vgg', must be one of 2012, d2l"),
        ("settings: {recipe: thesis}", "--recipe thesis: must be one of paper, source"),
        ("settings: {recipe.lr: -1}", "--lr -1: must be above 0"),
        ("settings: {out: runs}", "settings has no 'out'"),
        ("settings: [", "cannot be read (while parsing"),
        ("settings: " + 5000 * "[", "cannot be read ("),
        ("settings: {recipe.optimizer: adam}", "recipe.optimizer is 'adam', must be one of paper, sgd"),
        ("settings: {seed: 1}\nepochs: 2", "'epochs' stands beside settings"),
        ("seed: 1", "cannot be read (it has no 'settings')"),
        ("settings", "cannot be read (it is str, not dict)"),
    ],
)
def test_a_wrong_file_is_one_line_that_names_it_and_the_key(content: str, said: str, tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(content)
    ended = here(TRAIN, "--config", file)
    assert ended.code == 2 and ended.err.startswith(f"error: --config {file}: {said}") and ended.err.count("\n") == 1


def test_a_file_and_flags_of_different_nets_are_refused(tmp_path: Path) -> None:
    file = written({"recipe": "source"}, tmp_path / "config.json")
    ended = here(TRAIN, "--config", file, "--recipe", "paper")
    assert (ended.code, ended.err) == (2, f"error: --recipe paper: --config {file} is of recipe source\n")
    whole = written(asked().identity(), tmp_path / "whole.json")
    ended = here(TRAIN, "--config", whole, "--net", "d2l")
    assert (ended.code, ended.err) == (2, f"error: --net d2l: --config {whole} is of net 2012\n")
    missing = here(TRAIN, "--config", tmp_path / "none.json")
    assert missing.code == 2 and f"{tmp_path / 'none.json'}: cannot be read (No such file" in missing.err


def test_a_study_takes_the_configuration_of_a_base_net_only(tmp_path: Path) -> None:
    words = ("--data", "sample", "--width", "0.0625", "--batch-size", "32", "--epochs", "1", "--seed", "5")
    base = written(asked(*words).identity(), tmp_path / "base.json")
    study = ("--variants", "no-lrn", "--seeds", "0", "--out", tmp_path / "study", "--plan")
    planned = here(ROOT / "launch" / "ablate.py", *study, "--config", base)
    assert (planned.code, planned.err) == (0, "") and "2 of 2 runs to do" in planned.out
    variant = written(asked(*words, "--one-tower").identity(), tmp_path / "variant.json")
    refused = here(ROOT / "launch" / "ablate.py", *study, "--config", variant)
    assert (refused.code, refused.err) == (2, "error: one-tower: not for all runs; a study has --variants\n")


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


@pytest.mark.parametrize("page", ["README.md", *sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md"))])
def test_the_commands_that_are_written_down_exist(page: str) -> None:
    text = (ROOT / page).read_text().replace("\\\n", "")
    commands = re.findall(r"(?:python|torchrun) (?:--[^\n`]*?)?launch/(\w+)\.py([^`#\n|]*)", text)
    assert commands or page not in ("README.md", "docs/exercises.md")
    for file, words in commands:
        launch = importlib.import_module(file)
        read = launch.parsed if file == "train_imagenet" else launch.flags().parse_args
        given = read(shlex.split(words))
        if file == "train_imagenet":
            settings(given)
