"""Trained nets through the Hugging Face Hub's mixin, with a local directory in place of the Hub."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from checkpoints import write_checkpoint
from running import write_tree

from alexnet2012 import load_checkpoint
from alexnet2012.core.errors import InputError
from alexnet2012.data import open_dataset
from alexnet2012.evaluation import checkpoint
from alexnet2012.network.reference import NETS


@pytest.mark.parametrize("name", ["2012", "lenet"])
def test_there_and_back(name: str, tmp_path: Path) -> None:
    pytest.importorskip("huggingface_hub")
    from alexnet2012.evaluation.hub import HubAlexNet, HubReferenceNet

    hub_net = HubAlexNet if name == "2012" else HubReferenceNet
    val = open_dataset(write_tree(tmp_path / "tree", 4, 1, 1), "val")
    file = write_checkpoint(tmp_path / "net.pt", val, recipe=None if name == "2012" else NETS[name].recipe())
    hub_net(checkpoint.load(file)).save_pretrained(tmp_path / "hub")
    net, again = load_checkpoint(file, "cpu"), hub_net.from_pretrained(tmp_path / "hub")
    assert (again.recipe, again.class_names, again.training) == (net.recipe, val.classes, False)
    assert all(torch.equal(weight, again.get_parameter(name)) for name, weight in net.named_parameters())
    photo = next((tmp_path / "tree").rglob("*.JPEG"))
    assert again.predict(photo) == net.predict(photo)
    assert "library_name: alexnet2012" in (tmp_path / "hub" / "README.md").read_text()


def test_without_the_extra_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    monkeypatch.delitem(sys.modules, "alexnet2012.evaluation.hub", raising=False)
    with pytest.raises(InputError, match=r"pip install 'alexnet2012\[hub\]'"):
        import alexnet2012.evaluation.hub  # noqa: F401
