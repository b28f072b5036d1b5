"""Export of a trained net to ONNX and safetensors, and import of grouped weights into a checkpoint.

Grouped weights are those of a single-device net, in which a layer that reads only its own tower is a convolution with
two groups. In the paper's net these are conv2, conv4 and conv5: ``conv2.weight`` is 256x48x5x5. LRN must stay within
each group: a net that normalizes across all 96 maps of conv1, as Caffe's does, mixes the towers at maps 46 to 49.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save  # its save_file makes a file that only its owner may read
from torch import Tensor

from alexnet2012.core.atomic_files import atomic_write
from alexnet2012.core.errors import InputError
from alexnet2012.core.guarded_files import open_file
from alexnet2012.evaluation import checkpoint, safetensors_file
from alexnet2012.evaluation.crops import crops_of
from alexnet2012.evaluation.model import TrainedAlexNet, trained_net
from alexnet2012.network import AlexNet
from alexnet2012.recipe import CONVOLUTIONS, Recipe

TOLERANCE = 1e-4  # of ``onnx_difference``
LRN_WITHIN = "within towers"  # in our files' metadata: LRN does not cross the towers


def groups(recipe: Recipe) -> dict[str, int]:
    """The number of groups of each layer. Raises InputError for a net that cannot be grouped."""
    if recipe.net != "2012":
        raise InputError(f"{recipe.net}: a net without towers has no groups")
    reads_all = {layer: layer == "conv1" or recipe.reads_both_towers(layer) for layer in recipe.layers}
    count = {layer: 1 if reads_all[layer] else recipe.towers for layer in recipe.layers}
    if apart := [layer for layer in recipe.layers if layer not in CONVOLUTIONS and count[layer] > 1]:
        raise InputError(f"{', '.join(apart)}: reads one tower only, which no fully connected layer can; cannot group")
    return count


def to_grouped(net: AlexNet) -> dict[str, Tensor]:
    """``net``'s weights as ``conv1.weight`` .. ``fc8.bias``, tower 0's kernels first. ``net`` must hold all towers."""
    groups(net.recipe)
    parameters = dict(net.named_parameters())
    return {
        f"{layer}.{kind}": torch.cat([parameters[f"towers.{t}.{layer}.{kind}"] for t in range(net.recipe.towers)])
        for layer in net.recipe.layers
        for kind in ("weight", "bias")
    }


def from_grouped(net: AlexNet, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Split grouped ``weights`` into ``net``'s parameters: ``towers.0.conv1.weight`` and so on.

    Raises InputError, naming the tensor, for weights of another net.
    """
    expected = to_grouped(net)
    if different := sorted(expected.keys() ^ weights.keys()):
        where = "is missing" if different[0] in expected else "is not in this net"
        raise InputError(f"{different[0]} {where}; grouped weights are named conv1.weight to fc8.bias")
    taken = {}
    for name, tensor in expected.items():
        if weights[name].shape != tensor.shape:
            raise InputError(f"{name} is {tuple(weights[name].shape)}, in this net {tuple(tensor.shape)}")
        if not weights[name].is_floating_point() or not weights[name].float().sum().isfinite():
            raise InputError(f"{name} is {weights[name].dtype}, or not finite; weights are finite floats")
        sizes = [len(net.get_parameter(f"towers.{tower}.{name}")) for tower in range(net.recipe.towers)]
        for tower, part in enumerate(weights[name].split(sizes)):
            taken[f"towers.{tower}.{name}"] = part.float()
    return taken


def metadata(net: TrainedAlexNet) -> dict[str, str]:
    """The metadata of an exported file: what evaluation needs of a checkpoint, and notes for the reader."""
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
    """Write the whole net under its own names, ``towers.0.conv1.weight`` and so on, or those of its publisher.

    ``load_checkpoint`` reads the file.
    """
    weights = {name: weight.detach().cpu().contiguous() for name, weight in net.named_parameters()}
    names = safetensors_file.published_names(net.recipe.net)
    path.write_bytes(save(safetensors_file.renamed(weights, names), metadata(net)))


def save_grouped(net: TrainedAlexNet, path: Path) -> None:
    """Write the net as grouped convolutions, see ``to_grouped``. Raises InputError if it cannot be grouped."""
    weights = {name: weight.detach().cpu().contiguous() for name, weight in to_grouped(net).items()}
    path.write_bytes(save(weights, metadata(net) | {"groups": json.dumps(groups(net.recipe))}))


def save_with_weights_of(saved: dict[str, Any], weights: Path, path: Path, lrn_may_cross: bool = False) -> None:
    """Write a checkpoint for evaluation: ``saved`` with the grouped weights of a safetensors file.

    Raises InputError for weights of another shape, and, unless ``lrn_may_cross``, for a file whose metadata does not
    say that LRN stays within the towers.
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
            "add --lrn-may-cross to use the weights anyway"
        )
    try:
        taken = from_grouped(trained_net(saved, None), tensors)
    except InputError as error:
        raise InputError(f"{weights}: {error}") from error
    kept = ("recipe", "classes", "class_names", "statistics")
    checkpoint.save(path, {**{name: saved[name] for name in kept}, "weights": taken})


def save_onnx(net: TrainedAlexNet, path: Path) -> float:
    """Write one ONNX graph of both towers, ``images`` to ``logits``, for any batch size.

    Returns the ``onnx_difference``. Raises InputError if the extra ``export`` is not installed, or if the difference is
    too large; the file is not kept then.
    """
    try:
        import onnx
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise InputError(f"--onnx: {error.name} is not installed; pip install 'alexnet2012[export]'") from error
    devices = [tower.device for tower in net.held]
    try:
        program = torch.onnx.export(
            net.place(["cpu"]),
            (random_crops(net, 2),),
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
            return onnx_difference(net, partial)
    finally:
        net.place(devices)


def onnx_lrn(x: Any, size: int, alpha: float, beta: float, k: float, relu: bool) -> Any:
    """LRN in ONNX, which divides alpha by the size; the paper does not."""
    from onnxscript import opset18

    return opset18.LRN(opset18.Relu(x) if relu else x, size=size, alpha=alpha * size, beta=beta, bias=k)


def random_crops(net: TrainedAlexNet, count: int) -> Tensor:
    """Crops of random images, as input of ``net``."""
    random, side = torch.Generator().manual_seed(0), net.recipe.image_size
    images = torch.randint(256, (count, side, side, 3), generator=random, dtype=torch.uint8)
    return next(crops_of(images, net.statistics.mean_on("cpu"), net.recipe, 1)).contiguous()


def onnx_difference(net: TrainedAlexNet, path: Path, images: int = 8) -> float:
    """The largest difference between logits of ``net`` and of its graph in onnxruntime, over random images.

    It is divided by the largest logit if that is above 1, since float32 has a relative precision. Batches are of one
    image and of the rest. Raises InputError if the difference is above ``TOLERANCE``.
    """
    from onnxruntime import InferenceSession, SessionOptions

    options = SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1  # no threads beside torch's
    session = InferenceSession(path, options, providers=["CPUExecutionProvider"])
    largest, difference = 1.0, 0.0
    for batch in random_crops(net, images).split([1, images - 1]):
        with torch.no_grad():
            expected = net(batch).cpu().numpy()
        (logits,) = session.run(None, {"images": batch.numpy()})
        largest = np.maximum(largest, np.abs(expected).max())
        difference = np.maximum(difference, np.abs(logits - expected).max())  # keeps NaN, as max does not
    if not difference <= TOLERANCE * largest:
        raise InputError(f"--onnx: in onnxruntime the graph differs from the net by {difference:.1e}; nothing written")
    return float(difference / largest)
