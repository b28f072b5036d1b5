"""Flags from dataclasses; what a command prints, and where it cannot."""

from __future__ import annotations

import io
import os
import sys
from dataclasses import dataclass

import pytest

from alexnet2012.core import messages
from alexnet2012.core.command_line import Parser, main, option, progress
from alexnet2012.core.messages import ignore_output_errors


def test_a_command_whose_output_is_closed_ends_as_any_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    monkeypatch.setattr(sys, "stderr", None)
    with pytest.raises(SystemExit) as ending:
        main(lambda: "a line", lambda line: print(line, flush=True))
    assert not ending.value.code
    sys.stdout.close()
    sys.stderr.close()


def test_a_reader_that_leaves_costs_the_lines_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """As ``| head`` and ``2>&1 | head`` do: of both streams the lines before it leaves arrive, then none."""
    ends = [os.pipe() for _ in range(2)]
    with os.fdopen(ends[0][1], "w") as out, os.fdopen(ends[1][1], "w") as err:
        monkeypatch.setattr(sys, "stdout", out)
        monkeypatch.setattr(sys, "stderr", err)
        ignore_output_errors()
        print("read", flush=True)
        assert os.read(ends[0][0], 99) == b"read\n"
        os.close(ends[0][0])
        for _ in range(2):
            print("lost", flush=True)
        assert os.read(ends[1][0], 999) == b"warning: stdout: Broken pipe; later lines are not printed\n"
        os.close(ends[1][0])
        print("lost too", file=sys.stderr, flush=True)


@dataclass
class Asked:
    steps: int | None = option(None, "steps to take", "run", unset="all of them")
    rate: float = option(0.5, "share to keep", "recipe")
    no_flag: int = 3
    quick: bool = option(False, "less", "speed")


def test_options_are_flags_in_groups_with_their_defaults() -> None:
    parser = Parser("A command.")
    parser.add_options(Asked)
    assert vars(parser.parse_args([])) == {"steps": None, "rate": 0.5, "quick": False}
    assert vars(parser.parse_args("--steps 2 --rate 1 --quick".split())) == {"steps": 2, "rate": 1.0, "quick": True}  # noqa: SIM905
    sections = parser.format_help().split("\n\n")
    assert sections[-3:] == [
        "recipe:\n  --rate X    share to keep (default: 0.5)",
        "run:\n  --steps N   steps to take (default: all of them)",
        "speed:\n  --quick     less\n",
    ]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(("quiet", "shown"), [(False, True), (True, False)])
def test_a_bar_is_for_a_terminal_and_not_with_quiet(quiet: bool, shown: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    stream = Terminal()
    monkeypatch.setattr("sys.stderr", stream)
    monkeypatch.setattr(messages, "quiet", False)
    parser = Parser("")
    parser.add_quiet()
    parser.parse_args(["--quiet"] * quiet)
    with progress("reading", 10) as bar:
        bar(advance=10)
    assert ("reading" in stream.getvalue() and "10/10" in stream.getvalue()) == shown
    assert bool(stream.getvalue()) == shown
