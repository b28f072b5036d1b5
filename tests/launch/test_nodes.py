"""Two "nodes": two torchrun agents on loopback, two processes each, as on two machines."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch.distributed as dist
from running import ROOT, SMALL, TRAIN, losses, start

from alexnet2012.distributed.heartbeat import LostRank
from alexnet2012.distributed.layout import fresh_prefix, shared_store


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def agent(port: int, log: Path, *flags: object) -> subprocess.Popen[bytes]:
    """One node's torchrun; the first to come hosts the rendezvous."""
    node = ("--nnodes", 2, "--nproc-per-node", 2, "--max-restarts", 3, "--rdzv-backend", "c10d", "--rdzv-id", "test")
    command = (sys.executable, "-m", "torch.distributed.run", *node, "--rdzv-endpoint", f"127.0.0.1:{port}", TRAIN)
    with log.open("ab") as output:
        return subprocess.Popen(
            [*map(str, (*command, *SMALL, *flags))],
            stdout=output,
            stderr=output,
            cwd=ROOT,
            env={**os.environ, "OMP_NUM_THREADS": "1", "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"},
        )


def wait_for_rows(run: Path, count: int) -> None:
    metrics, deadline = run / "metrics.jsonl", time.monotonic() + 120
    while not (metrics.exists() and metrics.read_text().count("\n") >= count) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert metrics.exists()


@pytest.mark.slow
def test_two_nodes_train_as_one_and_a_lost_node_comes_back(tree: Path, one_process: Path, tmp_path: Path) -> None:
    run, port = tmp_path / "run", free_port()
    flags = ("--data", tree, "--out", run, "--max-steps", 20, "--checkpoint-every", 2, "--collective-timeout", 60)
    host = agent(port, tmp_path / "host.log", *flags)
    time.sleep(1)  # so that it is the one that hosts the store
    other = agent(port, tmp_path / "other.log", *flags)
    wait_for_rows(run, 5)
    other.kill()
    other.wait()
    time.sleep(20)  # torchrun's rendezvous takes 15 s to count a silent node out, and errs if it comes back sooner
    other = agent(port, tmp_path / "other.log", *flags)
    codes = [process.wait(timeout=240) for process in (host, other)]
    logs = [(tmp_path / name).read_text()[-3000:] for name in ("host.log", "other.log")]
    assert codes == [0, 0], logs
    assert losses(run) == pytest.approx(losses(one_process), rel=1e-4)
    assert "going on at step" in (tmp_path / "host.log").read_text() + (tmp_path / "other.log").read_text()


@pytest.mark.parametrize("rank", [0, 1])
def test_a_rank_that_finds_no_other_says_so(rank: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rank 0 keeps a store that nobody answers to; rank 1 finds none."""
    port = free_port()
    for name, value in {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "RANK": rank, "WORLD_SIZE": 2}.items():
        monkeypatch.setenv(name, str(value))
    with pytest.raises(LostRank, match=f"rank {rank} waited 0.5 s for the other ranks at 127.0.0.1:{port}"):
        shared_store(rank, 2, 0.5)


def test_an_offer_of_an_earlier_attempt_is_not_waited_for_for_ever() -> None:
    store = dist.HashStore()
    store.set("offer", "made by a rank 0 that is gone")
    with pytest.raises(dist.DistError):
        fresh_prefix(store, 1, 2, 0.2)


def test_nodes_that_do_not_share_the_run_s_directory(tree: Path, tmp_path: Path) -> None:
    for rank in ("0", "1"):
        (tmp_path / rank).mkdir()
    command = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", 2)
    script = Path(__file__).with_name("train_apart.py")
    process = start(*command, script, *SMALL, "--data", tree, "--out", "run", directory=tmp_path)
    _, err = process.communicate(timeout=120)
    assert err.count("error: --out run: rank 1 on ") == 1, err
    assert "does not see what rank 0 writes there; give a directory that all nodes share" in err
    assert err.count("exitcode  : 2") == 2
    assert not (tmp_path / "1" / "run").exists()
