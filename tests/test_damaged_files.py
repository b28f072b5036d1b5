"""Damaged and hostile files: what every reader makes of them. ``ALEXNET2012_DAMAGES=1000`` for a longer round."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

COUNT = int(os.environ.get("ALEXNET2012_DAMAGES", "148"))  # four for each pair of file and reader
SEED = 2012


def test_damage_is_refused_in_one_line_or_does_no_harm() -> None:
    """In a process without threads, which forks for each damage."""
    command = [sys.executable, "damaged_files.py", "--count", str(COUNT), "--seed", str(SEED)]
    child = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True)
    assert child.returncode == 0, child.stdout + child.stderr
    assert f"{COUNT} damages" in child.stdout
