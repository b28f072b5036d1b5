"""What a study's directory says of its runs."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from alexnet2012 import paper_recipe, source_recipe
from alexnet2012.core.errors import InputError
from alexnet2012.evaluation.predictions import Predictions
from alexnet2012.reporting.ablation.study import Planned, Run, found_runs, measured
from alexnet2012.training import Settings


def write_run(study: Path, variant: str, seed: int, recipe: Any, **config: Any) -> Run:
    run = Run.of(study, variant, seed)
    run.path.mkdir(parents=True)
    settings = Settings("sample", recipe, seed=seed).identity()
    run.directory.config.write_text(json.dumps({"settings": settings, "max_steps": None, **config}))
    run.directory.state.write_text(json.dumps({"state": "done", "step": 4}))
    run.errors.write_text(json.dumps({"top1_error": 50.0, "top5_error": 25.0, "loss": 1.5, "images": 4}))
    for crops, path in run.predictions.items():
        write_predictions(path, crops)
    return run


def write_predictions(path: Path, crops: int, data: str = "these images") -> None:
    Predictions(np.eye(4, dtype=np.float32), np.array([0, 1, 2, 0]), list("abcd"), crops, data).save(path)


def test_a_run_is_named_by_its_directory(tmp_path: Path) -> None:
    run = Run.of(tmp_path, "exchange-at-conv4", 12)
    assert (run.path.name, run.variant, run.seed) == ("exchange-at-conv4-seed12", "exchange-at-conv4", 12)
    assert not run.trained(None)


def test_found_runs_are_in_the_order_of_the_table(tmp_path: Path) -> None:
    recipe = paper_recipe()
    for variant, seed in (("no-lrn", 10), ("no-lrn", 2)):
        write_run(tmp_path, variant, seed, recipe.varied(variant))
    write_run(tmp_path, "base", 2, recipe)
    assert [run.name for run in found_runs(tmp_path)] == ["base, seed 2", "no-lrn, seed 2", "no-lrn, seed 10"]


def test_what_a_variant_changes_besides_in_the_source_recipe_is_its_own(tmp_path: Path) -> None:
    """S #147 pads less."""
    write_run(tmp_path, "base", 0, source_recipe())
    write_run(tmp_path, "no-overlap", 0, source_recipe().varied("no-overlap"))
    assert len(found_runs(tmp_path)) == 2


def test_runs_that_differ_in_more_than_variant_and_seed_are_refused(tmp_path: Path) -> None:
    write_run(tmp_path, "base", 0, paper_recipe())
    write_run(tmp_path, "no-lrn", 0, paper_recipe(batch_size=64).varied("no-lrn"))
    with pytest.raises(InputError, match=r"no-lrn-seed0: batch-size is 64, in .*base-seed0 128"):
        found_runs(tmp_path)


def test_runs_of_other_lengths_or_evaluated_on_other_images_are_refused(tmp_path: Path) -> None:
    base = write_run(tmp_path, "base", 0, paper_recipe(), max_steps=4)
    other = write_run(tmp_path, "no-lrn", 0, paper_recipe().varied("no-lrn"))
    with pytest.raises(InputError, match=r"no-lrn-seed0: --max-steps is None, in .*base-seed0 4"):
        found_runs(tmp_path)
    write_predictions(other.predictions[1], 1, "other images")
    assert measured([base, other], 10)["no-lrn"][0].mean(1).tolist() == pytest.approx([25, 0, 126 * math.log(2) / 4])
    with pytest.raises(InputError, match=r"no-lrn-seed0/centre_crop.npz: of other images than .*base-seed0"):
        measured([base, other], 1)


@pytest.mark.parametrize("missing", ["loss", "ten_crops.npz", "centre_crop.npz"])
def test_a_run_evaluated_by_the_first_version_is_trained_but_not_finished(missing: str, tmp_path: Path) -> None:
    """Which kept no predictions and no loss, and whose recipes had fewer fields."""
    run = write_run(tmp_path, "base", 0, paper_recipe())
    config = json.loads(run.directory.config.read_text())
    del config["settings"]["recipe.shared_crop"]
    run.directory.config.write_text(json.dumps(config))
    planned = Planned(run, Settings("sample", paper_recipe()), ())
    planned.refuse_other_settings()
    assert planned.finished
    if missing == "loss":
        run.errors.write_text(json.dumps({"top1_error": 50.0, "top5_error": 25.0, "images": 4}))
    else:
        (run.path / missing).unlink()
    assert planned.trained and not planned.finished
    with pytest.raises(InputError, match="holds no evaluated run"):
        found_runs(tmp_path)


def test_a_run_trained_beyond_the_limit_asked_for_is_refused(tmp_path: Path) -> None:
    run = write_run(tmp_path, "base", 0, paper_recipe(), max_steps=4)
    Planned(run, Settings("sample", paper_recipe(), max_steps=4), ()).refuse_other_settings()
    with pytest.raises(InputError, match=r"--max-steps 3: .* is at step 4"):
        Planned(run, Settings("sample", paper_recipe(), max_steps=3), ()).refuse_other_settings()
    assert run.rates()


@pytest.mark.parametrize("name", ["ten_crops.json", "config.json", "state.json"])
@pytest.mark.parametrize("text", ["", "{", "[]", "{}", "null"])
def test_a_damaged_file_is_named(name: str, text: str, tmp_path: Path) -> None:
    run = write_run(tmp_path, "base", 0, paper_recipe())
    (run.path / name).write_text(text)
    with pytest.raises(InputError, match=f"{name}: not as a run wrote it"):
        _ = Planned(run, Settings("sample", paper_recipe()), ()).finished


def test_other_directories_are_no_runs(tmp_path: Path) -> None:
    write_run(tmp_path, "base", 0, paper_recipe())
    for name in ("no-lrn-seed", "base-seed00", "mine-seed1", "base-seed0-old"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "ten_crops.json").write_text("{}")
    assert [run.name for run in found_runs(tmp_path)] == ["base, seed 0"]


def test_a_directory_without_runs_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no evaluated run"):
        found_runs(tmp_path)


def test_a_run_is_finished_at_its_limit_of_steps_only(tmp_path: Path) -> None:
    run = write_run(tmp_path, "base", 0, paper_recipe(), max_steps=4)
    assert Planned(run, Settings("sample", paper_recipe(), max_steps=4), ()).finished
    assert not Planned(run, Settings("sample", paper_recipe()), ()).trained


def test_a_directory_of_other_settings_is_refused(tmp_path: Path) -> None:
    run = write_run(tmp_path, "base", 0, paper_recipe())
    with pytest.raises(InputError, match="batch-size 128, not 64"):
        Planned(run, Settings("sample", paper_recipe(batch_size=64)), ()).refuse_other_settings()


def test_training_time_is_that_of_all_rows(tmp_path: Path) -> None:
    run = write_run(tmp_path, "base", 0, paper_recipe())
    rows = [
        {"step": 10, "images_per_second": 128, "loss": 2.3, "batch_top1_error": 90.0, "lr": 0.01},
        {"step": 10, "epoch": 1, "val_top1_error": 3, "val_top5_error": 1},
        {"step": 30, "images_per_second": 64, "loss": 2.3, "batch_top1_error": 90.0, "lr": 0.01},
    ]
    run.directory.metrics.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert run.seconds() == 10 + 40
