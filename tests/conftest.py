"""What all tests share: a CPU of one thread, and no CUDA test where there is no CUDA device."""

from __future__ import annotations

import os

os.environ["OMP_WAIT_POLICY"] = "passive"  # waiting threads sleep: several processes share the cores
os.environ["OMP_NUM_THREADS"] = "1"  # equal thread counts give equal bits: for runs in this process and others alike

import pytest
import torch


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if not torch.cuda.is_available():
        for item in items:
            if "cuda" in item.keywords:
                item.add_marker(pytest.mark.skip(reason="no CUDA device"))


@pytest.fixture(autouse=True)
def one_thread() -> None:
    """Equal thread counts give equal bits, and tests may run side by side."""
    torch.set_num_threads(1)
