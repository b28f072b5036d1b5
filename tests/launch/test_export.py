"""A checkpoint to other programs' files and back, on the command line."""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path

import pytest
import torch
from checkpoints import write_checkpoint
from running import ROOT, assert_refused, here, write_tree
from safetensors.torch import load, load_file

from alexnet2012 import load_checkpoint
from alexnet2012.data import open_dataset
from alexnet2012.evaluation.export import onnx_difference

EXPORT = ROOT / "launch" / "export.py"


@pytest.fixture(scope="module")
def net(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("net")
    return write_checkpoint(directory / "net.pt", open_dataset(write_tree(directory / "tree", 4, 1, 1), "val"))


def test_there_and_back(net: Path, tmp_path: Path) -> None:
    whole, grouped, back = tmp_path / "net.safetensors", tmp_path / "grouped.safetensors", tmp_path / "back.pt"
    assert here(EXPORT, net, "--safetensors", whole).code == 0
    assert "towers.1.conv2.weight" in load_file(whole)
    assert here(EXPORT, net, "--safetensors", grouped, "--grouped").code == 0
    assert load_file(grouped)["conv2.weight"].shape == (16, 3, 5, 5)
    assert here(EXPORT, net, "--weights-of", grouped, "--checkpoint", back).code == 0
    one, other = load_checkpoint(net, "cpu"), load_checkpoint(back, "cpu")
    assert all(torch.equal(weight, other.get_parameter(name)) for name, weight in one.named_parameters())


@pytest.mark.parametrize("flag", ["--safetensors", "--onnx"])
def test_the_checkpoint_is_not_overwritten(net: Path, flag: str) -> None:
    before = net.read_bytes()
    assert_refused(here(EXPORT, net, flag, net.parent / "tree" / ".." / net.name), "cannot be written, it is read")
    assert net.read_bytes() == before


def test_a_pipe_receives_the_file_and_a_link_leads_to_it(net: Path, tmp_path: Path) -> None:
    pipe, link = tmp_path / "pipe", tmp_path / "link"
    os.mkfifo(pipe)
    link.symlink_to("net.safetensors")
    received: list[bytes] = []
    reader = threading.Thread(target=lambda: received.append(pipe.read_bytes()), daemon=True)
    reader.start()
    for path in (pipe, link):
        assert here(EXPORT, net, "--safetensors", path).code == 0
    assert link.is_symlink() and pipe.is_fifo()
    reader.join(10)
    assert load(received[0]).keys() == load_file(tmp_path / "net.safetensors").keys()


def test_two_outputs_of_one_name_are_refused(net: Path, tmp_path: Path) -> None:
    out = tmp_path / "net.onnx"
    assert_refused(here(EXPORT, net, "--safetensors", out, "--onnx", out), "another output goes there")
    assert not out.exists()


def test_onnx(net: Path, tmp_path: Path) -> None:
    for package in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(package)
    ended = here(EXPORT, net, "--onnx", tmp_path / "net.onnx")
    assert ended.code == 0 and "in onnxruntime" in ended.out
    assert [path.name for path in tmp_path.iterdir()] == ["net.onnx"]  # the weights are inside
    assert onnx_difference(load_checkpoint(net, "cpu"), tmp_path / "net.onnx", images=12) < 1e-4


def test_bad_input_is_one_line_and_code_2(net: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    text = tmp_path / "text"
    text.write_text("no tensors")
    for flags, reason in (
        ((net,), "nothing to write"),
        ((net, "--grouped", "--onnx", tmp_path / "a"), "--grouped: needs --safetensors"),
        ((net, "--weights-of", text), "each needs the other"),
        ((net, "--weights-of", text, "--checkpoint", tmp_path / "b.pt"), f"{text}: not a safetensors file"),
        ((text, "--safetensors", tmp_path / "a"), f"{text}: not a whole checkpoint"),
        ((net, "--onnx", tmp_path / "net.onnx"), "pip install 'alexnet2012[export]'"),
        ((net, "--onnx", tmp_path), f"{tmp_path} cannot be written"),
    ):
        ended = here(EXPORT, *flags)
        assert ended.code == 2 and ended.err.count("\n") == 1 and reason in ended.err, ended.err
    assert list(tmp_path.iterdir()) == [text]
