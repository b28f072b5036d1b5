"""The commands of launch/ and data_prep/ from an installed package: python -m alexnet2012 train --data sample

Both folders lie in the package too, as links, so that there is one copy of each file.
"""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

COMMANDS = {
    "train": "launch/train_imagenet.py",
    "evaluate": "launch/evaluate.py",
    "predict": "launch/predict.py",
    "analyse": "launch/analyse.py",
    "ablate": "launch/ablate.py",
    "benchmark": "launch/benchmark.py",
    "draw-figures": "launch/draw_figures.py",
    "export": "launch/export.py",
    "prepare": "data_prep/prepare_imagenet.py",
}


def run(words: list[str]) -> None:
    """Run the command that the first word names, as ``python launch/...`` does with the rest."""
    name, *flags = words or ["--help"]
    if name not in COMMANDS:
        wrong = name not in ("-h", "--help")
        usage = f"usage: python -m alexnet2012 {{{','.join(COMMANDS)}}} [--help] ..."
        print(usage, file=sys.stderr if wrong else sys.stdout)
        sys.exit(2 if wrong else 0)
    file = Path(__file__).parent / COMMANDS[name]
    sys.argv = [str(file), *flags]
    sys.path.insert(0, str(file.parent))  # where Python looks for a script's neighbours
    runpy.run_path(str(file), run_name="__main__")


if __name__ == "__main__":
    run(sys.argv[1:])
