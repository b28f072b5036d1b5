"""Starting the launch files: in this process where that is enough, else as a shell does."""

from __future__ import annotations

import atexit
import contextlib
import functools
import io
import json
import os
import runpy
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import pytest
import torch
import torch.distributed as dist
from PIL import Image

from alexnet2012.evaluation import checkpoint

ROOT = Path(__file__).parents[1]
TRAIN = ROOT / "launch" / "train_imagenet.py"
SMALL = (
    *("--loader", "pillow", "--workers", "1", "--width", "0.0625", "--batch-size", "6", "--epochs", "4"),
    *("--lr", "0.001", "--log-every", "1"),
)


@dataclass(frozen=True)
class Ended:
    """What a command left: the shell's exit code and its two streams."""

    code: int
    out: str
    err: str
    codes: list[int] = field(default_factory=list)  # of each rank that ``on_ranks`` started


def here(file: Path, *flags: object, stdout: TextIO | None = None) -> Ended:
    """Run ``file`` as ``python file flags`` does, but in this process: seconds less. ``stdout``: where it prints."""
    out, err = io.StringIO(), io.StringIO()
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)}
    with (
        pytest.MonkeyPatch.context() as patch,
        contextlib.redirect_stdout(stdout or out),
        contextlib.redirect_stderr(err),
    ):
        patch.setattr(sys, "argv", [str(file), *map(str, flags)])
        with pytest.raises(SystemExit) as ending:
            runpy.run_path(str(file), run_name="__main__")
    for number, handler in handlers.items():
        signal.signal(number, handler)
    return Ended(ending.value.code or 0, out.getvalue(), err.getvalue())


IMPORTS = {"PYTHONPATH": f"{ROOT / 'launch'}:{ROOT / 'tests'}"}


def start(*command: object, directory: Path = ROOT, **variables: str) -> subprocess.Popen[str]:
    """Start python with ``command`` in ``directory``, with ``variables`` in its environment."""
    environment = {**os.environ, **IMPORTS, **variables}
    return subprocess.Popen(
        [sys.executable, *map(str, command)], stdout=-1, stderr=-1, text=True, env=environment, cwd=directory
    )


def torchrun(processes: int, file: Path, *flags: object) -> Ended:
    """Run ``file`` under torchrun, on a free port."""
    process = start("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", processes, file, *flags)
    out, err = process.communicate(timeout=180)
    return Ended(process.returncode, out, err)


@functools.cache
def rank_server() -> subprocess.Popen[str]:
    """``rank_server.py``, from its first use to the end of the tests."""
    command, environment = (sys.executable, ROOT / "tests" / "rank_server.py"), {**os.environ, **IMPORTS}
    server = subprocess.Popen(command, stdin=-1, stdout=-1, text=True, bufsize=1, env=environment, cwd=ROOT)
    atexit.register(server.communicate)
    return server


def on_ranks(processes: int, file: Path, *flags: object) -> Ended:
    """Run ``file`` in as many ``processes`` as ``torchrun`` does, forked: 4 s of CPU less a rank, 2 s less a run.

    The exit code is 0 or another rank's. Where torchrun's own part is the point, use ``torchrun``.
    """
    store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    environment = {**os.environ, **IMPORTS, "WORLD_SIZE": processes, "LOCAL_WORLD_SIZE": processes}
    environment |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": store.port}
    environment |= {"TORCHELASTIC_USE_AGENT_STORE": True, "TORCHELASTIC_RESTART_COUNT": 0}  # ``store``, not rank 0's
    with tempfile.NamedTemporaryFile("r") as out, tempfile.NamedTemporaryFile("r") as err:
        run = {"processes": processes, "command": [*map(str, (file, *flags))], "out": out.name, "err": err.name}
        run["environment"] = {name: str(value) for name, value in environment.items()}
        server = rank_server()
        print(json.dumps(run), file=server.stdin)
        answer = server.stdout.readline()
        assert answer, f"the server of ranks ended: {err.read()}"
        codes = json.loads(answer)
        return Ended(max(codes, key=bool), out.read(), err.read(), codes)


def assert_refused(ended: Ended, *said: object) -> None:
    """Bad input: exit code 2 and one line, which says all of ``said``."""
    assert (ended.code, ended.err.count("\n")) == (2, 1), ended.err
    assert ended.err.startswith("error: ")
    for words in said:
        assert str(words) in ended.err


def rows(run: Path) -> list[dict[str, Any]]:
    """The rows of ``metrics.jsonl``."""
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def losses(run: Path) -> dict[int, float]:
    """Loss by step; each step has one row."""
    found = [(row["step"], row["loss"]) for row in rows(run) if "loss" in row]
    assert len(found) == len(dict(found))
    return dict(found)


def children(process: int) -> dict[int, int]:
    """Rank -> process id of torchrun's workers."""
    found = {}
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            stat = (entry / "stat").read_text().rpartition(")")[2].split()
            environment = (entry / "environ").read_bytes().split(b"\0")
        except OSError:
            continue
        rank = [value[5:] for value in environment if value.startswith(b"RANK=")]
        if int(stat[1]) == process and rank:
            found[int(rank[0])] = int(entry.name)
    return found


def last(run: Path) -> dict:
    return checkpoint.load(run / "checkpoints" / "last.pt")


def tensors(saved: dict) -> dict[str, torch.Tensor]:
    """The weights and velocities of a checkpoint by name: "velocity of towers.0.conv1.weight"."""
    kinds = {"weights": saved["weights"], **saved["optimizer"]}
    return {f"{kind} of {name}": tensor for kind, by_name in kinds.items() for name, tensor in by_name.items()}


def state(run: Path) -> tuple[str, int]:
    said = json.loads((run / "state.json").read_text())
    return said["state"], said["step"]


def assert_same_to_the_bit(run: Path, whole: Path) -> None:
    """Every row once, the same losses, errors, weights and velocities."""

    def measured(run: Path) -> list[dict[str, float]]:
        timed = ("images_per_second", "data_wait")
        return [{name: value for name, value in row.items() if name not in timed} for row in rows(run)]

    assert measured(run) == measured(whole)
    ours, theirs = tensors(last(run)), tensors(last(whole))
    assert ours.keys() == theirs.keys() and all(torch.equal(value, theirs[name]) for name, value in ours.items())


def write_tree(directory: Path, classes: int = 5, train: int = 8, val: int = 3) -> Path:
    """``train/<class>/*`` and ``val/<class>/*``: small PNG and JPEG files of odd sizes, coloured by class."""
    random = np.random.default_rng(2012)
    for split, count in (("train", train), ("val", val)):
        for label in range(classes):
            folder = directory / split / f"class{label}"
            folder.mkdir(parents=True)
            for number in range(count):
                write_image(folder / f"{number}.{'png' if number % 2 else 'JPEG'}", label, random)
    return directory


def write_image(path: Path, label: int, random: np.random.Generator) -> None:
    height, width = random.integers(40, 90, 2)
    pixels = random.integers(0, 128, (height, width, 3)) + np.array([label * 16, 128 - label * 16, 64])
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(path)
