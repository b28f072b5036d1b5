"""Data and runs that several tests look at."""

from __future__ import annotations

from pathlib import Path

import pytest
from running import SMALL, TRAIN, here, write_tree


@pytest.fixture(scope="session")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five classes: an odd number. 40 training images, six batches of six; 15 for validation."""
    return write_tree(tmp_path_factory.mktemp("tree"))


@pytest.fixture(scope="session")
def one_process(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """20 steps, three of four epochs, in one process that is never stopped."""
    run = tmp_path_factory.mktemp("runs") / "one"
    ended = here(TRAIN, *SMALL, "--data", tree, "--out", run, "--max-steps", 20)
    assert ended.code == 0, ended.err
    return run
