"""The numbers in README.md and docs/ are those of results/."""

from __future__ import annotations

import json
import runpy
from pathlib import Path

import pytest
from running import ROOT

main = runpy.run_path(str(ROOT / "results" / "check.py"))["main"]


def test_every_number_that_comes_from_an_experiment_is_what_was_measured(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(ROOT) == 0, capsys.readouterr().out


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("error 32.1<!--=one/table.json:variants.base.error--> %", ""),
        ("error **32.08**<!--=one/table.json:variants.base.error-->", ""),
        ("-0.5 ± 1<!--=one/table.json:spread-->, 9,469<!--=one/table.json:images.0-->", ""),
        ("loss 2.30<!--=one/rows.jsonl:1.loss-->", ""),
        ("loss 2.40<!--=one/rows.jsonl:1.loss-->", "1.loss is 2.302"),
        ("error 32.2<!--=one/table.json:variants.base.error--> %", "variants.base.error is 32.0796"),
        ("error 32.1<!--=one/table.json:variants.tanh.error--> %", "is not there"),
        ("error 32.1<!--=two/table.json:variants.base.error--> %", "is not there"),
        ("32<!--=one/table.json:variants.base.variant-->", "is 'base', no number"),
        ("1<!--=one/table.json:images.1-->", "is not there"),
        ("error <!--=one/table.json:spread--> %", "no number stands before"),
    ],
)  # fmt: skip
def test_a_wrong_number_is_named(text: str, wrong: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "results" / "one"
    folder.mkdir(parents=True)
    table = {"variants": [{"variant": "base", "error": 32.0796}], "spread": 1, "images": [9469]}
    (folder / "table.json").write_text(json.dumps(table))
    (folder / "rows.jsonl").write_text('{"loss": 2.4}\n{"loss": 2.302}\n')
    (tmp_path / "README.md").write_text(text)
    assert main(tmp_path) == bool(wrong)
    assert wrong in capsys.readouterr().out
