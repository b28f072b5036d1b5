"""The benchmark's command: what it refuses, and what it keeps."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from running import ROOT, assert_refused, here

from alexnet2012.benchmark import lrn
from alexnet2012.benchmark.compare import Figure
from alexnet2012.benchmark.synthetic import prepared_and_files

BENCHMARK = ROOT / "launch" / "benchmark.py"


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("between-ranks",), "invalid choice: 'between-ranks'"),
        (("lrn", "--json", "nowhere/speed.json"), "--json"),
        (("loader", "--data", "sample"), "--data sample: not a prepared set"),
        (("all", "--data", ROOT), f"--data {ROOT}: not a prepared set"),
    ],
)
def test_bad_input_is_one_line(flags: tuple[object, ...], said: str) -> None:
    assert_refused(here(BENCHMARK, *flags), said)


def test_a_small_set_is_refused() -> None:
    with prepared_and_files(images=32) as (prepared, _):
        assert_refused(here(BENCHMARK, "evaluate", "--data", prepared), "has 32 training images")


def test_an_interruption_keeps_what_was_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = Figure("lrn", "forward", "a copy", "ms", 1.0, 2.0, 2.0, 2.0, 2.0, None)

    def interrupted(device: torch.device) -> Iterator[Figure]:
        yield first
        raise KeyboardInterrupt

    monkeypatch.setattr(lrn, "figures", interrupted)
    ended = here(BENCHMARK, "lrn", "--json", tmp_path / "speed.json")
    assert ended.code == 128 + signal.SIGINT and "lrn: forward: 1.00 ms" in ended.out
    assert len(json.loads((tmp_path / "speed.json").read_text())["figures"]) == 1
