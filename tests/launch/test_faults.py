"""One long run under faults: it ends as the run that nothing disturbed.

``ALEXNET2012_FAULTS`` is the number of faults a layout meets; the default keeps the suite short.
"""

from __future__ import annotations

import json
import os
import random
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from running import ROOT, SMALL, TRAIN, children, losses

FAULTS = int(os.environ.get("ALEXNET2012_FAULTS", 3))
STEPS_A_FAULT = 5
TIMEOUT = 60  # seconds: the runs' --collective-timeout; no fault may hang them for longer


@dataclass
class Run:
    """A run under torchrun that is started as often as it takes."""

    processes: int
    data: Path
    out: Path
    steps: int

    def start(self, file_size: int | None = None) -> subprocess.Popen[str]:
        flags = ("--data", self.data, "--out", self.out, "--epochs", 100, "--max-steps", self.steps)
        patience = ("--collective-timeout", TIMEOUT, "--checkpoint-every", 2)
        command = ("-m", "torch.distributed.run", "--standalone", "--max-restarts", 1, "--nproc-per-node")
        limit = (lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (file_size, file_size))) if file_size else None
        return subprocess.Popen(
            [*map(str, (sys.executable, *command, self.processes, TRAIN, *SMALL, *flags, *patience))],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=ROOT,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            preexec_fn=limit,
        )

    def step(self) -> int:
        """Steps in ``metrics.jsonl``."""
        metrics = self.out / "metrics.jsonl"
        return metrics.read_text().count('"loss"') if metrics.exists() else 0

    def wait_for_step(self, agent: subprocess.Popen[str], step: int) -> bool:
        """Whether the run reached ``step`` before it ended."""
        while self.step() < step and agent.poll() is None:
            time.sleep(0.02)
        return agent.poll() is None

    def finish(self) -> str:
        """Let a start run to its end."""
        agent = self.start()
        output, _ = agent.communicate(timeout=300)
        assert agent.returncode == 0, output
        return output

    def state(self) -> str:
        return json.loads((self.out / "state.json").read_text())["state"]

    def newest(self) -> Path:
        return max((self.out / "checkpoints").glob("step-*.pt"))


def kill_rank(rank: int) -> Callable[[Run, subprocess.Popen[str]], None]:
    """SIGKILL of one worker: torchrun starts all again, by itself, from the newest checkpoint."""

    def fault(run: Run, agent: subprocess.Popen[str]) -> None:
        before = run.step()
        os.kill(children(agent.pid)[rank % run.processes], signal.SIGKILL)
        assert run.wait_for_step(agent, before + 2), agent.communicate()[0]
        agent.send_signal(signal.SIGTERM)
        agent.communicate(timeout=2 * TIMEOUT)

    return fault


def kill_agent(run: Run, agent: subprocess.Popen[str]) -> None:
    """SIGKILL of torchrun: its workers end by themselves within seconds."""
    workers = children(agent.pid)
    agent.kill()
    agent.communicate(timeout=TIMEOUT)
    deadline = time.monotonic() + 10
    while any(Path(f"/proc/{pid}/environ").exists() for pid in workers.values()) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(Path(f"/proc/{pid}/environ").exists() for pid in workers.values())


def terminate(run: Run, agent: subprocess.Popen[str]) -> None:
    """SIGTERM of torchrun: all ranks stop at a step's edge after a checkpoint."""
    agent.send_signal(signal.SIGTERM)
    agent.communicate(timeout=2 * TIMEOUT)
    assert run.state() == "preempted"


def cut_checkpoint(run: Run, agent: subprocess.Popen[str]) -> None:
    """The newest checkpoint loses its end: the one before it is used."""
    terminate(run, agent)
    newest = run.newest()
    with newest.open("r+b") as file:
        file.truncate(random.randrange(newest.stat().st_size))


def flip_byte(run: Run, agent: subprocess.Popen[str]) -> None:
    """One byte of the newest checkpoint's tensors is altered."""
    terminate(run, agent)
    newest = run.newest()
    content = bytearray(newest.read_bytes())
    content[len(content) // 2] ^= 1
    newest.write_bytes(content)


def fill_disk(run: Run, agent: subprocess.Popen[str]) -> None:
    """No file may grow beyond 100 kB: saves fail with a warning, the run goes on."""
    terminate(run, agent)
    before, newest = run.step(), run.newest()
    agent = run.start(file_size=100_000)
    assert run.wait_for_step(agent, before + 5), agent.communicate()[0]
    agent.send_signal(signal.SIGTERM)
    output, _ = agent.communicate(timeout=2 * TIMEOUT)
    assert "not saved" in output and "training goes on" in output
    assert newest.exists() and not list(newest.parent.glob("*.partial"))


def remove_image(run: Run, agent: subprocess.Popen[str]) -> None:
    """A data file goes away: its name in one line, after a checkpoint; with it back the run goes on."""
    victim = sorted((run.data / "train").glob("*/*"))[random.randrange(40)]
    away = run.data / "away"
    victim.rename(away)
    output, _ = agent.communicate(timeout=2 * TIMEOUT)
    away.rename(victim)
    assert output.count(f"error: {victim}") >= 1, output
    assert run.state() == "failed"


EVERY_FAULT = [
    kill_rank(0),
    terminate,
    kill_agent,
    cut_checkpoint,
    kill_rank(1),
    flip_byte,
    fill_disk,
    remove_image,
    kill_rank(2),
]


@pytest.mark.parametrize("processes", [2, 4])
def test_a_run_under_faults_ends_as_one_without(processes: int, tree: Path, tmp_path: Path) -> None:
    steps = 20 + STEPS_A_FAULT * FAULTS
    undisturbed = Run(processes, tree, tmp_path / "undisturbed", steps)
    undisturbed.finish()
    run = Run(processes, tree, tmp_path / "run", steps)
    start = random.randrange(len(EVERY_FAULT))
    for number in range(FAULTS):
        agent = run.start()
        planned = 2 + STEPS_A_FAULT * number + random.randrange(3)
        if run.wait_for_step(agent, max(planned, run.step() + 1)):
            EVERY_FAULT[(start + number) % len(EVERY_FAULT)](run, agent)
        agent.communicate()
    run.finish()
    assert losses(run.out) == losses(undisturbed.out)
    assert run.state() == "done"
