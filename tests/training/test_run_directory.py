"""A run's directory: recognised as this run's or refused, and its metrics cleared of what is no row."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from alexnet2012 import recipe
from alexnet2012.core.errors import InputError
from alexnet2012.training.run_directory import RunDirectory

IDENTITY = {"data": "sample", "seed": 0}


@pytest.mark.parametrize("left", ["", "lock", "state.json", "config.json.0123abcd.partial"])
def test_what_a_run_killed_before_its_configuration_leaves_is_taken(left: str, tmp_path: Path) -> None:
    run = RunDirectory(tmp_path / "run")
    run.claim(IDENTITY)
    if left:
        (run.path / left).write_text("half")
    run.claim(IDENTITY)
    with contextlib.closing(run):
        run.take()
        run.record(IDENTITY)
    assert not list(run.path.glob("*.partial"))


@pytest.mark.parametrize("spoil", [os.mkfifo, os.mkdir, lambda path: path.symlink_to("nowhere")])
def test_a_lock_that_is_no_file_is_named(spoil: Callable[[Path], object], tmp_path: Path) -> None:
    spoil(tmp_path / "lock")
    with pytest.raises(InputError, match=r"lock: .*; remove it"):
        RunDirectory(tmp_path).take()


@pytest.mark.parametrize("file", ["notes.txt", "checkpoints/last.pt", "checkpoints/lock", "metrics.jsonl", "a.partial"])
def test_a_directory_with_other_files_and_no_configuration_is_refused(file: str, tmp_path: Path) -> None:
    run = RunDirectory(tmp_path / "run")
    run.claim(IDENTITY)
    (run.path / file).touch()
    with pytest.raises(InputError, match="not empty and no run of this project"):
        run.claim(IDENTITY)


LATER = {"recipe.subset": 1.0, "recipe.biases": [0, 1, 0, 1, 1, 1, 1, 0]}  # at their defaults


@pytest.fixture
def older(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunDirectory:
    """A run of a version that knew less, called ``momentum`` mass, and had a field that is gone."""
    monkeypatch.setitem(recipe.RENAMED, "mass", "momentum")
    monkeypatch.setitem(recipe.REMOVED, "bells", [1, 2])
    run = RunDirectory(tmp_path / "run")
    run.claim(IDENTITY)
    run.record({**IDENTITY, "recipe.lr": 0.02, "recipe.mass": 0.8, "recipe.bells": [1, 2]})
    return run


def test_a_run_of_an_older_version_is_recognised(older: RunDirectory) -> None:
    older.claim({**IDENTITY, **LATER, "recipe.lr": 0.02, "recipe.momentum": 0.8})


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"recipe.subset": 0.5}, "a run with subset 1.0, not 0.5"),
        ({"recipe.momentum": 0.9}, "a run with momentum 0.8, not 0.9"),
        ({"val_fraction": 0.1}, "a run with val_fraction None, not 0.1"),
    ],
)
def test_other_settings_than_an_older_version_s_are_refused(changed: dict, said: str, older: RunDirectory) -> None:
    with pytest.raises(InputError, match=said.replace("_", "-")):
        older.claim({**IDENTITY, **LATER, "recipe.lr": 0.02, "recipe.momentum": 0.8, **changed})


def test_a_field_that_is_gone_and_had_another_value_is_refused_by_name(older: RunDirectory) -> None:
    older.record({**IDENTITY, "recipe.bells": [1, 3]})
    with pytest.raises(InputError, match=r"a run with bells \[1, 3\], not None"):
        older.claim(IDENTITY)


def test_an_epoch_s_row_goes_where_its_validation_will_be_repeated(tmp_path: Path) -> None:
    """The run was killed, or its disk full, between the validation and the checkpoint behind it."""
    run = RunDirectory(tmp_path)
    rows = [{"step": 6, "loss": 1.5}, {"step": 6, "val_top1_error": 80.0}, {"step": 7, "loss": 1.5}]
    for validated, kept in ((True, 2), (False, 1)):
        run.metrics.write_text("".join(json.dumps(row) + "\n" for row in rows))
        run.drop_rows_after(6, validated)
        assert [json.loads(line) for line in run.metrics.read_text().splitlines()] == rows[:kept]


def test_lines_that_are_no_rows_are_dropped_and_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = RunDirectory(tmp_path)
    rows = [json.dumps({"step": step, "loss": 1.5}).encode() for step in (1, 2, 3)]
    damaged = [
        b'{"step": 2, "lo',
        b'{"step": 1, "loss": "\xff"}',
        b"[1, 2]",
        b"7",
        b'{"loss": 1}',
        b'{"step": "1"}',
        b"",
    ]
    damaged += [b"[" * 100_000, b'{"step": true}', b'{"step": -5}', b'{"step": 2, "epoch": 0}']
    damaged += [b'{"step": 1, "loss": "abc", "lr": [1]}', b'{"step": 2, "val_loss": "x"}', b'{"step": 1, "loss": NaN}']
    damaged += [b'{"step": 1, "loss": Infinity}', b'{"step": 1, "loss": 1e308}', b'{"step": 1, "images_per_second": 0}']
    run.metrics.write_bytes(b"\n".join([rows[0], *damaged, rows[1], rows[2]]))
    run.drop_rows_after(3)
    assert run.metrics.read_bytes() == b"".join(row + b"\n" for row in rows)  # the last one's line is ended too
    assert capsys.readouterr().err == f"warning: {run.metrics}: 17 damaged rows are dropped\n"
    run.drop_rows_after(2)
    assert run.metrics.read_bytes() == b"".join(row + b"\n" for row in rows[:2])
    assert capsys.readouterr().err == ""
