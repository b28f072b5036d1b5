"""Forks the ranks of ``running.ranks`` from one process that has imported torch and the package.

It never computes: forking after threads of OpenMP or autograd have started may hang. A line on stdin asks for the
ranks of one run; a line on stdout gives their exit codes. As under torchrun, a rank that fails ends the others.
"""

from __future__ import annotations

import json
import os
import runpy
import signal
import sys

import alexnet2012.reporting.figures.gallery  # noqa: F401
import evaluate  # noqa: F401  (what the ranks import)
import train_imagenet  # noqa: F401
from alexnet2012.distributed.heartbeat import die_with_parent

LIMIT = 180  # seconds that a run may take


def become(rank: int, run: dict) -> None:
    """Become ``rank`` of ``run``: a process as torchrun starts it."""
    die_with_parent(os.getppid())
    for stream, number in (("out", 1), ("err", 2)):
        os.dup2(os.open(run[stream], os.O_WRONLY | os.O_APPEND), number)
    os.environ.clear()
    os.environ.update(run["environment"], RANK=str(rank), LOCAL_RANK=str(rank))
    sys.argv = run["command"]


def wait(ranks: list[int]) -> list[int]:
    """The exit code of each of ``ranks``, a negative number for a signal's."""
    codes: dict[int, int] = {}
    failed = False
    while len(codes) < len(ranks):
        process, status = os.wait()
        codes[process] = os.waitstatus_to_exitcode(status)
        if codes[process] and not failed:
            failed = True
            for other in set(ranks) - codes.keys():
                os.kill(other, signal.SIGTERM)
    return [codes[rank] for rank in ranks]


def serve() -> bool:
    """Answer requests until stdin ends; True in each forked rank, which leaves the loop at once."""
    die_with_parent()
    for line in sys.stdin:
        run, ranks = json.loads(line), []
        for rank in range(run["processes"]):
            if not (process := os.fork()):
                become(rank, run)
                return True
            ranks.append(process)
        signal.alarm(LIMIT)
        print(json.dumps(wait(ranks)), flush=True)
        signal.alarm(0)
    return False


if serve():
    runpy.run_path(sys.argv[0], run_name="__main__")
