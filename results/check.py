"""Are the numbers in README.md and docs/ those that were measured? python results/check.py

A number that comes from an experiment is followed by an invisible comment that says where it lies:

    32.1<!--=imagenette-ablations/ablation.json:variants.base.top1_error.mean--> %

The file is one of results/, the path walks its objects by key; of a list (the rows of a .jsonl file, too) it takes the
element of that number, or the object whose first value is that text. The number must be the value there, rounded as it
is written.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
MARKED = re.compile(r"(?P<number>\S*?)<!--=(?P<file>[^:>]+):(?P<path>[^>]*?)-->")
NUMBER = re.compile(r"[+-]?\d[\d,]*(\.(?P<decimals>\d+))?")


def main(root: Path = ROOT) -> int:
    """Print each number that is not what was measured; returns 1 if there is one, else 0."""
    pages = [root / "README.md", *sorted((root / "docs").glob("*.md")), *sorted((root / "results").glob("*/README.md"))]
    marks = [(page, mark) for page in pages if page.is_file() for mark in MARKED.finditer(page.read_text())]
    wrong = [f"{page.relative_to(root)}: {reason}" for page, mark in marks if (reason := difference(mark, root))]
    print(*wrong, f"{len(marks)} numbers of experiments, {len(wrong)} of them wrong", sep="\n")
    return bool(wrong)


def difference(mark: re.Match[str], root: Path) -> str:
    """How the number before ``mark`` differs from what its file holds; empty if it does not."""
    where = f"{mark['file']}:{mark['path']}"
    shown = list(NUMBER.finditer(mark["number"]))
    if not shown:
        return f"no number stands before {where}"
    text = shown[-1].group()
    try:
        value = walk(read(root / "results" / mark["file"]), mark["path"])
    except (OSError, ValueError, KeyError, StopIteration) as error:
        return f"{text}: results/{where} is not there ({error!r})"
    if isinstance(value, bool) or not isinstance(value, int | float):
        return f"{text}: results/{where} is {value!r}, no number"
    written = float(text.replace(",", ""))
    if abs(written - value) > 0.5000001 * 10.0 ** -len(shown[-1]["decimals"] or ""):
        return f"{text}: results/{where} is {value}"
    return ""


def read(path: Path) -> Any:
    """The value of a JSON file, or the list of values of a file of JSON lines."""
    text = path.read_text()
    return [json.loads(line) for line in text.splitlines()] if path.suffix == ".jsonl" else json.loads(text)


def walk(value: Any, path: str) -> Any:
    """What lies at ``path`` in ``value``. Raises KeyError, StopIteration or ValueError where nothing does."""
    for part in path.split("."):
        if isinstance(value, list) and not part.isdecimal():
            value = next(one for one in value if next(iter(one.values()), None) == part)
        elif isinstance(value, list) and int(part) >= len(value):
            raise KeyError(part)
        else:
            value = value[int(part)] if isinstance(value, list) else value[part]
    return value


if __name__ == "__main__":
    sys.exit(main())
