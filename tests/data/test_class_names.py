"""ILSVRC-2012's classes in words, wherever their folders' names are WordNet ids."""

from __future__ import annotations

import os
from pathlib import Path

from running import write_tree

from alexnet2012.data import open_dataset
from alexnet2012.data.dataset import ilsvrc_words, in_words
from alexnet2012.data.prepare.source import open_source


def test_the_table_is_that_of_the_devkit() -> None:
    words = ilsvrc_words()
    assert len(words) == 1000 and list(words) == sorted(words)
    assert all(wnid[0] == "n" and wnid[1:].isdecimal() and len(wnid) == 9 for wnid in words)
    assert words["n03888257"] == "parachute, chute" and words["n01440764"] == "tench, Tinca tinca"
    assert len(set(words.values())) == 999  # the bird and the machine are both "crane"


def test_other_names_stay() -> None:
    assert in_words(["cat", "n01440764", "n99999999"]) == ["cat", "tench, Tinca tinca", "n99999999"]


def test_what_does_not_print_is_escaped() -> None:
    names = [os.fsdecode(b"\xff"), "line\nbreak", "\x1b[31m", "Katze, \u732b\u3000\u72ac"]
    assert in_words(names) == [r"\udcff", r"line\nbreak", r"\x1b[31m", "Katze, \u732b\u3000\u72ac"]


def test_a_tree_of_wnids_says_words_and_finds_its_files(tmp_path: Path) -> None:
    write_tree(tmp_path, classes=2, train=1, val=1)
    for split in ("train", "val"):
        for folder, wnid in (("class0", "n01440764"), ("class1", "n03888257")):
            (tmp_path / split / folder / "0.JPEG").rename(tmp_path / split / folder / f"{split}-{wnid}.JPEG")
            (tmp_path / split / folder).rename(tmp_path / split / wnid)
    dataset = open_dataset(tmp_path, "val")
    assert dataset.classes == ["tench, Tinca tinca", "parachute, chute"]
    assert dataset[1] == ((tmp_path / "val" / "n03888257" / "val-n03888257.JPEG").read_bytes(), 1)
    assert open_source(tmp_path).words == dataset.classes
