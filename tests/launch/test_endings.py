"""What a run that cannot go on says and leaves: one line, a true ``state.json``, its checkpoints."""

from __future__ import annotations

import functools
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from running import (
    SMALL,
    TRAIN,
    assert_refused,
    assert_same_to_the_bit,
    children,
    here,
    on_ranks,
    rows,
    start,
    state,
    torchrun,
)  # fmt: skip

from alexnet2012.evaluation import checkpoint

STEPS = ("--max-steps", 20)
ABLATE = TRAIN.with_name("ablate.py")
HERE = Path(__file__).parent


def reason(run: Path) -> str:
    return json.loads((run / "state.json").read_text())["reason"]


@pytest.mark.parametrize("processes", [1, 2])
def test_an_image_unreadable_while_statistics_are_measured(processes: int, tree: Path, tmp_path: Path) -> None:
    """torchrun then stops the other rank by a signal, which is no wish of the user's."""
    run, data = tmp_path / "run", shutil.copytree(tree, tmp_path / "data")
    bad = sorted((data / "train" / "class4").iterdir())[-1]
    bad.write_bytes(b"no image")
    flags = (*SMALL, "--data", data, "--out", run)
    ended = here(TRAIN, *flags) if processes == 1 else torchrun(processes, TRAIN, *flags)
    assert ended.err.count(f"error: {bad}") == 1
    assert state(run) == ("failed", 0) and str(bad) in reason(run)


def test_a_refusal_to_go_on_replaces_the_state_before(tree: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert here(TRAIN, *SMALL, "--data", tree, "--out", run, "--time-limit", 1e-6).code == 0
    assert state(run) == ("preempted", 1)
    for path in (run / "checkpoints").glob("*.pt"):
        path.write_bytes(path.read_bytes()[:1000])
    ended = here(TRAIN, *SMALL, "--data", tree, "--out", run)
    assert ended.code == 2 and "no whole checkpoint" in ended.err
    assert state(run) == ("failed", 1) and "no whole checkpoint" in reason(run)


def test_training_goes_on_where_its_lines_cannot_be_written(tree: Path, tmp_path: Path) -> None:
    with Path("/dev/full").open("w") as full:
        ended = here(TRAIN, *SMALL, "--data", tree, "--out", tmp_path / "run", "--max-steps", 2, stdout=full)
    assert (ended.code, state(tmp_path / "run")) == (0, ("done", 2))
    assert ended.err.startswith("warning: stdout: No space left on device; later lines") and ended.err.count("\n") == 1


def test_a_run_with_nothing_to_do_is_done(one_process: Path, tree: Path, tmp_path: Path) -> None:
    run = shutil.copytree(one_process, tmp_path / "run")
    (run / "state.json").write_text('{"state": "running", "step": 6, "reason": ""}')
    assert here(TRAIN, *SMALL, *STEPS, "--data", tree, "--out", run).code == 0
    assert state(run) == ("done", 20)


def test_the_last_checkpoint_not_saved_is_a_failure(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, save = tmp_path / "run", checkpoint.save

    def until_the_disk_is_full(path: Path, contents: dict) -> None:
        if contents["step"] > 6:
            raise OSError(28, "No space left on device")
        save(path, contents)

    monkeypatch.setattr(checkpoint, "save", until_the_disk_is_full)
    ended = here(TRAIN, *SMALL, *STEPS, "--data", tree, "--out", run)
    assert ended.code == 2
    assert ended.err.splitlines()[-1].startswith(f"error: {run / 'checkpoints' / 'step-000000020.pt'}: not saved")
    assert state(run) == ("failed", 20)
    assert checkpoint.load(run / "checkpoints" / "last.pt")["step"] == 6


@pytest.mark.parametrize("processes", [1, 2])
def test_a_validation_image_unreadable_costs_no_step(
    processes: int, one_process: Path, tree: Path, tmp_path: Path
) -> None:
    run, data = tmp_path / "run", shutil.copytree(tree, tmp_path / "data")
    bad = data / "val" / "class2" / "1.png"
    whole = bad.read_bytes()
    bad.write_bytes(whole[:100])
    flags = (*SMALL, *STEPS, "--data", data, "--out", run)
    train = functools.partial(here if processes == 1 else functools.partial(on_ranks, processes), TRAIN)
    ended = train(*flags)
    if processes == 1:
        assert_refused(ended, bad)
    (line,) = [line for line in ended.err.splitlines() if line.startswith(("error:", "warning:"))]
    assert f"error: {bad}" in line
    assert state(run) == ("failed", 6) and str(bad) in reason(run)
    bad.write_bytes(whole)
    ended = train(*flags)
    assert ended.code == 0 and "going on at step 6" in ended.out
    if processes == 1:
        assert_same_to_the_bit(run, one_process)
    assert [row["step"] for row in rows(run) if "val_top1_error" in row] == [6, 12, 18]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1])
def test_a_signal_while_the_first_step_is_made_ready(number: int, tree: Path, tmp_path: Path) -> None:
    process = start("-u", TRAIN, *SMALL, "--data", tree, "--out", tmp_path / "run", "--epochs", 1000)
    assert process.stdout
    for line in process.stdout:
        if line.startswith("net "):
            break
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, "")
    assert state(tmp_path / "run") == ("preempted", 1)


@pytest.mark.slow
@pytest.mark.parametrize(("rank", "named"), [(0, "rank 0, or torchrun on its node,"), (1, "rank 1")])
def test_a_rank_that_stands_still_is_named(rank: int, named: str, tree: Path, tmp_path: Path) -> None:
    """Rank 0 keeps the store, as the README has it for several nodes: what the ranks know of each other stands still.

    Rank 0 alone writes ``state.json``, with any other rank's end in it.
    """
    run = tmp_path / "run"
    flags = (*SMALL, "--data", tree, "--out", run, "--epochs", 1000, "--collective-timeout", 5)
    command = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", 2, TRAIN, *flags)
    agent = start(*command, TORCH_DISABLE_SHARE_RDZV_TCP_STORE="1")
    while agent.poll() is None and not ((run / "metrics.jsonl").exists() and rows(run)):
        time.sleep(0.05)
    frozen = children(agent.pid)[rank]
    os.kill(frozen, signal.SIGSTOP)
    try:
        said = next((line for line in agent.stderr or () if line.startswith("error: ")), "")
    finally:
        os.kill(frozen, signal.SIGKILL)  # torchrun would give it 30 s
    agent.communicate(timeout=60)
    assert f"{named} stopped answering" in said
    assert agent.returncode != 0
    if rank == 1:
        assert state(run)[0] == "failed" and "rank 1 stopped answering" in reason(run)


@pytest.mark.parametrize("command", [[TRAIN, "--describe"], [ABLATE, "--data", "sample", "--out", "none", "--plan"]])
def test_output_that_nobody_reads_on_is_no_traceback(command: list[object]) -> None:
    """As in ``... | head -n 1``, whose reader has left before all is written."""
    reading, writing = os.pipe()
    os.close(reading)
    ended = subprocess.run([sys.executable, *command], stdout=writing, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writing)
    assert (ended.returncode, ended.stderr) == (1, "")


@pytest.mark.slow
def test_work_may_take_longer_than_a_collective(tree: Path, tmp_path: Path) -> None:
    """The others wait for it, and say so."""
    run = tmp_path / "run"
    flags = (*SMALL, "--data", tree, "--out", run, "--epochs", 1, "--placement", "together", "--collective-timeout", 2)
    ended = on_ranks(2, HERE / "train_slowly.py", *flags)
    assert ended.code == 0, ended.err
    assert "of waiting for rank 1, which is still in step 2 (a training step)" in ended.err
    assert "of waiting for rank 0, which is still in step 6 (drawing the figures)" in ended.err
    assert state(run) == ("done", 6)


@pytest.mark.parametrize(("ending", "code", "said"), [("pass", 0, ""), ("raise Diverged('nan')", 3, "error: nan\n")])
def test_a_rank_of_several_exits_before_the_interpreter_s_end(ending: str, code: int, said: str) -> None:
    """There torch's threads may abort it, and torchrun reports a signal instead of the exit code."""
    program = f"""
import atexit, os
from alexnet2012.core.command_line import exit_code, exit_process
from alexnet2012.core.errors import Diverged

def command():
    print("said before", end="")
    {ending}

atexit.register(os.abort)
exit_process(exit_code(command))
"""
    process = start("-c", program, WORLD_SIZE="2")
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err) == (code, "said before", said)
