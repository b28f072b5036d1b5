"""MATLAB's format: scipy, which writes and reads it too, says the same."""

from __future__ import annotations

import io
import random

import numpy as np
import pytest
from scipy.io import loadmat, savemat

from alexnet2012.data.matlab_file import read_structs

FIELDS = ("ILSVRC2012_ID", "WNID", "words", "gloss", "num_children", "children", "wordnet_height")
ASKED = ("WNID", "ILSVRC2012_ID", "words", "children", "num_children")


def meta(compressed: bool) -> bytes:
    rows = [(i + 1, f"n{i:08d}", "Löwe, lion" if i else "l", "a thing", 0, [], 0.5 * i) for i in range(300)]
    rows += [(301, "n9", "group", "things", 2, [1, 2], 1)]
    synsets = np.zeros((len(rows), 1), [(name, object) for name in FIELDS])
    for row, values in enumerate(rows):
        synsets[row, 0] = values
    file = io.BytesIO()
    savemat(file, {"other": np.eye(3), "text": "synsets", "synsets": synsets}, do_compression=compressed)
    return file.getvalue()


@pytest.mark.parametrize("compressed", [False, True])
def test_structs_are_those_that_scipy_reads(compressed: bool) -> None:
    content = meta(compressed)
    expected = loadmat(io.BytesIO(content), squeeze_me=True)["synsets"]
    read = read_structs(content, "synsets", ASKED, 2**20)
    for place, field in enumerate(ASKED):
        column = [None if isinstance(value, np.ndarray) else value for value in expected[field].tolist()]
        assert [row[place] for row in read] == column
    assert read[1] == ("n00000001", 2, "Löwe, lion", None, 0)


@pytest.mark.parametrize("compressed", [False, True])
def test_damage_raises_an_exception_or_does_no_harm(compressed: bool) -> None:
    content, draw = meta(compressed), random.Random(2012)
    raised = 0
    for _ in range(300):
        damaged = bytearray(content)
        damaged[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
        try:
            read_structs(bytes(damaged), "synsets", ASKED, 2**20)
        except Exception:
            raised += 1
    assert raised > 10


def test_what_unpacks_to_more_than_allowed_is_not_read() -> None:
    with pytest.raises((ValueError, StopIteration)):
        read_structs(meta(compressed=True), "synsets", ASKED, 10_000)


@pytest.mark.parametrize(
    "content", [b"", b"IM" * 64, b"IM" * 99, meta(False)[:700], meta(False).replace(b"words", b"w")]
)
def test_what_is_no_such_table_is_refused(content: bytes) -> None:
    with pytest.raises((ValueError, LookupError, StopIteration)):
        read_structs(content, "synsets", ASKED, 2**20)
