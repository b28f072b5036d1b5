"""The package as others get it: a wheel outside the clone, the files around it, the net in it."""

from __future__ import annotations

import configparser
import io
import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from running import ROOT

from alexnet2012 import load_checkpoint
from alexnet2012.core.errors import InputError
from alexnet2012.data import open_dataset

SETUP = configparser.ConfigParser()
SETUP.read(ROOT / "setup.cfg")


def test_citation_and_changelog_name_the_version() -> None:
    version = SETUP["metadata"]["version"]
    assert f"\nversion: {version}\n" in (ROOT / "CITATION.cff").read_text()
    newest = re.search(r"^## (\S+?),? ", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert newest and newest[1] == version


def test_the_container_has_the_two_commands_of_the_readme() -> None:
    command = r"^python3 -m venv \.venv && \.venv/bin/pip install (.+?) && (.+)$"
    (_, train), (extras, test) = re.findall(command, (ROOT / "README.md").read_text(), re.MULTILINE)
    container = (ROOT / "Dockerfile").read_text()
    assert f"CMD {json.dumps(train.split())}\n" in container
    assert f".venv/bin/pip install --no-cache-dir {extras}\n" in container
    assert f"alexnet2012 {test}\n" in container


def test_the_sample_net_knows_clothes() -> None:
    with pytest.raises(InputError, match="sample: no such checkpoint file"):
        load_checkpoint("./sample")
    net, val = load_checkpoint("sample", "cpu"), open_dataset("sample", "val")
    net.refuse_other_classes(val, "sample")
    images = [Image.open(io.BytesIO(val[index][0])) for index in range(100)]
    right = [best[0].name == val.classes[val[index][1]] for index, best in enumerate(net.predict(images, 1, crops=1))]
    assert sum(right) >= 75
    shipped = ROOT / "src" / "alexnet2012" / "evaluation" / "sample"
    assert sum(file.stat().st_size for file in shipped.iterdir()) < 1.5e6


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory outside the clone with the contents of the wheel."""
    pytest.importorskip("setuptools")
    clone, out = tmp_path_factory.mktemp("clone"), tmp_path_factory.mktemp("installed")
    for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, clone)
    for name in ("src", "launch", "data_prep"):
        shutil.copytree(ROOT / name, clone / name, symlinks=True, ignore=shutil.ignore_patterns("*.egg-info"))
    build = "from setuptools.build_meta import build_wheel; build_wheel('.')"
    subprocess.run([sys.executable, "-c", build], cwd=clone, check=True, capture_output=True)
    (wheel,) = clone.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(out)
    return out


def installed_run(installed: Path, *words: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "alexnet2012", *map(str, words)]
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    return subprocess.run(command, cwd=installed.parent, env=environment, capture_output=True, text=True)


def test_the_commands_run_from_an_installed_wheel(installed: Path, tmp_path: Path) -> None:
    Image.fromarray(np.full((40, 60, 3), 200, np.uint8)).save(tmp_path / "photo.png")
    ended = installed_run(installed, "predict", tmp_path / "photo.png", "--checkpoint", "sample")
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout.startswith(f"{tmp_path / 'photo.png'}\n") and ended.stdout.count(" %  ") == 5


def test_every_command_of_the_clone_is_one_of_the_package(installed: Path) -> None:
    from alexnet2012.__main__ import COMMANDS

    commands = {
        f"{file.parent.name}/{file.name}" for name in ("launch", "data_prep") for file in (ROOT / name).glob("*.py")
    }
    assert set(COMMANDS.values()) == commands
    assert all((installed / "alexnet2012" / file).is_file() for file in commands)
    ended = installed_run(installed, "no-such-command")
    assert ended.returncode == 2 and "usage: python -m alexnet2012 {train," in ended.stderr
