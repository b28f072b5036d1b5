"""Both towers as one net of grouped convolutions, the form of single-device nets, and back.

A layer that reads its own tower only is a convolution of two groups; one that reads both is a plain one. In the
paper's net conv2, conv4 and conv5 are grouped: ``conv2.weight`` is 256x48x5x5. LRN must stay within each group: a
single-device net that normalises across all 96 maps of conv1 mixes the towers at maps 46 to 49 (Caffe's does).
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from alexnet2012.core.errors import InputError
from alexnet2012.network import AlexNet
from alexnet2012.recipe import CONVOLUTIONS, Recipe


def groups(recipe: Recipe) -> dict[str, int]:
    """How many groups each layer has. Raises InputError for a net that has no such form."""
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
        for tower, part in enumerate(weights[name].split(tower_sizes(net, name))):
            taken[f"towers.{tower}.{name}"] = part.float()
    return taken


def tower_sizes(net: AlexNet, name: str) -> list[int]:
    """Rows of the grouped tensor ``name`` that each tower owns."""
    return [len(net.get_parameter(f"towers.{tower}.{name}")) for tower in range(net.recipe.towers)]


def by(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape))
