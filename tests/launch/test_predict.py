"""Photographs to class names on the command line: files, folders, a list on stdin, and files that are none."""

from __future__ import annotations

import io
import os
from pathlib import Path

import pytest
from checkpoints import write_checkpoint
from PIL import Image
from running import ROOT, here, write_tree

from alexnet2012 import load_checkpoint
from alexnet2012.data import open_dataset

PREDICT = ROOT / "launch" / "predict.py"


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tree(tmp_path_factory.mktemp("predict") / "tree", 6, 1, 2)


@pytest.fixture(scope="module")
def net(tree: Path) -> Path:
    return write_checkpoint(tree.parent / "net.pt", open_dataset(tree, "val"))


def test_each_photograph_gets_the_five_classes_of_predict(net: Path, tree: Path) -> None:
    photos = sorted((tree / "val" / "class1").iterdir())
    ended = here(PREDICT, *photos, "--checkpoint", net)
    expected = []
    for photo, best in zip(photos, load_checkpoint(net, "cpu").predict(photos), strict=True):
        expected += [str(photo), *(f"  {100 * probability:5.1f} %  {name}" for name, probability in best)]
    assert (ended.code, ended.out.splitlines()) == (0, expected)
    assert len(expected) == 6 * len(photos)


def test_a_folder_and_a_list_name_the_same_files(net: Path, tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tree / "val" / "class2"
    (folder / os.fsdecode(b"\xff.png")).symlink_to(next(folder.iterdir()).name)  # a name that is not UTF-8
    of_folder = here(PREDICT, folder, "--checkpoint", net)
    names = b"".join(os.fsencode(path) + b"\n" for path in sorted(folder.iterdir()))
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(names), "utf-8"))
    assert here(PREDICT, "-", "--checkpoint", net) == of_folder and of_folder.out


def test_files_that_are_no_image_are_named_and_the_others_answered(net: Path, tree: Path, tmp_path: Path) -> None:
    (photo, *_) = (tree / "val" / "class0").iterdir()
    text, figure = tmp_path / "notes.txt", tmp_path / "answers.png"
    text.write_text("no image")
    (tmp_path / "loop.jpg").symlink_to("loop.jpg")
    ended = here(PREDICT, text, photo, tmp_path / "loop.jpg", "--checkpoint", net, "--figure", figure)
    assert ended.code == 2 and ended.out.startswith(f"{photo}\n")
    first, second, last = ended.err.splitlines()
    assert first == f"error: {text}: not a readable image (no JPEG or PNG file)"
    assert second.startswith(f"error: {tmp_path / 'loop.jpg'}: not a readable image")
    assert last == "error: 2 of 3 files could not be read; they are named above"
    with Image.open(figure) as image:
        assert image.width > 500
