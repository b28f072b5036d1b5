"""How OpenMP's threads wait, which torch asks once, when it is imported."""

from __future__ import annotations

import os

import pytest

from alexnet2012.core.threads import let_waiting_threads_sleep


@pytest.mark.parametrize(
    ("users", "policy"),
    [({}, "passive"), ({"OMP_WAIT_POLICY": "active"}, "active"), ({"GOMP_SPINCOUNT": "9"}, None),
     ({"KMP_BLOCKTIME": "1"}, None)],
    ids=str,
)  # fmt: skip
def test_threads_sleep_unless_the_user_says_how_they_wait(
    users: dict[str, str], policy: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "environ", dict(users))
    let_waiting_threads_sleep()
    assert os.environ.get("OMP_WAIT_POLICY") == policy
