"""A trained net for other programs: ONNX, safetensors, and grouped weights back into a checkpoint.

Grouped weights are the form of single-device nets: a layer that reads its own tower only is a convolution of two
groups, one that reads both a plain one. In the paper's net conv2, conv4 and conv5 are grouped: ``conv2.weight`` is
256x48x5x5. LRN must stay within each group: a single-device net that normalises across all 96 maps of conv1 mixes the
towers at maps 46 to 49 (Caffe's does).
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save  # its save_file makes a file that only its owner may read
from torch import Tensor, nn

from alexnet2012.core.atomic_files import atomic_write
from alexnet2012.core.errors import InputError
from alexnet2012.core.guarded_files import open_file
from alexnet2012.evaluation import checkpoint, safetensors_file
from alexnet2012.evaluation.crops import crops_of
from alexnet2012.evaluation.model import TrainedAlexNet, trained_net
from alexnet2012.network import AlexNet
from alexnet2012.network.lrn.layer import InMapResponseNorm
from alexnet2012.recipe import CONVOLUTIONS, Recipe

TOLERANCE = 1e-4  # between the net's logits and its export's, of the largest logit where that is above 1
LRN_WITHIN = "within towers"  # how our grouped files say that LRN does not cross


def groups(recipe: Recipe) -> dict[str, int]:
    """The number of groups of each layer. Raises InputError for a net that has no such form."""
    if recipe.net != "2012":
        raise InputError(f"{recipe.net}: a net without towers has nothing to group")
    reads_all = {layer: layer == "conv1" or recipe.reads_both_towers(layer) for layer in recipe.layers}
    count = {layer: 1 if reads_all[layer] else recipe.towers for layer in recipe.layers}
    if apart := [layer for layer in recipe.layers if layer not in CONVOLUTIONS and count[layer] > 1]:
        raise InputError(f"{', '.join(apart)}: reads one tower only, which no single-device layer does; cannot group")
    return count


def to_grouped(net: AlexNet) -> dict[str, Tensor]:
    """``net``'s weights as ``conv1.weight`` .. ``fc8.bias``, tower 0's kernels first. ``net`` holds all its towers."""
    groups(net.recipe)
    parameters = dict(net.named_parameters())
    return {
        f"{layer}.{kind}": torch.cat([parameters[f"towers.{t}.{layer}.{kind}"] for t in range(net.recipe.towers)])
        for layer in net.recipe.layers
        for kind in ("weight", "bias")
    }


def from_grouped(net: AlexNet, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Grouped ``weights`` under the names of ``net``'s parameters: ``towers.0.conv1.weight`` and so on.

    Raises InputError, naming the tensor, for weights of another net.
    """
    expected = to_grouped(net)
    if different := sorted(expected.keys() ^ weights.keys()):
        where = "is missing" if different[0] in expected else "is not in this net"
        raise InputError(f"{different[0]} {where}; grouped weights are named conv1.weight to fc8.bias")
    taken = {}
    for name, tensor in expected.items():
        if weights[name].shape != tensor.shape:
            raise InputError(f"{name} is {by(weights[name])}, in this net {by(tensor)}")
        if not weights[name].is_floating_point() or not weights[name].float().sum().isfinite():
            raise InputError(f"{name} is {weights[name].dtype}, or not finite; weights are finite floats")
        sizes = [len(net.get_parameter(f"towers.{tower}.{name}")) for tower in range(net.recipe.towers)]
        for tower, part in enumerate(weights[name].split(sizes)):
            taken[f"towers.{tower}.{name}"] = part.float()
    return taken


def by(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape))


def metadata(net: TrainedAlexNet) -> dict[str, str]:
    """Of a file of weights: all that a checkpoint has for evaluation, and more for people."""
    recipe = net.recipe
    shape = f"N x {recipe.channels} x {recipe.crop_size} x {recipe.crop_size}"
    pixels = "RGB, 0..255, mean image subtracted"
    if not recipe.mean_subtracted:
        pixels = f"0..255, less {recipe.pixel_offset}, divided by {recipe.pixel_scale}"
    return {
        **safetensors_file.describe(recipe, net.class_names, net.statistics),
        "input": f"{shape}, {pixels}",
        "mean_color": json.dumps(net.statistics.mean.mean((0, 1)).tolist()),
        "lrn": LRN_WITHIN,
    }


def save_safetensors(net: TrainedAlexNet, path: Path) -> None:
    """The whole net under its own names, ``towers.0.conv1.weight`` and so on, or torchvision's under its.

    ``load_checkpoint`` reads it.
    """
    weights = {name: weight.detach().cpu().contiguous() for name, weight in net.named_parameters()}
    names = safetensors_file.published_names(net.recipe.net)
    path.write_bytes(save(safetensors_file.renamed(weights, names), metadata(net)))


def save_grouped(net: TrainedAlexNet, path: Path) -> None:
    """The net as grouped convolutions, see ``to_grouped``. Raises InputError for a net that has no such form."""
    weights = {name: weight.detach().cpu().contiguous() for name, weight in to_grouped(net).items()}
    path.write_bytes(save(weights, metadata(net) | {"groups": json.dumps(groups(net.recipe))}))


def save_with_weights_of(saved: dict[str, Any], weights: Path, path: Path, lrn_may_cross: bool = False) -> None:
    """A checkpoint for evaluation: ``saved`` with the grouped weights of a safetensors file.

    Raises InputError for weights of another shape, and, unless ``lrn_may_cross``, for a file that does not say that
    its net normalises within towers: 96 maps normalised as one (Caffe) mix the towers.
    """
    open_file(weights).close()  # a pipe would block below
    try:
        with safe_open(weights, "pt") as file:
            lrn = (file.metadata() or {}).get("lrn")
        tensors: dict[str, Tensor] = load_file(weights)
    except (OSError, SafetensorError) as error:
        raise InputError(f"{weights}: not a safetensors file ({error})") from error
    if lrn != LRN_WITHIN and not lrn_may_cross:
        raise InputError(
            f"{weights}: does not say that its LRN stays within towers; Caffe's crosses them, which is another net: "
            "add --lrn-may-cross to take the weights all the same"
        )
    try:
        taken = from_grouped(trained_net(saved, None), tensors)
    except InputError as error:
        raise InputError(f"{weights}: {error}") from error
    kept = ("recipe", "classes", "class_names", "statistics")
    checkpoint.save(path, {**{name: saved[name] for name in kept}, "weights": taken})


def save_onnx(net: TrainedAlexNet, path: Path) -> float:
    """One ONNX graph of both towers, ``images`` to ``logits``, for any batch.

    Returns by how much onnxruntime's logits differ, see ``onnx_difference``. Raises InputError without the extra
    ``export``, and when they differ by more than ``TOLERANCE``: the file is not kept then.
    """
    try:
        import onnx
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise InputError(f"--onnx: {error.name} is not installed; pip install 'alexnet2012[export]'") from error
    images = random_crops(net, 2)
    with exportable(net):
        program = torch.onnx.export(
            net,
            (images,),
            dynamo=True,
            input_names=["images"],
            output_names=["logits"],
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            custom_translation_table={torch.ops.alexnet2012.local_response_norm.default: onnx_lrn},
            verbose=False,
        )
    assert program is not None
    model = program.model_proto
    onnx.helper.set_model_props(model, metadata(net))
    with atomic_write(path) as partial:
        onnx.save(model, partial)
        return check_onnx(net, partial)


def check_onnx(net: TrainedAlexNet, path: Path) -> float:
    """``onnx_difference``. Raises InputError if it is above ``TOLERANCE``."""
    difference = onnx_difference(net, path)
    if not difference <= TOLERANCE:
        raise InputError(f"--onnx: the graph differs from the net by {difference:.1e} in onnxruntime; nothing written")
    return difference


def onnx_lrn(x: Any, size: int, alpha: float, beta: float, k: float, relu: bool) -> Any:
    """ONNX divides alpha by the size, the paper does not."""
    from onnxscript import opset18

    return opset18.LRN(opset18.Relu(x) if relu else x, size=size, alpha=alpha * size, beta=beta, bias=k)


class ExportableInMapNorm(nn.Module):
    """``InMapResponseNorm`` in operations that ONNX has."""

    def __init__(self, norm: InMapResponseNorm) -> None:
        super().__init__()
        self.size, self.alpha, self.beta, self.k = norm.size, norm.alpha, norm.beta, norm.k

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to the same."""
        means = nn.functional.avg_pool2d(x.square(), self.size, 1, self.size // 2)
        return x * (self.k + self.alpha * self.size**2 * means) ** -self.beta


@contextlib.contextmanager
def exportable(net: TrainedAlexNet) -> Iterator[None]:
    """``net`` on the CPU, its in-map normalisations as ONNX can write them; as it was afterwards."""
    devices = [tower.device for tower in net.held]
    norms = {name: module for name, module in net.named_modules() if isinstance(module, InMapResponseNorm)}
    try:
        net.place(["cpu"])
        for name, norm in norms.items():
            net.set_submodule(name, ExportableInMapNorm(norm))
        yield
    finally:
        for name, norm in norms.items():
            net.set_submodule(name, norm)
        net.place(devices)


def random_crops(net: TrainedAlexNet, count: int) -> Tensor:
    """Crops of random images, ready for ``net``."""
    random, side = torch.Generator().manual_seed(0), net.recipe.image_size
    images = torch.randint(256, (count, side, side, 3), generator=random, dtype=torch.uint8)
    return next(crops_of(images, net.statistics.mean_on("cpu"), net.recipe, 1)).contiguous()


def onnx_difference(net: TrainedAlexNet, path: Path, images: int = 8) -> float:
    """The largest difference of a logit over random images, in batches of one and of the rest.

    As a share of the largest logit where that is above 1: float32 is only so fine.
    """
    from onnxruntime import InferenceSession, SessionOptions

    options = SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1  # no threads beside torch's
    session = InferenceSession(path, options, providers=["CPUExecutionProvider"])
    pixels = random_crops(net, images)
    differences, largest = [], 1.0
    for batch in pixels.split([1, images - 1]):
        with torch.no_grad():
            expected = net(batch).cpu().numpy()
        (logits,) = session.run(None, {"images": batch.numpy()})
        differences.append(np.abs(logits - expected).max())
        largest = max(largest, np.abs(expected).max())
    return float(max(differences) / largest)
