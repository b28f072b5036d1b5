"""cuda-convnet's nets for CIFAR-10 against their published layer files, by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from alexnet2012.network.lrn.layer import InMapResponseNorm, LocalResponseNorm
from alexnet2012.network.reference import NETS, ReferenceNet
from alexnet2012.network.reference.cuda_convnet import Local, average_pool, pooled
from alexnet2012.training.optimizer import make_optimizer

# Of each layer: weights from its filterSize, channels and filters (a local layer has them at each of 6x6 places),
# biases, initW, wc.
CONV_64 = {"conv1": (5 * 5 * 3 * 64, 64, 1e-4, 0.0), "conv2": (5 * 5 * 64 * 64, 64, 0.01, 0.0)}
PUBLISHED = {
    "conv-local-13pct": {
        **CONV_64,
        "local3": (36 * 3 * 3 * 64 * 32, 36 * 32, 0.04, 0.004),
        "local4": (36 * 3 * 3 * 32 * 32, 36 * 32, 0.04, 0.004),
        "fc10": (6 * 6 * 32 * 10, 10, 0.01, 0.004),
    },
    "conv-local-11pct": {
        **CONV_64,
        "local3": (36 * 3 * 3 * 64 * 64, 36 * 64, 0.04, 0.004),
        "local4": (36 * 3 * 3 * 64 * 32, 36 * 32, 0.04, 0.004),
        "fc10": (6 * 6 * 32 * 10, 10, 0.01, 0.01),
    },
    "19pct": {
        "conv1": (5 * 5 * 3 * 32, 32, 1e-4, 0.004),
        "conv2": (5 * 5 * 32 * 32, 32, 0.01, 0.004),
        "conv3": (5 * 5 * 32 * 64, 64, 0.01, 0.004),
        "fc10": (4 * 4 * 64 * 10, 10, 0.01, 3.0),
    },
}
PUBLISHED["conv-local-13pct-lrn"] = PUBLISHED["conv-local-13pct"]
PUBLISHED["18pct"] = {**PUBLISHED["19pct"], "fc10": (4 * 4 * 64 * 10, 10, 0.01, 1.0)}
ORDER = {  # of what follows conv1 and conv2; "relu" also where the layer file gives it to the pool
    "conv-local-13pct": ("relu", "max", "relu", "max"),
    "conv-local-13pct-lrn": ("relu", "norm", "max", "relu", "norm", "max"),
    "conv-local-11pct": ("relu", "max", "norm", "relu", "norm", "max"),
    "19pct": ("max", "relu", "relu", "average"),
    "18pct": ("max", "relu", "norm", "relu", "average", "norm"),
}
KINDS = {nn.ReLU: "relu", nn.MaxPool2d: "max", nn.AvgPool2d: "average"}


@pytest.mark.parametrize("name", PUBLISHED)
def test_counts_deviations_and_decays_are_those_of_the_layer_file(name: str) -> None:
    recipe = NETS[name].recipe()
    net = ReferenceNet(recipe, 10, seed=2)
    decays = {
        id(weight): group["weight_decay"] for group in make_optimizer(net, recipe).param_groups
        for weight in group["params"]
    }  # fmt: skip
    assert net.layers == tuple(PUBLISHED[name])
    for layer, (weights, biases, deviation, decay) in PUBLISHED[name].items():
        module = net.get_submodule(layer)
        assert (module.weight.numel(), module.bias.numel()) == (weights, biases)
        assert module.weight.std().item() == pytest.approx(deviation, rel=0.05)
        assert not module.bias.any()
        assert (decays[id(module.weight)], decays[id(module.bias)]) == (decay, 0.0)


@pytest.mark.parametrize("name", ORDER)
def test_what_follows_the_first_two_convolutions(name: str) -> None:
    modules = list(ReferenceNet(NETS[name].recipe(), 10).children())
    second = [place for place, module in enumerate(modules) if isinstance(module, nn.Conv2d)][1]
    third = next(place for place in range(second + 1, len(modules)) if list(modules[place].parameters()))
    follow = modules[1:second] + modules[second + 1 : third]
    assert tuple(KINDS.get(type(module), "norm") for module in follow) == ORDER[name]


def test_lrn_is_the_published_one() -> None:
    """The layer file's scale is divided by the window's size, k is 1."""
    pure, published, in_map = (
        ReferenceNet(NETS[name].recipe(), 10).norm1 for name in ("conv-local-13pct-lrn", "conv-local-11pct", "18pct")
    )
    assert vars(pure).items() >= {"size": 5, "alpha": 0.001 / 5, "beta": 0.75, "k": 1.0}.items()
    assert vars(published).items() >= {"size": 9, "alpha": 0.001 / 9, "beta": 0.75, "k": 1.0}.items()
    assert vars(in_map).items() >= {"size": 3, "alpha": 0.00005 / 9, "beta": 0.75, "k": 1.0}.items()
    assert isinstance(published, LocalResponseNorm) and isinstance(in_map, InMapResponseNorm)


def test_the_pure_pair_differs_in_lrn_alone() -> None:
    plain, normalized = (NETS[name] for name in ("conv-local-13pct", "conv-local-13pct-lrn"))
    differing = {
        name for name, value in vars(plain.recipe()).items() if value != getattr(normalized.recipe(), name)
    }  # fmt: skip
    assert differing == {"name", "net"}
    pair = [ReferenceNet(one.recipe(), 10, seed=5).state_dict() for one in (plain, normalized)]
    assert pair[0].keys() == pair[1].keys()
    assert all(torch.equal(weight, pair[1][name]) for name, weight in pair[0].items())


def test_a_local_layer_is_a_convolution_with_weights_of_its_own_at_each_place() -> None:
    random = np.random.default_rng(0)
    layer, x = Local(3, 2, 4).double(), random.normal(size=(5, 3, 4, 4))
    weight, bias = random.normal(size=layer.weight.shape), random.normal(size=layer.bias.shape)
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(weight))
        layer.bias.copy_(torch.from_numpy(bias))
        found = layer(torch.from_numpy(x)).numpy()
    expected, padded = np.empty((5, 2, 4, 4)), np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    for top in range(4):
        for left in range(4):
            own = weight[4 * top + left].reshape(3, 3, 3, 2)  # row, column, input, kernel
            window = padded[:, :, top : top + 3, left : left + 3]
            expected[:, :, top, left] = np.einsum("nirc,rcik->nk", window, own) + bias[4 * top + left]
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)


def test_a_local_layers_gradients() -> None:
    torch.manual_seed(0)
    layer = Local(2, 2, 3).double()
    nn.init.normal_(layer.weight)
    nn.init.normal_(layer.bias)
    x = torch.randn(2, 2, 3, 3, dtype=torch.float64, requires_grad=True)

    def of_parameters(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        return torch.func.functional_call(layer, {"weight": weight, "bias": bias}, (x,))

    assert torch.autograd.gradcheck(of_parameters, (x, layer.weight, layer.bias))


def test_a_local_layer_is_exported_for_any_batch() -> None:
    layer = Local(2, 2, 3)
    torch.nn.init.normal_(layer.weight)
    torch.nn.init.normal_(layer.bias)
    program = torch.export.export(layer, (torch.zeros(4, 2, 3, 3),), dynamic_shapes=({0: torch.export.Dim("batch")},))
    x = torch.randn(3, 2, 3, 3)
    torch.testing.assert_close(program.module()(x), layer(x))


def test_pools_round_up_and_average_over_the_pixels_they_cover() -> None:
    assert [pooled(24, n) for n in range(3)] == [24, 12, 6]
    assert [pooled(32, n) for n in range(4)] == [32, 16, 8, 4]
    x = np.random.default_rng(0).normal(size=(8, 8))
    found = average_pool()(torch.from_numpy(x)[None, None])[0, 0].numpy()
    expected = [[x[2 * row : 2 * row + 3, 2 * col : 2 * col + 3].mean() for col in range(4)] for row in range(4)]
    np.testing.assert_allclose(found, expected)


def test_tanh_takes_the_same_places_and_the_same_weights() -> None:
    recipe = NETS["19pct"].recipe()
    relu, tanh = (ReferenceNet(one, 10) for one in (recipe, recipe.varied("tanh")))
    names = [[name for name, module in net.named_children() if isinstance(module, kind)]
             for net, kind in ((relu, nn.ReLU), (tanh, nn.Tanh))]  # fmt: skip
    assert names[0] == names[1] == ["activation1", "activation2", "activation3"]
    assert all(torch.equal(a, b) for a, b in zip(relu.parameters(), tanh.parameters(), strict=True))
