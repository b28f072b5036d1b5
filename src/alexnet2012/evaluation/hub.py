"""Trained nets on the Hugging Face Hub. Needs the extra ``hub``.

``HubAlexNet(checkpoint.load(FILE)).push_to_hub("user/name")`` uploads a net;
``HubAlexNet.from_pretrained("user/name")`` returns what ``load_checkpoint`` does. ``HubReferenceNet`` is for the
reference nets. Both accept local directories.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from alexnet2012.core.errors import InputError
from alexnet2012.evaluation import checkpoint
from alexnet2012.evaluation.export import save_safetensors
from alexnet2012.evaluation.model import TrainedAlexNet, TrainedReferenceNet

try:
    from huggingface_hub import PyTorchModelHubMixin, hf_hub_download
except ImportError as error:
    raise InputError(f"the Hub: {error.name} is not installed; pip install 'alexnet2012[hub]'") from error

FILE = "model.safetensors"  # the Hub's file name
ABOUT = {"library_name": "alexnet2012", "license": "bsd-3-clause", "pipeline_tag": "image-classification"}


class HubMixin(PyTorchModelHubMixin, **ABOUT):
    """Saves and loads the safetensors file of ``launch/export.py``, which includes the recipe and the classes."""

    def _save_pretrained(self: Any, save_directory: Path) -> None:
        save_safetensors(self, save_directory / FILE)

    @classmethod
    def _from_pretrained(cls: Any, *, model_id: str, map_location: str = "cpu", **options: Any) -> Any:
        """``options`` are those of the download. Raises InputError, naming the file, if it is damaged."""
        file: Path | str = Path(model_id, FILE)
        if not Path(model_id).is_dir():
            wanted = ("revision", "cache_dir", "force_download", "local_files_only", "token")
            file = hf_hub_download(model_id, FILE, **{name: options[name] for name in wanted})
        return cls(checkpoint.load(file)).place([map_location])


class HubAlexNet(HubMixin, TrainedAlexNet):
    """``TrainedAlexNet`` with ``from_pretrained``, ``save_pretrained`` and ``push_to_hub``."""


class HubReferenceNet(HubMixin, TrainedReferenceNet):
    """The same for a reference net."""
