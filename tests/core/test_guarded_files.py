"""Readers that check before they allocate: the rest is in tests/test_damaged_files.py."""

from __future__ import annotations

import io
import os
import pickle
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from alexnet2012.core.guarded_files import (
    Damaged,
    Field,
    is_count,
    is_file,
    is_number,
    map_npy,
    read_bytes,
    read_json,
    read_npz,
)

FORM = {"rows": Field("f", ("n", 3), 0, 1), "names": Field("U", ("n",)), "count": Field("i", (), 1)}
GOOD = {"rows": np.full((4, 3), 0.5), "names": np.array(["a", "b", "c", "d"]), "count": np.array(4)}
ODD: dict[str, Callable[[Path], object]] = {
    "directory": Path.mkdir,
    "fifo": os.mkfifo,
    "device": lambda path: path.symlink_to("/dev/zero"),
    "loop": lambda path: path.symlink_to(path.name),
    "lost link": lambda path: path.symlink_to("nowhere"),
}


@pytest.mark.parametrize("odd", ODD)
def test_what_is_no_file_is_named_at_once(odd: str, tmp_path: Path) -> None:
    path = tmp_path / "file"
    ODD[odd](path)
    for read in (
        lambda: read_bytes(path, 9),
        lambda: read_json(path),
        lambda: read_npz(path, FORM),
        lambda: is_file(path),
    ):
        with pytest.raises(Damaged, match=f"{path}: (is not a file|cannot be read)"):
            read()
    assert not is_file(tmp_path / "absent")


def test_a_file_larger_than_allowed_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    os.truncate(tmp_path / "file", 2**40)  # takes no space
    with pytest.raises(Damaged, match="has 1099511627776 bytes, more than 100"):
        read_bytes(tmp_path / "file", 100)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "Expecting value"),
        (b'{"a": 1', "Expecting ','"),
        (b'{"a": "\xff"}', "can't decode byte 0xff"),
        (b"[" * 200_000, "nested too deeply"),
        (b'{"a": ' + b"9" * 5_000 + b"}", "Exceeds the limit"),
        (b"[]", "it is list, not dict"),
        (b'{"b": 1}', "it has no 'a'"),
        (b'{"a": true}', r"\['a'\] is True"),
        (b'{"a": -1}', r"\['a'\] is -1"),
        (b'{"a": 1, "c": [0.5, NaN]}', r"\['c'\]\[1\] is nan"),
    ],
)
def test_json_of_another_form_is_refused(content: bytes, said: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(Damaged, match=f"file: cannot be read .*{said}.*; mend it"):
        read_json(tmp_path / "file", {"a": is_count, "c?": [is_number]}, "mend it")
    (tmp_path / "file").write_text('{"a": 0, "d": []}')
    assert read_json(tmp_path / "file", {"a": is_count, "c?": [is_number]}) == {"a": 0, "d": []}


def test_arrays_come_back_as_they_were_saved(tmp_path: Path) -> None:
    arrays = {**GOOD, "rows": np.asfortranarray(np.random.default_rng(0).random((4, 3)))}
    np.savez(tmp_path / "file", **arrays, more=np.zeros(3))
    read = read_npz(tmp_path / "file.npz", FORM)
    assert all(np.array_equal(read[name], array) and read[name].dtype == array.dtype for name, array in arrays.items())
    assert len(read) == len(FORM)


@pytest.mark.parametrize(
    ("name", "array", "said"),
    [
        ("rows", np.full((4, 2), 0.5), r"rows has shape \(4, 2\), not \(n, 3\)"),
        ("rows", np.full((5, 3), 0.5), r"names has shape \(4,\), not \(n\)"),
        ("rows", np.ones((4, 3), int), "rows is of type int64"),
        ("rows", np.ones((4, 3), ">f8"), "rows is of type >f8"),
        ("rows", np.full((4, 3), [0, np.nan, 1]), "rows has values from nan"),
        ("rows", np.full((4, 3), [0, 0.5, 1.5]), "rows has values from 0 to 1.5"),
        ("names", np.array([{}, 1, 2, 3]), "names is of type object"),
        ("count", np.array(0), "count has values from 0 to 0"),
    ],
)
def test_arrays_of_another_form_are_refused(name: str, array: np.ndarray, said: str, tmp_path: Path) -> None:
    np.savez(tmp_path / "file.npz", **GOOD | {name: array})
    with pytest.raises(Damaged, match=f"file.npz: cannot be read .*{said}"):
        read_npz(tmp_path / "file.npz", FORM)


def npy(shape: str, values: bytes) -> bytes:
    header = b"{'descr': '<f8', 'fortran_order': False, 'shape': %b, }\n" % shape.encode()
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + values


@pytest.mark.parametrize("shape", ["(1152921504606846976, 3)", "(200000000, 3)", "(-1, 3)", "(4, 3", "(" * 9_000])
def test_a_header_that_claims_too_much_allocates_nothing(shape: str, tmp_path: Path) -> None:
    members = {f"{name}.npy": npy_bytes(array) for name, array in GOOD.items()} | {"rows.npy": npy(shape, bytes(96))}
    with zipfile.ZipFile(tmp_path / "file.npz", "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    (tmp_path / "file.npy").write_bytes(members["rows.npy"])
    tracemalloc.start()
    for read in (lambda: read_npz(tmp_path / "file.npz", FORM), lambda: map_npy(tmp_path / "file.npy", FORM["rows"])):
        with pytest.raises(Damaged, match=r"rows|the array"):
            read()
    assert tracemalloc.get_traced_memory()[1] < 2**20
    tracemalloc.stop()


def npy_bytes(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def test_an_array_that_is_packed_is_not_unpacked(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "file.npz", **GOOD)
    with pytest.raises(Damaged, match="or is compressed"):
        read_npz(tmp_path / "file.npz", FORM)


def test_every_bit_of_an_array_is_checked(tmp_path: Path) -> None:
    np.savez(tmp_path / "file.npz", **GOOD)
    content = (tmp_path / "file.npz").read_bytes()
    place = content.index(GOOD["rows"].tobytes()) + 50
    (tmp_path / "file.npz").write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
    with pytest.raises(Damaged, match="Bad CRC-32"):
        read_npz(tmp_path / "file.npz", FORM)


def test_a_message_goes_through_a_pipe_between_processes() -> None:
    error = Damaged("line\nbreak", "is not a file", "mend it")
    assert str(pickle.loads(pickle.dumps(error))) == str(error) == r"line\nbreak: is not a file; mend it"
