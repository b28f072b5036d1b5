"""Seeded damage to files: of any kind, and hostile content for each format that the project reads."""

from __future__ import annotations

import gzip
import io
import json
import os
import random
import struct
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.lib import format as npy
from PIL import Image
from safetensors.torch import load_file, save_file

Damage = Callable[[Path, random.Random], None]
ODD_NAMES = (b"\xff\xfe", b"line\nbreak", b"\x1b[31mred", b"tab\t", b"cr\r", "\u202eright to left".encode())


def edit(change: Callable[[bytearray, random.Random], object]) -> Damage:
    """A damage that changes a file's bytes in place, or returns others."""

    def damage(path: Path, draw: random.Random) -> None:
        content = bytearray(path.read_bytes())
        changed = change(content, draw)
        path.write_bytes(bytes(changed) if isinstance(changed, bytes | bytearray) else bytes(content))

    return damage


def flip(content: bytearray, draw: random.Random) -> None:
    for _ in range(draw.choice((1, 1, 2, 8))):
        content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)


def zero(content: bytearray, draw: random.Random) -> None:
    start = draw.randrange(len(content))
    length = draw.randrange(1, 1 + min(len(content) - start, draw.choice((4, 512, 10**6))))
    content[start : start + length] = bytes(length)


def other_kind(content: bytearray, draw: random.Random) -> bytes:
    """A whole file of another kind."""
    picture, arrays, packed = io.BytesIO(), io.BytesIO(), io.BytesIO()
    Image.new("RGB", (40, 30), (200, 100, 50)).save(picture, "JPEG")
    np.savez(arrays, other=np.arange(9))
    with tarfile.open(fileobj=packed, mode="w") as tar:
        add_member(tar, "notes.txt", b"notes")
    kinds = (picture.getvalue(), arrays.getvalue(), packed.getvalue(), b'{"a": 1}\n', b"[1, 2]\n", b"a,b\n1,2\n")
    return draw.choice((*kinds, gzip.compress(b"text"), b"\x80\x04N."))


def replace_by(make: Callable[[Path], object]) -> Damage:
    """A damage that puts something else in the file's place."""

    def damage(path: Path, draw: random.Random) -> None:
        path.unlink()
        make(path)

    return damage


ANY: dict[str, Damage] = {
    "cut": lambda path, draw: os.truncate(path, draw.randrange(path.stat().st_size)),
    "flipped": edit(flip),
    "zeroed": edit(zero),
    "doubled": edit(lambda content, draw: content + content),
    "emptied": edit(lambda content, draw: b""),
    "swapped": edit(other_kind),
    "directory": replace_by(Path.mkdir),
    "fifo": replace_by(lambda path: os.mkfifo(path)),
    "device": replace_by(lambda path: path.symlink_to("/dev/zero")),
    "link loop": replace_by(lambda path: path.symlink_to(path.name)),
    "removed": replace_by(lambda path: None),
}


# JSON


def nodes(value: Any) -> list[tuple[Any, Any]]:
    """(container, key) of every value within ``value``."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [pair for key, inner in items for pair in [(value, key), *nodes(inner)]]


STRANGE = (None, True, [], {}, [[]], "text", "", -1, 0, 1.5, 10**30, float("nan"), float("inf"), -(2**63))


def other_type(content: bytearray, draw: random.Random) -> bytes:
    """One value replaced, of another type or out of range; or a key taken away."""
    value = json.loads(content)
    container, key = draw.choice(nodes(value))
    if draw.random() < 0.2:
        del container[key]
    else:
        container[key] = draw.choice([other for other in STRANGE if type(other) is not type(container[key])])
    return json.dumps(value).encode()


def deep(content: bytearray, draw: random.Random) -> bytes:
    depth = draw.choice((2_000, 200_000))
    return draw.choice((b"[" * depth, b'{"a":' * depth, b"[" * depth + b"]" * depth))


JSON: dict[str, Damage] = {
    "json type": edit(other_type),
    "deep nesting": edit(deep),
    "json root": edit(lambda content, draw: draw.choice((b"[]", b"{}", b"null", b'"text"', b"7", b"NaN", b"[{}]"))),
    "not utf-8": edit(lambda content, draw: content.replace(b'"', b'"\xff', 1)),
    "long number": edit(lambda content, draw: b'{"step": ' + b"9" * 10_000 + b"}"),
}


def of_a_line(change: Callable[[bytearray, random.Random], object]) -> Damage:
    """The same of one line of several."""

    def damage(content: bytearray, draw: random.Random) -> bytes:
        lines = bytes(content).splitlines(keepends=True)
        place = draw.randrange(len(lines))
        line = bytearray(lines[place])
        lines[place] = bytes(change(line, draw) or line).rstrip(b"\n") + b"\n"  # type: ignore[arg-type,call-overload]
        return b"".join(lines)

    return edit(damage)


ROWS: dict[str, Damage] = {
    "json type": of_a_line(other_type),
    "deep nesting": of_a_line(deep),
    "json root": of_a_line(lambda line, draw: draw.choice((b"[]", b"null", b"7", b'"text"', b"[7]"))),
    "not utf-8": of_a_line(lambda line, draw: b"\xff" + line),
    "long number": of_a_line(lambda line, draw: b'{"step": ' + b"9" * 10_000 + b"}"),
}


# Arrays


def npy_header(text: str, version: tuple[int, int] = (1, 0)) -> bytes:
    body = text.encode("latin1") + b"\n"
    return npy.magic(*version) + struct.pack("<H" if version == (1, 0) else "<I", len(body)) + body


HOSTILE_HEADERS = (
    npy_header("{'descr': '<f8', 'fortran_order': False, 'shape': (1152921504606846976,)}"),
    npy_header("{'descr': '<f8', 'fortran_order': False, 'shape': (2000000000,)}"),
    npy_header("{'descr': '<f8', 'fortran_order': False, 'shape': (-1, -1)}"),
    npy_header("{'descr': '<f8', 'fortran_order': False, 'shape': (True, 3)}"),
    npy_header("{'descr': '|O', 'fortran_order': False, 'shape': (3,)}") + b"\x80\x04N.",
    npy_header("{'descr': '<U1000000000', 'fortran_order': False, 'shape': (3,)}"),
    npy_header("{'descr': '<f8', 'fortran_order': False, 'shape': ()"),
    npy_header("(" * 9_000),
    npy_header("-" * 9_000 + "1"),
    npy.magic(2, 0) + b"\xff\xff\xff\xff{}",
    npy.magic(9, 0) + b"\x10\x00{}",
)


def strange_array(array: Any, draw: random.Random) -> Any:
    """The array with another shape or type, or with values out of range."""
    array = np.array(array)
    numbers = array.dtype.kind in "fiu"
    changes: list[Callable[[], Any]] = [
        lambda: array[None],
        lambda: np.asfortranarray(array) if array.ndim > 1 else array.reshape(-1, 1),
        lambda: np.zeros(array.shape, "<U3"),
        lambda: np.zeros((0, *array.shape[1:]), array.dtype),
        lambda: array.astype(complex) if numbers else np.zeros(3),
        lambda: array.astype(bool) if numbers else np.zeros((), "<U0"),
    ]
    if numbers:
        changes += [lambda value=value: spoiled(array, value, draw) for value in (-1, 2**31 - 1, -(2**31))]  # type: ignore[misc]
    if array.dtype.kind == "f":
        changes += [lambda value=value: spoiled(array, value, draw) for value in (np.nan, np.inf, 1e30)]  # type: ignore[misc]
    return draw.choice(changes)()


def spoiled(array: Any, value: float, draw: random.Random) -> Any:
    array.reshape(-1)[draw.randrange(array.size)] = value
    return array


def npy_bytes(array: Any) -> bytes:
    file = io.BytesIO()
    np.save(file, array, allow_pickle=True)
    return file.getvalue()


def hostile_npy(content: bytearray, draw: random.Random) -> bytes:
    return draw.choice(HOSTILE_HEADERS) + bytes(content[128:])


def strange_npy(content: bytearray, draw: random.Random) -> bytes:
    array = np.load(io.BytesIO(bytes(content)))
    if array.dtype.names:
        field = draw.choice(array.dtype.names)
        array[field] = spoiled(array[field].copy(), draw.choice((-1, 2**31 - 1, -(2**31), 3)), draw)
        return npy_bytes(array)
    return npy_bytes(strange_array(array, draw))


def index_npy(content: bytearray, draw: random.Random) -> bytes:
    """A structured array with fields of other types, names or number."""
    array = np.load(io.BytesIO(bytes(content)))
    wide = np.array(array, [(name, "<i8") for name in array.dtype.names])
    return npy_bytes(draw.choice((array["label"], wide, array[:-1], array[None], array["offset"])))


NPY: dict[str, Damage] = {"hostile header": edit(hostile_npy), "strange array": edit(strange_npy)}
INDEX_NPY: dict[str, Damage] = {**NPY, "other fields": edit(index_npy)}


def members(content: bytearray) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(bytes(content))) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def zipped(files: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return file.getvalue()


def hostile_npz(content: bytearray, draw: random.Random) -> bytes:
    files = members(content)
    name = draw.choice(list(files))
    how = draw.randrange(5)
    if how == 0:
        files[name] = draw.choice(HOSTILE_HEADERS) + files[name][128:]
    elif how == 1:
        del files[name]
    elif how == 2:
        header = npy_header("{'descr': '<f8', 'fortran_order': False, 'shape': (40000000,)}")
        return zipped({**files, name: header + bytes(320_000_000)}, zipfile.ZIP_DEFLATED)
    elif how == 3:
        files[name] = draw.choice((b"", b"text", npy_bytes(np.array([{"a": 1}, None], object))))
    else:
        return declaring_more(zipped(files), draw)
    return zipped(files)


def declaring_more(content: bytes, draw: random.Random) -> bytes:
    """An archive whose directory claims a member to be larger than the file."""
    changed = bytearray(content)
    place = content.rindex(b"PK\x01\x02")
    struct.pack_into("<II", changed, place + 20, 0xFFFFFF00, 0xFFFFFF00)
    return bytes(changed)


def strange_npz(content: bytearray, draw: random.Random) -> bytes:
    files = members(content)
    name = draw.choice(list(files))
    files[name] = npy_bytes(strange_array(np.load(io.BytesIO(files[name])), draw))
    return zipped(files)


NPZ: dict[str, Damage] = {"hostile npz": edit(hostile_npz), "strange array": edit(strange_npz)}


# Checkpoints and weights


class Harm:
    """What a pickle runs when it is loaded."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("harm",)


def strange_tensor(tensor: Any, draw: random.Random) -> Any:
    """The tensor with another shape, type or layout, or with a value that is not finite."""
    spoil = tensor.clone().reshape(-1)
    if spoil.is_floating_point():
        spoil[draw.randrange(len(spoil))] = draw.choice((float("nan"), float("inf")))
    return draw.choice(
        (
            spoil.reshape(tensor.shape),
            tensor.to(torch.int32),
            tensor.to(torch.complex64),
            tensor.to_sparse(),
            tensor[None],
            tensor[..., :1],
            tensor.reshape(-1)[:1],
            tensor.reshape(-1)[:1].expand(1 << 20, 1 << 20),
            torch.zeros(tensor.shape, device="meta"),
            tensor.to(torch.bool),
            None,
            "text",
        )
    )


def strange_checkpoint(path: Path, draw: random.Random) -> None:
    saved = torch.load(path, weights_only=True)
    saved = {name: dict(value) if isinstance(value, dict) else value for name, value in saved.items()}
    kinds = ("weights", "weights", "optimizer", "statistics", "recipe", "class names", "harm")
    kind = draw.choice([kind for kind in kinds if kind in saved or kind in ("class names", "harm")] + ["top"])
    if kind == "harm":
        saved["more"] = Harm()
    elif kind == "class names":
        names = saved["class_names"]
        saved["class_names"] = draw.choice((names[:-1], [*names, "more"], [1] * len(names), "abc", None, [[]] * 3))
    elif kind == "recipe":
        name = draw.choice(sorted(saved["recipe"]))
        saved["recipe"][name] = draw.choice((None, "text", -1, float("nan"), [], (), 10**9, (10**9,) * 5, {}))
    elif kind == "top":
        name = draw.choice(sorted(saved))
        saved[name] = draw.choice((None, "text", -1, 10**9, float("nan"), [], {}, torch.zeros(3), True))
    else:
        tensors = saved[kind]["velocity"] if kind == "optimizer" else saved[kind]
        name = draw.choice(sorted(tensors))
        if draw.random() < 0.2:
            del tensors[name]
        else:
            tensors[name] = strange_tensor(tensors[name] if tensors[name].ndim else tensors[name][None], draw)
    torch.save(saved, path)


def hostile_zip(content: bytearray, draw: random.Random) -> bytes:
    files = members(content)
    if draw.random() < 0.5:
        return declaring_more(zipped(files), draw)
    large = max(files, key=lambda name: len(files[name]))
    return zipped({**files, large: bytes(300_000_000)}, zipfile.ZIP_DEFLATED)


CHECKPOINT: dict[str, Damage] = {"strange checkpoint": strange_checkpoint, "hostile zip": edit(hostile_zip)}
CHECKPOINT["strange checkpoint "] = strange_checkpoint  # twice as often: it has the most forms


def strange_safetensors(path: Path, draw: random.Random) -> None:
    weights = load_file(path)
    name = draw.choice(sorted(weights))
    spoil = weights[name].clone()
    spoil.view(-1)[0] = draw.choice((float("nan"), float("inf")))
    changed = draw.choice((spoil, weights[name].to(torch.int32), weights[name].to(torch.bool), weights[name][None]))
    save_file({**weights, name: changed.contiguous()}, path, {"lrn": "within towers"})


def hostile_safetensors(content: bytearray, draw: random.Random) -> bytes:
    deep = b"[" * 100_000
    return draw.choice(
        (
            struct.pack("<Q", 2**63) + bytes(content[8:]),
            struct.pack("<Q", 99_000_000) + bytes(content[8:]),
            struct.pack("<Q", len(deep)) + deep,
            bytes(content).replace(b'"data_offsets":[', b'"data_offsets":[9', 1),
            bytes(content).replace(b'"F32"', b'"I32"', 1),
        )
    )


SAFETENSORS: dict[str, Damage] = {"strange tensors": strange_safetensors, "hostile header": edit(hostile_safetensors)}


# Archives


def add_member(tar: tarfile.TarFile, name: str, content: bytes, kind: bytes = tarfile.REGTYPE) -> None:
    info = tarfile.TarInfo(name)
    info.size, info.type = len(content), kind
    tar.addfile(info, io.BytesIO(content))


def rewritten(content: bytes, place: int, **fields: bytes) -> bytes:
    """The tar with fields of the header at ``place`` replaced, its checksum right."""
    header = bytearray(content[place : place + 512])
    at = {"name": (0, 100), "size": (124, 12), "type": (156, 1)}
    for field, value in fields.items():
        start, length = at[field]
        header[start : start + length] = value.ljust(length, b"\0")
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return content[:place] + bytes(header) + content[place + 512 :]


def headers(content: bytes) -> list[int]:
    with tarfile.open(fileobj=io.BytesIO(content), mode="r:") as tar:
        return [member.offset for member in tar]


SIZES = (
    b"77777777777\0",
    b"\x80" + (2**62).to_bytes(11, "big"),
    b"\x80" + (2**70).to_bytes(11, "big"),
    b"\xff" + (-1024).to_bytes(11, "big", signed=True),
    b"\xff" + (-512).to_bytes(11, "big", signed=True),
    b"-0000001000\0",
    b"not a size\0",
    b"00000000001\0",
)


def long_name_header(kind: bytes, size: bytes) -> bytes:
    return rewritten(tarfile.TarInfo("././@LongLink").tobuf(tarfile.GNU_FORMAT), 0, type=kind, size=size)


def hostile_tar(content: bytearray, draw: random.Random) -> bytes:
    """Sizes, long names, types and names that no tar program writes; every checksum is right."""
    whole = bytes(content)
    place = draw.choice(headers(whole))
    if draw.random() < 0.4 and whole[place : place + 100].rstrip(b"\0").endswith(b".tar"):  # a tar in the tar
        size = int(whole[place + 124 : place + 135], 8)
        inner = whole[place + 512 : place + 512 + size]
        place += 512 + draw.choice(headers(inner))
    how = draw.randrange(6)
    if how == 0:
        return rewritten(whole, place, size=draw.choice(SIZES))
    if how == 1:
        kinds = (b"3", b"4", b"6", b"S", b"1", b"2", b"5", b"Z", b"L", b"K", b"x", b"g", b"D", b"V")
        return rewritten(whole, place, type=draw.choice(kinds))
    if how == 2:
        name = whole[place : place + 100].rstrip(b"\0")
        stem = name.rpartition(b".")[0]
        odd = (b"", stem, stem + b".txt", stem + b".JPG.", b"../" + name, b"/" + name, b"." + name, b"\xff" + name)
        return rewritten(whole, place, name=draw.choice((*odd, b"\n\x1b[31m" + name, name + b"/")))
    if how == 3:
        kind = draw.choice((b"L", b"K", b"x", b"g"))
        return whole[:place] + long_name_header(kind, b"%011o\0" % 0) * draw.choice((30, 3_000)) + whole[place:]
    if how == 4:
        return whole[:place] + long_name_header(draw.choice((b"L", b"x")), draw.choice(SIZES)) + whole[place:]
    records = (b"30 size=99999999999999999999\n", b"17 GNU.sparse.a\n", b"9999999999 path=a\n", b"x", b"13 size=-512\n")
    record = draw.choice(records)
    info = tarfile.TarInfo("pax")
    info.type, info.size = tarfile.XHDTYPE, len(record)
    return whole[:place] + info.tobuf() + record + bytes(-len(record) % 512) + whole[place:]


TAR: dict[str, Damage] = {"hostile tar": edit(hostile_tar), "hostile tar ": edit(hostile_tar)}


def hostile_gzip(content: bytearray, draw: random.Random) -> bytes:
    """A damaged archive within a whole gzip, or a small file that becomes a large one."""
    if draw.random() < 0.25:
        return gzip.compress(bytes(400_000_000), 1)
    return gzip.compress(hostile_tar(bytearray(gzip.decompress(bytes(content))), draw), 1)


GZIP: dict[str, Damage] = {"hostile gzip": edit(hostile_gzip)}


# Tables


def cut_line(line: bytearray, draw: random.Random) -> bytes:
    return bytes(line[: draw.randrange(len(line))])


TABLE: dict[str, Damage] = {
    "cut line": of_a_line(cut_line),
    "not utf-8": of_a_line(lambda line, draw: b"\xff" + line),
    "nul": of_a_line(lambda line, draw: line[:5] + b"\0" + line[5:]),
    "no words": of_a_line(lambda line, draw: line.partition(b" ")[0] + draw.choice((b"", b" ", b"  "))),
    "line away": edit(lambda content, draw: bytes(content).partition(b"\n")[2]),
    "line twice": edit(lambda content, draw: content + bytes(content).splitlines(keepends=True)[-1]),
    "long line": of_a_line(lambda line, draw: line + b"x" * 200_000),
    "blank": edit(lambda content, draw: draw.choice((b"\n", b"\n\n\n", b" ", b"\xef\xbb\xbf"))),
}


# Pictures and trees


def two_frame_headers(content: bytearray, draw: random.Random) -> bytes:
    """A JPEG whose frame header stands twice."""
    place = next(content.index(marker) for marker in (b"\xff\xc0", b"\xff\xc2") if marker in content)
    length = 2 + int.from_bytes(content[place + 2 : place + 4], "big")
    return bytes(content[: place + length] + content[place : place + length] + content[place + length :])


def vast(content: bytearray, draw: random.Random) -> bytes:
    """A JPEG that says to be of 65,500x65,500 pixels."""
    place = next(content.index(marker) for marker in (b"\xff\xc0", b"\xff\xc2") if marker in content)
    content[place + 5 : place + 9] = b"\xff\xdc\xff\xdc"
    return bytes(content)


JPEG: dict[str, Damage] = {"two frame headers": edit(two_frame_headers), "vast": edit(vast)}


def odd_image(path: Path, draw: random.Random) -> None:
    path.rename(os.fsdecode(bytes(path.parent) + b"/" + draw.choice(ODD_NAMES) + os.fsencode(path.suffix)))


def odd_damaged_image(path: Path, draw: random.Random) -> None:
    path.write_bytes(b"no image")
    odd_image(path, draw)


def odd_class(path: Path, draw: random.Random) -> None:
    """Its class folder renamed in every split."""
    name = os.fsdecode(draw.choice(ODD_NAMES))
    for split in path.parents[1].parent.iterdir():
        if (folder := split / path.parent.name).is_dir():
            folder.rename(folder.with_name(name))


def odd_entry(make: Callable[[Path], object], beside_class: bool) -> Damage:
    """Something that is no image or no class, where one belongs."""

    def damage(path: Path, draw: random.Random) -> None:
        folder = path.parent.parent if beside_class else path.parent
        make(folder / ("n09999999" if beside_class else f"another{path.suffix}"))

    return damage


ENTRIES: dict[str, Callable[[Path], object]] = {
    "loop": lambda path: path.symlink_to(path.name),
    "lost link": lambda path: path.symlink_to("nowhere"),
    "fifo": lambda path: os.mkfifo(path),
    "device": lambda path: path.symlink_to("/dev/zero"),
}
TREE: dict[str, Damage] = {
    "odd name": odd_image,
    "odd name, no image": odd_damaged_image,
    "odd class": odd_class,
    **{f"{name} as image": odd_entry(make, False) for name, make in ENTRIES.items()},
    **{f"{name} as class": odd_entry(make, True) for name, make in ENTRIES.items()},
}
