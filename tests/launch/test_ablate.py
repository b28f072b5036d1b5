"""The paper's ablations from the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from running import ROOT, SMALL, here, rows

ABLATE = ROOT / "launch" / "ablate.py"


@pytest.mark.parametrize(
    ("flags", "line"),
    [
        (("--variants", "no-relu"), "--variants no-relu: must be of base, no-lrn"),
        (("--seeds", "0,x"), "--seeds 0,x: must be whole numbers"),
        (("--seed", "1"), "seed: not for all runs"),
        (("--no-lrn",), "no-lrn: not for all runs"),
        (("--epoch", "3"), "unrecognized arguments: --epoch 3"),
        (("--variants", "one-tower", "--processes", "2", "--placement", "split"), "this net has one tower only"),
        (("--jobs", "0"), "must be at least 1"),
        (("--batch-size", "6001", "--plan"), "--batch-size 6001: the training split has 6000 images"),
    ],
)
def test_bad_input_is_one_line(tmp_path: Path, flags: tuple[str, ...], line: str) -> None:
    ended = here(ABLATE, "--out", tmp_path / "study", "--data", "sample", *flags)
    assert ended.code == 2
    assert line in ended.err
    assert len(ended.err.splitlines()) == 1
    assert not (tmp_path / "study").exists()


def test_variants_of_one_and_two_towers_run_on_two_processes(tree: Path, tmp_path: Path) -> None:
    words = (
        "--out",
        tmp_path / "study",
        "--variants",
        "one-tower",
        "--processes",
        "2",
        "--data",
        tree,
        *SMALL,
        "--plan",
    )
    assert "6 of 6 runs to do" in here(ABLATE, *words).out


def test_a_reference_net_s_variants_are_those_that_it_takes(tree: Path, tmp_path: Path) -> None:
    words = ("--out", tmp_path / "study", "--seeds", "0", "--data", tree, "--net", "lenet-relu", "--batch-size", "8")
    ended = here(ABLATE, *words, "--plan")
    assert (ended.code, ended.err) == (0, "") and "3 of 3 runs to do" in ended.out
    assert [line.split("study/")[1] for line in ended.out.splitlines()[:3]] == [
        "base-seed0", "no-dropout-seed0", "tanh-seed0",
    ]  # fmt: skip
    refused = here(ABLATE, *words, "--variants", "no-lrn", "--plan")
    assert refused.code == 2 and "--net lenet-relu: its lrn cannot be changed" in refused.err


def test_a_study_from_its_plan_to_its_report(tree: Path, tmp_path: Path) -> None:
    study = tmp_path / "study"
    asked = ("--out", study, "--variants", "base", "--seeds", "1")
    words = (ABLATE, *asked, "--data", tree, *SMALL, "--max-steps", "2")
    plan = here(*words, "--plan")
    assert plan.code == 0, plan.err
    assert "1 of 1 runs to do" in plan.out
    assert not study.exists()

    first = here(*words)
    assert first.code == 0, first.err
    assert [row["step"] for row in rows(study / "base-seed1") if "loss" in row] == [1, 2]
    found = json.loads((study / "ablation.json").read_text())
    assert [(run["variant"], run["seed"], run["images"]) for run in found["runs"]] == [("base", 1, 15)]
    assert [row["variant"] for row in found["variants"] if row["runs"]] == ["base"]

    logs = {path: path.read_bytes() for path in study.glob("*.log")}
    again = here(*words)
    assert (again.code, {path: path.read_bytes() for path in logs}) == (0, logs)

    table = (study / "ablation.md").read_text()
    (study / "ablation.md").unlink()
    assert here(ABLATE, "--report", study).code == 0
    assert (study / "ablation.md").read_text() == table
    assert {path.name for path in (study / "figures").iterdir()} == {"ablation.png", "ablation.pdf"}

    of_first_version(study / "base-seed1")
    trained = (study / "base-seed1" / "metrics.jsonl").read_bytes()
    assert "holds no evaluated run" in here(ABLATE, "--report", study).err
    again = here(*words)
    assert (again.code, again.err) == (0, "")
    assert (study / "base-seed1" / "metrics.jsonl").read_bytes() == trained
    assert (study / "ablation.md").read_text() == table


def of_first_version(run: Path) -> None:
    """Leave the run as that version did: a recipe of fewer fields, no loss, no predictions."""
    for name in ("ten_crops.npz", "centre_crop.npz"):
        (run / name).unlink()
    config, errors = (json.loads((run / name).read_text()) for name in ("config.json", "ten_crops.json"))
    del config["settings"]["recipe.shared_crop"], errors["loss"], errors["centre_crop"]["loss"]
    (run / "config.json").write_text(json.dumps(config))
    (run / "ten_crops.json").write_text(json.dumps(errors))
