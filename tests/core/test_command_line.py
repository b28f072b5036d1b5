"""What a command prints, and where it cannot."""

from __future__ import annotations

import os
import sys

import pytest

from alexnet2012.core.command_line import main, outlive_output


def test_a_command_whose_output_is_closed_ends_as_any_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    monkeypatch.setattr(sys, "stderr", None)
    with pytest.raises(SystemExit) as ending:
        main(lambda: print("a line", flush=True))
    assert not ending.value.code
    sys.stdout.close()
    sys.stderr.close()


def test_a_reader_that_leaves_costs_the_lines_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """As ``| head`` and ``2>&1 | head`` do: of both streams the lines before it leaves arrive, then none."""
    ends = [os.pipe() for _ in range(2)]
    with os.fdopen(ends[0][1], "w") as out, os.fdopen(ends[1][1], "w") as err:
        monkeypatch.setattr(sys, "stdout", out)
        monkeypatch.setattr(sys, "stderr", err)
        outlive_output()
        print("read", flush=True)
        assert os.read(ends[0][0], 99) == b"read\n"
        os.close(ends[0][0])
        for _ in range(2):
            print("lost", flush=True)
        assert os.read(ends[1][0], 999) == b"warning: stdout: Broken pipe; its lines are left out from here\n"
        os.close(ends[1][0])
        print("lost too", file=sys.stderr, flush=True)
