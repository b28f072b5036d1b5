"""A tree train/<wnid>/, val/<wnid>/ in the form of ILSVRC-2012's archives: python make_archives.py TREE OUT

Writes ILSVRC2012_img_train.tar (a tar a class in it), ILSVRC2012_img_val.tar (one flat list) and
ILSVRC2012_devkit_t12.tar.gz (meta.mat, the ground truth): what image-net.org offers, in small.
"""

from __future__ import annotations

import io
import sys
import tarfile
from pathlib import Path

import numpy as np
from scipy.io import savemat

from alexnet2012.data.dataset import in_words

FIELDS = ("ILSVRC2012_ID", "WNID", "words", "num_children")


def main(tree: Path, out: Path) -> None:
    wnids = sorted(path.name for path in (tree / "train").iterdir())
    out.mkdir(parents=True, exist_ok=True)
    with tarfile.open(out / "ILSVRC2012_img_train.tar", "w") as archive:
        for wnid in wnids:
            add(archive, f"{wnid}.tar", class_archive(sorted((tree / "train" / wnid).iterdir())))
    val = sorted(
        (path.name, number, path) for number, wnid in enumerate(wnids) for path in (tree / "val" / wnid).iterdir()
    )
    with tarfile.open(out / "ILSVRC2012_img_val.tar", "w") as archive:
        for position, (_, _, path) in enumerate(val, start=1):
            add(archive, f"ILSVRC2012_val_{position:08d}.JPEG", path.read_bytes())
    truth = "".join(f"{number + 1}\n" for _, number, _ in val)
    with tarfile.open(out / "ILSVRC2012_devkit_t12.tar.gz", "w:gz") as archive:
        add(archive, "ILSVRC2012_devkit_t12/data/meta.mat", meta(wnids))
        add(archive, "ILSVRC2012_devkit_t12/data/ILSVRC2012_validation_ground_truth.txt", truth.encode())


def class_archive(paths: list[Path]) -> bytes:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as archive:
        for path in paths:
            add(archive, path.name, path.read_bytes())
    return content.getvalue()


def meta(wnids: list[str]) -> bytes:
    synsets = np.zeros((len(wnids), 1), [(name, object) for name in FIELDS])
    for number, (wnid, words) in enumerate(zip(wnids, in_words(wnids), strict=True)):
        synsets[number, 0] = (number + 1, wnid, words, 0)
    content = io.BytesIO()
    savemat(content, {"synsets": synsets})
    return content.getvalue()


def add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    archive.addfile(info, io.BytesIO(content))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
