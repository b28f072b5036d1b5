"""The paper's figures on the command line, and at the end of a run."""

from __future__ import annotations

from pathlib import Path

from checkpoints import write_checkpoint
from PIL import Image
from running import ROOT, SMALL, TRAIN, here, write_tree
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from alexnet2012.data import open_dataset

DRAW = ROOT / "launch" / "draw_figures.py"
FIGURES = ["figure3-kernels", "figure4-guesses", "figure4-neighbours", "learning-curves"]


def test_all_figures_at_the_end_of_a_run_and_again_from_its_files(tree: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    ended = here(TRAIN, *SMALL, "--epochs", 1, "--data", tree, "--out", run)
    assert ended.code == 0, ended.err
    expected = sorted(f"{name}{suffix}" for name in FIGURES for suffix in (".png", ".pdf"))
    assert sorted(path.name for path in (run / "figures").iterdir()) == expected
    board = EventAccumulator(str(run / "tensorboard"))
    board.Reload()
    assert set(FIGURES) <= set(board.Tags()["images"])
    flags = ("--data", tree, "--loader", "pillow", "--metrics", run / "metrics.jsonl", "--out", tmp_path / "again")
    ended = here(DRAW, run / "checkpoints" / "last.pt", *flags)
    assert (ended.code, ended.err) == (0, "")
    assert sorted(Path(line).name for line in ended.out.split()) == expected
    for name in FIGURES:
        pages = [Image.open(directory / f"{name}.png") for directory in (run / "figures", tmp_path / "again")]
        assert pages[0].size == pages[1].size and pages[0].tobytes() == pages[1].tobytes()


def test_bad_input_is_one_line_and_code_2(tmp_path: Path) -> None:
    net = write_checkpoint(tmp_path / "net.pt", open_dataset(write_tree(tmp_path / "tree", 3, 1, 1), "val"))
    other, text = write_tree(tmp_path / "other", 2, 1, 1), tmp_path / "text"
    text.write_text("no\nmetrics")
    out = ("--out", tmp_path / "figures")
    for flags, reason in (
        ((), "nothing to draw"),
        ((net, net), "of one CHECKPOINT"),
        (("--figure", 1), "--figure 1: draws finished runs"),
        (("--figure", 1, tmp_path / "absent", *out), f"{tmp_path / 'absent'}: not a run"),
        (("--data", other, "--metrics", text), "--data: needs a CHECKPOINT"),
        (("--metrics", text, *out), f"{text}: not a run's metrics.jsonl"),
        ((net, "--data", other, *out), f"--data {other}: has 2 classes"),
        ((text, *out), f"{text}: not a whole checkpoint"),
        ((net, "--neighbours-among", 0, *out), "--neighbours-among"),
        ((net, "--out", text), f"{text}: figures cannot be written there"),
    ):
        ended = here(DRAW, *flags)
        assert ended.code == 2 and ended.err.count("\n") == 1 and reason in ended.err, ended.err
