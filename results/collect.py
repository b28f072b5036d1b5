"""Keep what runs measured: python results/collect.py RUN... --out results/NAME

Of each run directory: its JSON files, without this machine's paths, and metrics.jsonl, of which the rows of steps are
thinned to one in --every. Checkpoints, pictures and TensorBoard's files stay where they are.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any


def main() -> None:
    parser = argparse.ArgumentParser(description="Copy what runs measured into a folder of results/.")
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="one folder a run is made there")
    parser.add_argument("--every", type=int, default=5, help="of the rows of steps, keep one in so many")
    given = parser.parse_args()
    for run in given.runs:
        out = given.out / run.name
        out.mkdir(parents=True, exist_ok=True)
        for path in run.glob("*.json"):
            content = without_paths(json.loads(path.read_text()))
            (out / path.name).write_text(json.dumps(content, indent=1) + "\n")
        kept = thinned((run / "metrics.jsonl").read_text().splitlines(), given.every)
        (out / "metrics.jsonl").write_text("\n".join(kept) + "\n")


def without_paths(value: Any) -> Any:
    """``value`` with each absolute path in it cut down to its last part."""
    if isinstance(value, dict):
        return {name: without_paths(item) for name, item in value.items()}
    if isinstance(value, list):
        return [without_paths(item) for item in value]
    return Path(value).name if isinstance(value, str) and value.startswith("/") else value


def thinned(lines: list[str], every: int) -> list[str]:
    """Every row of an epoch's end, the first and the last of steps, and of the others one in ``every``."""
    steps = [index for index, line in enumerate(lines) if '"loss"' in line and '"val_' not in line]
    kept = set(steps[::every]) | set(steps[-1:])
    return [line for index, line in enumerate(lines) if index in kept or index not in set(steps)]


if __name__ == "__main__":
    main()
