"""Runs as processes: each is trained once, whatever is stopped and started again. The processes here only pretend."""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path

import pytest

from alexnet2012 import paper_recipe
from alexnet2012.core.errors import Failure
from alexnet2012.reporting.ablation.execution import Execution, part, slots
from alexnet2012.reporting.ablation.study import Planned, Run
from alexnet2012.training import Settings

TRAINED = """
import json, pathlib, sys
run = pathlib.Path(sys.argv[1])
run.mkdir(exist_ok=True)
with (run / "trainings").open("a") as file: file.write("x")
(run / "config.json").write_text(json.dumps({"max_steps": None, "settings": {}}))
(run / "state.json").write_text(json.dumps({"state": "done", "step": 4}))
"""
EVALUATED = """
import json, pathlib, sys
for name in ("ten_crops.npz", "centre_crop.npz"): (pathlib.Path(sys.argv[1]) / name).touch()
result = {"top1_error": 50.0, "top5_error": 25.0, "loss": 1.5, "images": 4}
(pathlib.Path(sys.argv[1]) / "ten_crops.json").write_text(json.dumps(result))
"""


def python(source: str, run: Run) -> list[str]:
    return [sys.executable, "-c", source, str(run.path)]


def planned(study: Path, count: int) -> list[Planned]:
    return [Planned(Run.of(study, "base", seed), Settings("sample", paper_recipe()), ()) for seed in range(count)]


def execution(train: str = TRAINED, jobs: int = 1, lines: list[str] | None = None) -> Execution:
    said = [] if lines is None else lines
    return Execution(lambda one: python(train, one.run), lambda one: python(EVALUATED, one.run), jobs, said.append)


def trainings(runs: list[Planned]) -> list[int]:
    counts = [one.run.path / "trainings" for one in runs]
    return [len(path.read_text()) if path.exists() else 0 for path in counts]


@pytest.mark.parametrize("jobs", [1, 2])
def test_each_run_is_trained_evaluated_and_reported_once(tmp_path: Path, jobs: int) -> None:
    runs, lines = planned(tmp_path, 3), []
    execution(jobs=jobs, lines=lines).run_all(runs)
    execution(jobs=jobs).run_all(runs)
    assert trainings(runs) == [1, 1, 1]
    assert sorted(lines)[0] == "base, seed 0: top-1 error 50.00 %, top-5 error 25.00 %, loss 1.5000"
    assert len(lines) == 3


def test_stopped_in_the_third_run_it_goes_on_there(tmp_path: Path) -> None:
    runs = planned(tmp_path, 4)
    third = "import os, signal, sys, time; os.kill(os.getppid(), signal.SIGTERM); time.sleep(60)"
    first = execution()
    first.train = lambda one: python(third if one.run.seed == 2 else TRAINED, one.run)
    handler = signal.getsignal(signal.SIGTERM)
    first.run_all(runs)
    assert first.stopping
    assert signal.getsignal(signal.SIGTERM) == handler
    assert [one.finished for one in runs] == [True, True, False, False]
    execution().run_all(runs)
    assert trainings(runs) == [1, 1, 1, 1]
    assert all(one.finished for one in runs)


def test_a_run_that_fails_is_named_and_the_others_go_on(tmp_path: Path) -> None:
    runs = planned(tmp_path, 3)
    some_fail = execution()
    some_fail.train = lambda one: python("import sys; sys.exit('no luck')" if one.run.seed == 0 else TRAINED, one.run)
    with pytest.raises(Failure, match="1 of 3 runs not finished: base, seed 0"):
        some_fail.run_all(runs)
    assert [one.finished for one in runs] == [False, True, True]


def test_errors_of_fewer_steps_do_not_survive_more_training(tmp_path: Path) -> None:
    (run,) = planned(tmp_path, 1)
    run.run.path.mkdir()
    run.run.errors.write_text(json.dumps({"top1_error": 90.0, "top5_error": 90.0, "loss": 2.0, "images": 4}))
    for path in run.run.predictions.values():
        path.touch()
    execution().run_all([run])
    assert run.run.rates().top1_error == 50.0


def test_jobs_split_cores_and_share_where_there_are_too_few() -> None:
    assert [part([1, 2, 3, 4], job, 2) for job in range(2)] == [[1, 2], [3, 4]]
    assert [part([7], job, 3) for job in range(3)] == [[7], [7], [7]]
    cores = [core for slot in slots(2) for core in slot.cores]
    assert set(cores) == os.sched_getaffinity(0)
