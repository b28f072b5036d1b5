"""Readers for files that may be damaged or hostile.

They check the kind of file, and the declared sizes, types and shapes, before they allocate memory or block: a pipe
would block, a device never ends, a header may declare more memory than there is.
"""

from __future__ import annotations

import json
import math
import os
import reprlib
import stat
import warnings
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import Any, TextIO

import numpy as np
from numpy.lib.format import open_memmap, read_array, read_array_header_1_0, read_magic
from numpy.typing import NDArray

from alexnet2012.core.errors import InputError, printable

JSON_BYTES = 2**30  # of a JSON file, at most; a manifest that lists a million images has 50 MB
NPY_HEADER = 1000  # bytes, at most: numpy reads it with Python's parser, which deep nesting exhausts


class Damaged(InputError):
    """An unreadable file or one with the wrong contents: its path, the reason, and what to do."""

    def __init__(self, path: str | os.PathLike[str], reason: str, advice: str = "") -> None:
        super().__init__(path, reason, advice)
        self.reason = reason

    def __str__(self) -> str:
        path, reason, advice = self.args
        return printable(f"{path}: {reason}" + (f"; {advice}" if advice else ""))


def is_file(path: Path) -> bool:
    """True if the file exists. Raises Damaged for a directory, pipe, device or broken link of that name."""
    if path.is_file():
        return True
    if path.exists() or path.is_symlink():
        raise Damaged(path, "is not a file", "remove it, or put the file there")
    return False


def open_lock(path: Path) -> TextIO:
    """Open a lock file, creating it if needed, without blocking or following a link. Raises Damaged."""
    return os.fdopen(_open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW, "remove it"), "a+")


def open_file(path: str | os.PathLike[str], advice: str = "") -> BufferedReader:
    """Open a file for reading. Raises Damaged if it is missing, or is a directory, pipe or device."""
    return os.fdopen(_open(path, os.O_RDONLY, advice), "rb")


def _open(path: str | os.PathLike[str], flags: int, advice: str) -> int:
    try:
        descriptor = os.open(path, flags | os.O_NONBLOCK | os.O_CLOEXEC, 0o666)
    except OSError as error:
        raise Damaged(path, f"cannot be read ({error.strerror})", advice) from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise Damaged(path, "is not a file", advice)
    return descriptor


def read_bytes(path: str | os.PathLike[str], limit: int, advice: str = "") -> bytes:
    """The whole file. Raises Damaged as ``open_file`` does, and for more than ``limit`` bytes."""
    with open_file(path, advice) as file:
        size = os.fstat(file.fileno()).st_size
        if size > limit:
            raise Damaged(path, f"has {size} bytes, more than {limit}", advice)
        try:
            return file.read(size)
        except OSError as error:
            raise Damaged(path, f"cannot be read ({error.strerror})", advice) from error


def read_json(path: Path, form: Any = dict, advice: str = "") -> Any:
    """The value in a JSON file. Raises Damaged if it does not match ``form``, see ``require``."""
    content = read_bytes(path, JSON_BYTES, advice)
    try:
        value = json.loads(content.decode())
        require(value, form)
    except (ValueError, RecursionError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise Damaged(path, f"cannot be read ({reason})", advice) from error
    return value


def is_utf8(name: str) -> bool:
    """True if a file's name is UTF-8, as libraries written in C++ and Rust require."""
    return not any(0xD800 <= ord(c) < 0xE000 for c in name)


def require(value: Any, form: Any, name: str = "") -> None:
    """Raises ValueError, naming the place, if ``value`` does not match ``form``.

    A form is a type, a list holding the form of all items, a predicate, or a dict of required keys and their forms; a
    key that ends with ? may be absent.
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
    """The first 40 characters of ``repr(value)``, fast even where all of it is huge, as for nested shared lists."""
    return reprlib.repr(value)[:40]


def is_count(value: Any) -> bool:
    """True if ``value`` is an integer from 0 that fits int64."""
    return type(value) is int and 0 <= value < 2**63


def is_number(value: Any) -> bool:
    """True if ``value`` is an integer that fits int64, or a float, possibly infinite but not NaN."""
    return abs(value) < 2**63 if type(value) is int else type(value) is float and not math.isnan(value)


@dataclass(frozen=True)
class Field:
    """Requirements of an array. A size given as a word matches any number, the same wherever the word occurs."""

    kind: str | np.dtype  # numpy's kind letters: f float, i and u integers, U text; or the exact dtype
    shape: tuple[int | str, ...]
    minimum: float = -math.inf  # of every value; floats must also be finite
    maximum: float = math.inf

    def refuse_form(self, name: str, dtype: np.dtype, shape: tuple[int, ...], sizes: dict[str, int]) -> None:
        """Raises ValueError for another dtype or shape; records the size of each word in ``sizes``."""
        if isinstance(self.kind, str):
            right = dtype.kind in self.kind and dtype.isnative and (dtype.kind == "U" or dtype.itemsize <= 8)
        else:
            right = dtype == self.kind
        if not right:
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
            if not (self.minimum <= low and high <= self.maximum and math.isfinite(low) and math.isfinite(high)):
                raise ValueError(f"{name} has values from {low:g} to {high:g}")


Form = Mapping[str, Field]


def require_arrays(arrays: Mapping[str, NDArray[Any]], form: Form) -> None:
    """Raises ValueError, naming the array, if one is missing, of another form or out of range."""
    sizes: dict[str, int] = {}
    for name, field in form.items():
        if not isinstance(arrays.get(name), np.ndarray):
            raise ValueError(f"holds no {name}")
        field.refuse_form(name, arrays[name].dtype, arrays[name].shape, sizes)
        field.refuse_values(name, arrays[name])


def read_npz(path: Path, form: Form, advice: str = "") -> dict[str, NDArray[Any]]:
    """Read the arrays named in ``form`` from a file of ``np.savez``. Raises Damaged if one does not match."""
    arrays, sizes = {}, dict[str, int]()
    with open_file(path, advice) as file:
        try:
            with zipfile.ZipFile(file) as archive:
                refuse_packed(archive, os.fstat(file.fileno()).st_size)
                for name, field in form.items():
                    with archive.open(f"{name}.npy") as member:
                        _refuse_header(member, archive.getinfo(member.name).file_size, name, field, sizes)
                    with archive.open(f"{name}.npy") as member:  # its end checks the CRC
                        arrays[name] = read_array(member, max_header_size=NPY_HEADER)
                    field.refuse_values(name, arrays[name])
        except Exception as error:  # zipfile raises many kinds
            reason = error.args[0] if isinstance(error, KeyError | ValueError) else repr(error)
            raise Damaged(path, f"cannot be read ({reason})", advice) from error
    return arrays


def refuse_packed(archive: zipfile.ZipFile, size: int) -> None:
    """Raises ValueError for compressed members or more than ``size`` bytes in all: ours have neither."""
    for info in archive.infolist():
        size -= info.file_size
        if info.compress_type != zipfile.ZIP_STORED or info.file_size != info.compress_size or size < 0:
            raise ValueError(f"{info.filename} claims {info.file_size} bytes, or is compressed")


def _refuse_header(file: Any, length: int, name: str, field: Field, sizes: dict[str, int]) -> None:
    """Raises ValueError unless ``file``, npy of ``length`` bytes, declares an array that matches ``field``."""
    try:
        with warnings.catch_warnings(action="error"):
            version = read_magic(file)
            shape, _, dtype = read_array_header_1_0(file, max_header_size=NPY_HEADER)
    except Exception as error:  # the parser raises many kinds
        raise ValueError(f"{name} has no numpy header: {repr(error)[:80]}") from error
    field.refuse_form(name, dtype, shape, sizes)
    negative = min(shape, default=0) < 0
    if version != (1, 0) or negative or file.tell() + math.prod(shape) * dtype.itemsize != length:
        raise ValueError(f"{name} claims shape {shape} of {dtype}, in {length} bytes")


def map_npy(path: Path, field: Field, advice: str = "") -> np.memmap:
    """Memory-map the array of a file of ``np.save``. Raises Damaged for another form or length."""
    with open_file(path, advice) as file:
        try:
            _refuse_header(file, os.fstat(file.fileno()).st_size, "the array", field, {})
            return open_memmap(path, "r", max_header_size=NPY_HEADER)
        except (OSError, ValueError) as error:
            raise Damaged(path, f"cannot be read ({error})", advice) from error
