"""One long run under faults: it ends as the run that nothing disturbed.

``ALEXNET2012_FAULTS`` is the number of faults a layout meets, ``ALEXNET2012_FAULTS_SEED`` decides which, and when; the
defaults keep a round short.
"""

from __future__ import annotations

import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from running import ROOT, SMALL, TRAIN, assert_same_to_the_bit, children

FAULTS = int(os.environ.get("ALEXNET2012_FAULTS", 3))
SEED = int(os.environ.get("ALEXNET2012_FAULTS_SEED", 2012))
TIMEOUT = 60  # seconds: the runs' --collective-timeout; no fault may hang them for longer
MINUTES = 60  # seconds; a start of four processes takes one on a busy core


@dataclass
class Run:
    """A run under torchrun that is started as often as it takes."""

    processes: int
    data: Path
    out: Path
    random: random.Random = field(default_factory=random.Random)
    says_next: str = ""  # what the next start says of the last fault

    @property
    def log(self) -> Path:
        """What all starts said."""
        return self.out.with_suffix(".log")

    def start(self, *more: object, file_size: int | None = None) -> subprocess.Popen[bytes]:
        """Start without a last step, so that no fault comes too late."""
        flags = ("--data", self.data, "--out", self.out, "--epochs", 1000)
        patience = ("--collective-timeout", TIMEOUT, "--checkpoint-every", 2)
        command = ("-m", "torch.distributed.run", "--standalone", "--max-restarts", 1, "--nproc-per-node")
        limit = (lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (file_size, file_size))) if file_size else None
        with self.log.open("ab") as log:
            return subprocess.Popen(
                [*map(str, (sys.executable, *command, self.processes, TRAIN, *SMALL, *flags, *patience, *more))],
                stdout=log,
                stderr=log,
                cwd=ROOT,
                env={**os.environ, "OMP_NUM_THREADS": "1"},
                preexec_fn=limit,
            )

    def said(self, since: int = 0) -> str:
        """What starts said from byte ``since`` of the log on."""
        return self.log.read_bytes()[since:].decode(errors="replace")

    def step(self) -> int:
        """Steps in ``metrics.jsonl``."""
        metrics = self.out / "metrics.jsonl"
        return metrics.read_text().count('"loss"') if metrics.exists() else 0

    def reach(self, agent: subprocess.Popen[bytes], step: int) -> None:
        """Wait until the run reports ``step``; the agent lives then."""
        deadline = time.monotonic() + 5 * MINUTES
        while self.step() < step and agent.poll() is None and time.monotonic() < deadline:
            time.sleep(0.02)
        assert self.step() >= step and agent.poll() is None, self.said()[-5000:]

    def finish(self, steps: int) -> None:
        """Let a start run to its end at ``steps``."""
        agent = self.start("--max-steps", steps)
        assert agent.wait(timeout=10 * MINUTES) == 0, self.said()[-5000:]
        assert self.state() == "done"

    def state(self) -> str:
        return json.loads((self.out / "state.json").read_text())["state"]

    def newest(self) -> Path:
        return max((self.out / "checkpoints").glob("step-*.pt"))


Fault = Callable[[Run, "subprocess.Popen[bytes]"], None]  # on a run that steps; in the end its agent has left


def kill_rank(rank: int) -> Fault:
    """SIGKILL of one worker: torchrun starts all again, by itself, from the newest checkpoint."""

    def fault(run: Run, agent: subprocess.Popen[bytes]) -> None:
        before, said = run.step(), run.log.stat().st_size
        victim = children(agent.pid)[rank % run.processes]
        os.kill(victim, signal.SIGKILL)
        run.reach(agent, before + 2)
        assert "going on at step" in run.said(said) and victim not in children(agent.pid).values()
        terminate(run, agent)

    return fault


def kill_agent(run: Run, agent: subprocess.Popen[bytes]) -> None:
    """SIGKILL of torchrun: its workers end by themselves within seconds."""
    workers = children(agent.pid).values()
    assert len(workers) == run.processes
    agent.kill()
    agent.wait()
    deadline = time.monotonic() + 10
    while any(Path(f"/proc/{pid}/environ").exists() for pid in workers) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(Path(f"/proc/{pid}/environ").exists() for pid in workers)


def terminate(run: Run, agent: subprocess.Popen[bytes]) -> None:
    """SIGTERM of torchrun: all ranks stop at a step's edge after a checkpoint."""
    agent.send_signal(signal.SIGTERM)
    agent.wait(timeout=2 * TIMEOUT)
    assert run.state() == "preempted", run.said()[-5000:]


def cut_checkpoint(run: Run, agent: subprocess.Popen[bytes]) -> None:
    """The newest checkpoint loses its end: the one before it is used."""
    terminate(run, agent)
    newest = run.newest()
    os.truncate(newest, run.random.randrange(newest.stat().st_size))
    run.says_next = f"warning: {newest}: "


def flip_byte(run: Run, agent: subprocess.Popen[bytes]) -> None:
    """One byte of the newest checkpoint's tensors is altered."""
    terminate(run, agent)
    newest = run.newest()
    content = bytearray(newest.read_bytes())
    content[len(content) // 2] ^= 1
    newest.write_bytes(content)
    run.says_next = f"warning: {newest}: damaged"


def fill_disk(run: Run, agent: subprocess.Popen[bytes]) -> None:
    """No file may grow beyond what the log needs: saves fail with a warning, the run goes on."""
    terminate(run, agent)
    before, newest, said = run.step(), run.newest(), run.log.stat().st_size
    agent = run.start(file_size=said + 100_000)
    run.reach(agent, before + 5)
    agent.send_signal(signal.SIGTERM)
    agent.wait(timeout=2 * TIMEOUT)
    assert "not saved" in run.said(said) and "training goes on" in run.said(said)
    assert run.newest() == newest and not list(newest.parent.glob("*.partial"))


def remove_image(run: Run, agent: subprocess.Popen[bytes]) -> None:
    """A data file goes away: its name in one line, after a checkpoint; with it back the run goes on."""
    victim, said = run.random.choice(sorted((run.data / "train").glob("*/*"))), run.log.stat().st_size
    away = run.data / "away"
    victim.rename(away)
    agent.wait(timeout=2 * TIMEOUT)
    away.rename(victim)
    assert f"error: {victim}" in run.said(said), run.said()[-5000:]
    assert run.state() == "failed"


EVERY_FAULT = {
    "rank 0 killed": kill_rank(0),
    "terminated": terminate,
    "torchrun killed": kill_agent,
    "checkpoint cut": cut_checkpoint,
    "rank 1 killed": kill_rank(1),
    "checkpoint altered": flip_byte,
    "disk full": fill_disk,
    "image gone": remove_image,
    "rank 2 killed": kill_rank(2),
}


@pytest.mark.slow
@pytest.mark.timeout((10 + 5 * FAULTS) * MINUTES)
@pytest.mark.parametrize("processes", [2, 4])
def test_a_run_under_faults_ends_as_one_without(processes: int, tree: Path, tmp_path: Path) -> None:
    """Which faults: each once before any comes again. When: the run decides, in the end, how long it was."""
    data, chance = shutil.copytree(tree, tmp_path / "data"), random.Random(SEED)
    run = Run(processes, data, tmp_path / "run", chance)
    faults: list[str] = []
    while len(faults) < FAULTS:
        faults += chance.sample(list(EVERY_FAULT), min(len(EVERY_FAULT), FAULTS - len(faults)))
    print(f"seed {SEED}: {', '.join(faults)}")
    for name in faults:
        said = run.log.stat().st_size if run.log.exists() else 0
        saved = any(run.out.glob("checkpoints/step-*.pt"))
        agent = run.start()
        run.reach(agent, run.step() + 1 + chance.randrange(3))
        assert run.says_next in run.said(said) and ("going on at step" in run.said(said) or not saved)
        run.says_next = ""
        EVERY_FAULT[name](run, agent)
        assert agent.poll() is not None
        print(f"{name}: by step {run.step()}", flush=True)
    steps = run.step() + 2
    run.finish(steps)
    undisturbed = Run(processes, data, tmp_path / "undisturbed")
    undisturbed.finish(steps)
    assert_same_to_the_bit(run.out, undisturbed.out)
