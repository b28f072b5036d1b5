"""The files around the package say the same as the package."""

from __future__ import annotations

import configparser
import json
import re

from running import ROOT

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
