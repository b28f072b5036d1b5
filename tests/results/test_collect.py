"""What is kept of a run: no path of a machine, every epoch's row, few of the steps'."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from running import ROOT


def test_a_run_is_kept_without_paths_and_thinned(tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / "config.json").write_text(json.dumps({"settings": {"data": "/home/me/photographs"}, "command": ["/a/b.py"]}))
    rows = [{"step": step, "loss": 1.0} for step in range(1, 12)] + [{"step": 11, "val_loss": 1.0, "val_top1_error": 5}]
    (run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    command = [sys.executable, ROOT / "results" / "collect.py", run, "--out", tmp_path / "kept", "--every", "4"]
    subprocess.run(command, check=True)
    kept = tmp_path / "kept" / "run"
    assert json.loads((kept / "config.json").read_text()) == {
        "settings": {"data": "photographs"},
        "command": ["b.py"],
    }
    found = [json.loads(line) for line in (kept / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in found] == [1, 5, 9, 11, 11] and "val_loss" in found[-1]
