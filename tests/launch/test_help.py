"""Flags answer at once: nothing heavy is imported for ``--help`` or to refuse a wrong flag."""

from __future__ import annotations

import pytest
from running import ROOT, start

from alexnet2012.data import DATASETS
from alexnet2012.network.reference import NETS

FILES = sorted(str(path) for room in ("launch", "data_prep") for path in (ROOT / room).glob("*.py"))
ANSWERS = """
import runpy, sys

class Heavy:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "torchvision", "nvidia", "numpy", "scipy", "matplotlib", "PIL"):
            raise ImportError(f"{name} is imported for flags")

sys.meta_path.insert(0, Heavy())
for file in sys.argv[1:]:
    for flag in ("--help", "--no-such-flag"):
        sys.argv = [file, flag]
        try:
            runpy.run_path(file, run_name="__main__")
        except SystemExit as ending:
            print("exit", ending.code or 0)
"""


def test_flags_need_neither_torch_nor_numpy() -> None:
    """So main() sets how OpenMP's threads wait before torch is there to read it."""
    out, err = start("-c", ANSWERS, *FILES).communicate(timeout=120)
    assert len(FILES) >= 7 and [line for line in out.splitlines() if line.startswith("exit")] == [
        "exit 0",
        "exit 2",
    ] * len(FILES), err
    assert out.count("usage:") == len(FILES)
    lines = err.splitlines()
    assert len(lines) == len(FILES) and all("--no-such-flag" in line or "are required" in line for line in lines), err
    assert "None)" not in out and "(default: the recipe's)" in out


@pytest.mark.parametrize("registry", [NETS, DATASETS], ids=["nets", "datasets"])
def test_what_the_registries_name_is_there(registry: dict[str, object]) -> None:
    assert all(registry[name] for name in registry)
