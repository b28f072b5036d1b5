"""Runs of earlier versions, kept as they were but for values rounded so that they compress.

``before-streams`` began at commit 1547e01, before all random streams came from one function, ``since-streams`` at
24f484f. Both trained four steps of ``FLAGS``; what those commits measured from the same files is asserted here.
"""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

import pytest
from running import ROOT, TRAIN, assert_refused, here, losses

RUNS = Path(__file__).parent / "old_runs"
FLAGS = (
    *("--data", "sample", "--width", "0.0625", "--batch-size", "16", "--epochs", "1", "--loader", "pillow"),
    *("--workers", "1", "--log-every", "1", "--max-steps", "8"),
)


@pytest.fixture
def run(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    with tarfile.open(RUNS / f"{request.param}.tar.xz") as archive:
        archive.extractall(tmp_path / "run", filter="data")
    return tmp_path / "run"


@pytest.mark.parametrize(
    ("run", "errors"), [("before-streams", (89.5, 50.3)), ("since-streams", (90.3, 47.7))], indirect=["run"]
)
def test_evaluates_and_exports(run: Path, errors: tuple[float, float], tmp_path: Path) -> None:
    checkpoint, measured, weights = (
        run / "checkpoints" / "last.pt",
        tmp_path / "errors.json",
        tmp_path / "w.safetensors",
    )
    evaluated = here(
        ROOT / "launch" / "evaluate.py", checkpoint, "--data", "sample", "--loader", "pillow", "--json", measured
    )
    assert evaluated.code == 0, evaluated.err
    found = json.loads(measured.read_text())
    assert (found["top1_error"], found["top5_error"]) == pytest.approx(errors, abs=0.11)  # an image of 1,000
    assert here(ROOT / "launch" / "export.py", checkpoint, "--safetensors", weights).code == 0
    assert weights.stat().st_size > 800_000


@pytest.mark.parametrize("run", ["since-streams"], indirect=True)
def test_resumes(run: Path) -> None:
    assert here(TRAIN, *FLAGS, "--out", run).code == 0
    after = list(losses(run).values())[4:]
    assert after == pytest.approx([2.6076157, 2.3358910, 2.3582835, 2.3661029], abs=1e-4)


@pytest.mark.parametrize("run", ["before-streams"], indirect=True)
def test_other_random_streams_are_refused(run: Path) -> None:
    assert_refused(here(TRAIN, *FLAGS, "--out", run), "version 1 of the random streams")
