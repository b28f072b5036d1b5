"""Readers that assume a file is damaged or hostile.

They check what kind of file it is, and the sizes, types and shapes that it declares, before they allocate or wait for
anything: a pipe would block, a device never ends, a header may declare more than the machine has.
"""

from __future__ import annotations

import json
import math
import os
import re
import reprlib
import stat
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import Any, TextIO

import numpy as np
from numpy.lib.format import MAGIC_PREFIX, dtype_to_descr
from numpy.typing import NDArray

from alexnet2012.core.errors import InputError, printable

CHUNK = 2**20  # bytes read at a time
JSON_BYTES = 2**30  # at most, of a JSON file: the manifest of a million images that were all odd has 50 MB
HEADER = re.compile(rb"\{'descr': (.+), 'fortran_order': (False|True), 'shape': \(([\d, ]*)\), \} *\n")
PLAIN = re.compile(rb"'([<|](?:[fiu][1248]|U\d{1,7}))'")  # descr of a plain dtype


class Damaged(InputError):
    """A file that does not hold what it should: its path, the reason, and what to do."""

    def __init__(self, path: str | os.PathLike[str], reason: str, advice: str = "") -> None:
        super().__init__(path, reason, advice)
        self.reason = reason

    def __str__(self) -> str:
        path, reason, advice = self.args
        return printable(f"{path}: {reason}" + (f"; {advice}" if advice else ""))


def is_file(path: Path) -> bool:
    """Whether there is a file. Raises Damaged for a directory, pipe, device or lost link of that name."""
    if path.is_file():
        return True
    if path.exists() or path.is_symlink():
        raise Damaged(path, "is not a file", "remove it, or put the file there")
    return False


def open_lock(path: Path) -> TextIO:
    """Open a file to lock, made where there is none, without waiting or following a link. Raises Damaged."""
    try:
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        descriptor = os.open(path, flags, 0o666)
    except OSError as error:
        raise Damaged(path, f"cannot be opened ({error.strerror})", "remove it") from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise Damaged(path, "is not a file", "remove it")
    return os.fdopen(descriptor, "a+")


def open_file(path: str | os.PathLike[str], advice: str = "") -> BufferedReader:
    """Open a file for reading. Raises Damaged for what is missing, or not a file but a directory, pipe or device."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise Damaged(path, f"cannot be read ({error.strerror})", advice) from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise Damaged(path, "is not a file", advice)
    return os.fdopen(descriptor, "rb")


def read_bytes(path: str | os.PathLike[str], most: int, advice: str = "") -> bytes:
    """The whole file. Raises Damaged as ``open_file`` does, and for one of more than ``most`` bytes."""
    with open_file(path, advice) as file:
        size = os.fstat(file.fileno()).st_size
        if size > most:
            raise Damaged(path, f"has {size} bytes, more than {most}", advice)
        try:
            return file.read(size)
        except OSError as error:
            raise Damaged(path, f"cannot be read ({error.strerror})", advice) from error


def read_json(path: Path, form: Any = dict, advice: str = "") -> Any:
    """The value in a JSON file. Raises Damaged where it is not of ``form``, see ``require``."""
    content = read_bytes(path, JSON_BYTES, advice)
    try:
        value = json.loads(content.decode())
        require(value, form)
    except (ValueError, RecursionError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise Damaged(path, f"cannot be read ({reason})", advice) from error
    return value


def is_utf8(name: str) -> bool:
    """Whether a file's name is; libraries written in C++ and Rust need that."""
    return not any(0xD800 <= ord(c) < 0xE000 for c in name)


def require(value: Any, form: Any, name: str = "") -> None:
    """Raises ValueError, naming the place, where ``value`` is not of ``form``.

    A form is a type, a list of one form for all items, a function that tells whether a value will do, or a dict of the
    keys that must be there with their forms; a key with ? behind it may be absent.
    """
    place = name or "it"
    kind = form if isinstance(form, type) else type(form) if isinstance(form, dict | list) else None
    if kind is not None and not isinstance(value, kind):
        raise ValueError(f"{place} is {type(value).__name__}, not {kind.__name__}")
    if isinstance(form, dict):
        for key, of_key in form.items():
            if (key := key.removesuffix("?")) in value:
                require(value[key], of_key, f"{name}[{key!r}]")
            elif key in form:
                raise ValueError(f"{place} has no {key!r}")
    elif isinstance(form, list):
        for index, item in enumerate(value):
            require(item, form[0], f"{name}[{index}]")
    elif kind is None and not form(value):
        raise ValueError(f"{place} is {shown(value)}")


def shown(value: Any) -> str:
    """The start of how ``value`` is written, in no time: all of it may be endless, as a list doubled 40 times is."""
    return reprlib.repr(value)[:40]


def is_count(value: Any) -> bool:
    """A whole number, at least 0, that int64 holds."""
    return type(value) is int and 0 <= value < 2**63


def is_number(value: Any) -> bool:
    """A whole number that int64 holds, or a float, infinite ones too; not NaN."""
    return abs(value) < 2**63 if type(value) is int else type(value) is float and not math.isnan(value)


@dataclass(frozen=True)
class Field:
    """What an array must be. A size that is a word stands for any number, the same wherever the word stands."""

    kind: str | np.dtype  # numpy's letters of kinds: f float, i and u integers, U text; or the very dtype
    shape: tuple[int | str, ...]
    least: float = -math.inf  # of every value; floats must be finite besides
    most: float = math.inf

    def refuse_form(self, name: str, dtype: np.dtype, shape: tuple[int, ...], sizes: dict[str, int]) -> None:
        """Raises ValueError for another dtype or shape, notes the ``sizes`` of words."""
        right = dtype.kind in self.kind if isinstance(self.kind, str) else dtype == self.kind
        if not right or dtype.hasobject:
            raise ValueError(f"{name} is of type {dtype}")
        expected = [
            sizes.setdefault(size, found) if isinstance(size, str) else size
            for size, found in zip(self.shape, shape, strict=False)
        ]
        if len(shape) != len(self.shape) or tuple(expected) != shape:
            raise ValueError(f"{name} has shape {shape}, not ({', '.join(map(str, self.shape))})")

    def refuse_values(self, name: str, array: NDArray[Any]) -> None:
        """Raises ValueError for numbers that are not finite or out of range."""
        if array.dtype.kind in "fiu" and array.size:
            low, high = float(array.min()), float(array.max())  # either is NaN where a value is
            if not (self.least <= low and high <= self.most and math.isfinite(low) and math.isfinite(high)):
                raise ValueError(f"{name} has values from {low:g} to {high:g}")


Form = Mapping[str, Field]


def require_arrays(arrays: Mapping[str, NDArray[Any]], form: Form) -> None:
    """Raises ValueError, naming the array, where one is missing, of another form or out of range."""
    sizes: dict[str, int] = {}
    for name, field in form.items():
        if not isinstance(arrays.get(name), np.ndarray):
            raise ValueError(f"holds no {name}")
        field.refuse_form(name, arrays[name].dtype, arrays[name].shape, sizes)
        field.refuse_values(name, arrays[name])


def read_npz(path: Path, form: Form, advice: str = "") -> dict[str, NDArray[Any]]:
    """The arrays that ``form`` names from a file of ``np.savez``. Raises Damaged where they are not of their form."""
    arrays, sizes = {}, dict[str, int]()
    with open_file(path, advice) as file:
        try:
            with zipfile.ZipFile(file) as archive:
                refuse_packed(archive, os.fstat(file.fileno()).st_size)
                for name, field in form.items():
                    with archive.open(f"{name}.npy") as member:
                        length = archive.getinfo(f"{name}.npy").file_size
                        arrays[name] = _read_array(member, length, name, field, sizes)
        except Exception as error:  # zipfile's are many
            reason = error.args[0] if isinstance(error, KeyError | ValueError) else repr(error)
            raise Damaged(path, f"cannot be read ({reason})", advice) from error
    return arrays


def refuse_packed(archive: zipfile.ZipFile, size: int) -> None:
    """Raises ValueError for a zip of compressed members, or of more than its ``size`` in bytes: ours have neither."""
    for info in archive.infolist():
        size -= info.file_size
        if info.compress_type != zipfile.ZIP_STORED or info.file_size != info.compress_size or size < 0:
            raise ValueError(f"{info.filename} claims {info.file_size} bytes, or is compressed")


def _read_array(file: Any, length: int, name: str, field: Field, sizes: dict[str, int]) -> NDArray[Any]:
    """The array in ``length`` bytes of npy. Raises ValueError."""
    dtype, shape, fortran, offset = _read_header(file, field, name)
    field.refuse_form(name, dtype, shape, sizes)
    if offset + math.prod(shape) * dtype.itemsize != length:
        raise ValueError(f"{name} claims shape {shape} of {dtype}, in {length} bytes")
    content = np.empty(length - offset, np.uint8)
    for start in range(0, len(content), CHUNK):
        part = file.read(CHUNK)  # the last one checks the member's CRC
        content[start : start + len(part)] = np.frombuffer(part, np.uint8)
    array = content.view(dtype).reshape(shape, order="F" if fortran else "C")
    field.refuse_values(name, array)
    return array


def _read_header(file: Any, field: Field, name: str) -> tuple[np.dtype, tuple[int, ...], bool, int]:
    """dtype, shape, whether in Fortran's order, and where the values begin. Raises ValueError.

    Numpy's own reader has Python's compiler parse the header, which deep nesting exhausts.
    """
    start = file.read(10)
    if start[:8] != MAGIC_PREFIX + b"\x01\x00" or len(start) < 10:
        raise ValueError(f"{name} is not a numpy array")
    length = int.from_bytes(start[8:], "little")
    found = HEADER.fullmatch(file.read(length))
    if not found:
        raise ValueError(f"{name} has no numpy header")
    descr, order, sizes = found.groups()
    if isinstance(field.kind, np.dtype):
        if descr.decode("latin1") != repr(dtype_to_descr(field.kind)):
            raise ValueError(f"{name} is of type {descr.decode('latin1')[:40]}")
        dtype = field.kind
    elif plain := PLAIN.fullmatch(descr):
        dtype = np.dtype(plain[1].decode())
    else:
        raise ValueError(f"{name} is of type {descr.decode('latin1')[:40]}")
    shape = tuple(int(size) for size in sizes.decode().split(",") if size.strip())
    return dtype, shape, order == b"True", 10 + length


def map_npy(path: Path, field: Field, advice: str = "") -> np.memmap:
    """The array of a file of ``np.save``, mapped and not read. Raises Damaged for one of another form or length."""
    with open_file(path, advice) as file:
        try:
            dtype, shape, fortran, offset = _read_header(file, field, "the array")
            field.refuse_form("the array", dtype, shape, {})
            size = os.fstat(file.fileno()).st_size
            if fortran or offset + math.prod(shape) * dtype.itemsize != size:
                raise ValueError(f"the array claims shape {shape} of {dtype}, in {size} bytes")
            return np.memmap(file, dtype, "r", offset, shape)
        except (OSError, ValueError) as error:
            raise Damaged(path, f"cannot be read ({error})", advice) from error
