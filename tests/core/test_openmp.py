"""How OpenMP's threads wait, which torch asks once, when it is imported."""

from __future__ import annotations

import ast

import pytest
from running import ROOT, start

LAUNCH = sorted(path for path in (ROOT / "launch").glob("*.py") if "__main__" in path.read_text())


@pytest.mark.parametrize("file", LAUNCH, ids=lambda path: path.name)
def test_every_command_sets_it_first(file: object) -> None:
    statements = [node for node in ast.parse(file.read_text()).body if isinstance(node, ast.Import | ast.ImportFrom)]
    assert ast.unparse(statements[1]) == "import alexnet2012.core.openmp"


@pytest.mark.parametrize(
    ("users", "policy"),
    [({}, "passive"), ({"OMP_WAIT_POLICY": "active"}, "active"), ({"GOMP_SPINCOUNT": "9"}, "None"),
     ({"KMP_BLOCKTIME": "1"}, "None")],
    ids=str,
)  # fmt: skip
def test_threads_sleep_unless_the_user_says_how_they_wait(
    users: dict[str, str], policy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OMP_WAIT_POLICY")
    code = "import alexnet2012.core.openmp, os, sys; print(os.environ.get('OMP_WAIT_POLICY'), 'torch' in sys.modules)"
    out, err = start("-c", code, **users).communicate(timeout=60)
    assert (out, err) == (f"{policy} False\n", "")
