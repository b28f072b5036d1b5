"""A table in MATLAB's format (level 5), such as the devkit's ``meta.mat``: an array of structs.

scipy's reader ends the process, without an exception, on one in twenty files with a bit flipped.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

HEADER = 128  # bytes before the first element; the last two tell the order of bytes
MATRIX, COMPRESSED = 14, 15  # kinds of elements
STRUCT, TEXT = 2, 4  # kinds of matrices
NUMBERS = {1: "i1", 2: "u1", 3: "<i2", 4: "<u2", 5: "<i4", 6: "<u4", 7: "<f4", 9: "<f8", 12: "<i8", 13: "<u8"}
TEXTS = {1: "latin1", 2: "latin1", 4: "utf-16-le", 16: "utf-8", 17: "utf-16-le"}  # by kind of element
Value = float | str | None


class Matrix(NamedTuple):
    """An array as it is stored."""

    kind: int
    size: int  # how many values
    name: str
    values: Iterator[tuple[int, bytes]]  # the elements behind its header


def read_structs(content: bytes, name: str, fields: Sequence[str], most: int) -> list[tuple[Value, ...]]:
    """``fields`` of each struct of the array ``name``: a number, a text, or None for anything else.

    Unpacks at most ``most`` bytes. Raises ValueError, LookupError, StopIteration or zlib.error for a damaged file.
    """
    if content[HEADER - 2 : HEADER] != b"IM":
        raise ValueError("no file of MATLAB, or one of a big-endian machine")
    for kind, element in _elements(content[HEADER:]):
        if kind == COMPRESSED:
            kind, element = next(_elements(zlib.decompressobj().decompress(element, most)))
        if kind == MATRIX and (matrix := _matrix(element)).name == name and matrix.kind == STRUCT:
            return _structs(matrix, fields)
    raise LookupError(f"no {name}")


def _elements(content: bytes) -> Iterator[tuple[int, bytes]]:
    """(kind, bytes) of each: a word of its kind, one of its size, its bytes up to a multiple of 8; a small one in 8."""
    place = 0
    while place < len(content):
        kind, size = np.frombuffer(content, "<u4", 2, place).tolist()
        start = place + 8
        if kind >> 16:
            kind, size, start = kind & 0xFFFF, kind >> 16, place + 4
        place = start + size if kind == COMPRESSED else start + size + -(start + size) % 8
        if start + size > len(content):
            raise ValueError(f"an element of {size} bytes at byte {start} of {len(content)}")
        yield kind, content[start : start + size]


def _matrix(content: bytes) -> Matrix:
    elements = _elements(content)
    (_, flags), (_, sizes), (_, name) = [next(elements) for _ in range(3)]
    return Matrix(flags[0], math.prod(np.frombuffer(sizes, "<i4").tolist()), name.decode(), elements)


def _structs(matrix: Matrix, fields: Sequence[str]) -> list[tuple[Value, ...]]:
    (_, step), (_, names) = next(matrix.values), next(matrix.values)
    length = int.from_bytes(step, "little")
    found = [names[start : start + length].partition(b"\0")[0].decode() for start in range(0, len(names), length)]
    places = [found.index(field) for field in fields]
    structs = []
    for _ in range(matrix.size):
        values = [next(matrix.values) for _ in found]
        structs.append(tuple(_value(values[place][1]) for place in places))
    return structs


def _value(content: bytes) -> Value:
    matrix = _matrix(content)
    kind, stored = next(matrix.values, (0, b""))
    if matrix.kind == TEXT:
        return stored.decode(TEXTS[kind])
    if matrix.size != 1 or kind not in NUMBERS:
        return None
    (number,) = np.frombuffer(stored, NUMBERS[kind]).tolist()
    return number
