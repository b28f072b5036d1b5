"""The net against the paper's counts, and against an independent dense net with grouped layers."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from alexnet2012 import AlexNet, paper_recipe, source_recipe
from alexnet2012.core.errors import InputError
from alexnet2012.network.build import InBfloat16
from alexnet2012.network.dropout import DropoutKey, dropout_mask
from alexnet2012.network.tower import Tower
from alexnet2012.recipe import LAYERS, VARIANTS, Recipe

COUNTS = {  # both towers, reference §1
    "conv1": 34_944,
    "conv2": 307_456,
    "conv3": 885_120,
    "conv4": 663_936,
    "conv5": 442_624,
    "fc6": 37_752_832,
    "fc7": 16_781_312,
    "fc8": 4_097_000,
}
SHAPES = {  # of a tower's weights, reference §1
    "conv1": (48, 3, 11, 11),
    "conv2": (128, 48, 5, 5),
    "conv3": (192, 256, 3, 3),
    "conv4": (192, 192, 3, 3),
    "conv5": (128, 192, 3, 3),
    "fc6": (2048, 9216),
    "fc7": (2048, 4096),
    "fc8": (500, 4096),
}
NARROW = 0.125


@pytest.fixture(scope="module")
def full_net() -> AlexNet:
    return AlexNet(paper_recipe())


def count(parameters: dict[str, Tensor], part: str) -> int:
    return sum(value.numel() for name, value in parameters.items() if part in name)


def test_sixty_million_parameters_half_in_each_tower(full_net: AlexNet) -> None:
    parameters = dict(full_net.named_parameters())
    assert count(parameters, "") == 60_965_224
    assert {layer: count(parameters, f".{layer}.") for layer in LAYERS} == COUNTS
    assert count(parameters, "towers.0.") == count(parameters, "towers.1.") == 60_965_224 // 2


def test_no_parameter_is_shared_and_nothing_else_is_state(full_net: AlexNet) -> None:
    parameters = dict(full_net.named_parameters(remove_duplicate=False))
    storages = {value.untyped_storage().data_ptr() for value in parameters.values()}
    assert len(storages) == len(parameters) == 32
    assert not list(full_net.buffers())
    assert full_net.state_dict().keys() == parameters.keys()


def test_names_and_shapes(full_net: AlexNet) -> None:
    shapes = {name: tuple(value.shape) for name, value in full_net.named_parameters()}
    for tower in (0, 1):
        for layer, shape in SHAPES.items():
            assert shapes.pop(f"towers.{tower}.{layer}.weight") == shape
            assert shapes.pop(f"towers.{tower}.{layer}.bias") == shape[:1]
    assert not shapes


def test_features_have_the_papers_shapes(full_net: AlexNet) -> None:
    with torch.no_grad():
        logits, features = full_net.eval()(torch.randn(1, 3, 224, 224), return_features=True)
    assert {name: tuple(value.shape[1:]) for name, value in features.items()} == {
        "conv1": (96, 27, 27),
        "conv2": (256, 13, 13),
        "conv3": (384, 13, 13),
        "conv4": (384, 13, 13),
        "conv5": (256, 6, 6),
        "fc6": (4096,),
        "fc7": (4096,),
        "fc8": (1000,),
    }
    assert features["fc8"] is logits


@pytest.mark.parametrize(
    ("variant", "different"),
    [
        ("one-tower", {"conv3": (192, 128, 3, 3), "conv5": (256, 192, 3, 3), "fc6": (4096, 9216), "fc7": (4096, 4096)}),
        (
            "no-exchange",
            {
                "conv2": (160, 48, 5, 5),
                "conv3": (192, 160, 3, 3),
                "fc6": (4096, 4608),
                "fc7": (2048, 4096),
            },
        ),
        ("exchange-at-conv4", {"conv3": (192, 128, 3, 3), "conv4": (192, 384, 3, 3)}),
        ("without-conv2", {"conv2": None, "conv3": (192, 96, 3, 3)}),
        ("without-conv3", {"conv3": None, "conv4": (192, 256, 3, 3)}),
        ("without-conv4", {"conv4": None}),
        ("without-conv5", {"conv5": None, "fc6": (2048, 13824)}),
        ("no-lrn", {}),
        ("no-overlap", {}),
        ("no-dropout", {}),
        ("tanh", {}),
    ],
)
def test_shapes_of_the_variants(variant: str, different: dict[str, tuple[int, ...] | None]) -> None:
    recipe = paper_recipe().varied(variant)
    with torch.device("meta"):
        tower = Tower(recipe, 0, 1000 // recipe.towers)
    expected = {**SHAPES, **different, **({"fc8": (1000, 4096)} if recipe.towers == 1 else {})}
    shapes = {name.removesuffix(".weight"): tuple(value.shape) for name, value in tower.named_parameters()}
    assert {layer: shapes.get(layer) for layer in LAYERS} == expected


def test_however_many_layers_go_fc6_reads_6x6_and_the_towers_still_meet() -> None:
    """The meeting of a layer that goes passes on to the next that stays (P §7 removes one)."""
    for without, reads in (
        (("conv3", "conv4"), {"conv5": 256, "fc6": 9216}),  # conv5 reads conv2 of both towers
        (("conv2", "conv3", "conv4"), {"conv5": 96, "fc6": 9216}),
        (("conv2", "conv3", "conv4", "conv5"), {"fc6": 96 * 36}),
    ):
        with torch.device("meta"):
            tower = Tower(paper_recipe(without=without), 0, 500)
        assert {layer: tower.get_parameter(f"{layer}.weight").shape[1] for layer in reads} == reads
        logits, features = AlexNet(paper_recipe(width=1 / 16, without=without), 5).eval()(
            torch.zeros(1, 3, 224, 224), return_features=True
        )
        last = [layer for layer in LAYERS[:5] if layer not in without][-1]
        assert features[last].shape[2:] == (6, 6) and logits.shape == (1, 5)
    both = paper_recipe().varied("without-conv3", "without-conv4")
    assert both.without == ("conv3", "conv4") and both.reads_both_towers("conv5")
    assert not paper_recipe().varied("without-conv3").reads_both_towers("conv5")


@pytest.mark.parametrize("classes", [2, 3, 10, 101])
def test_the_first_tower_owns_the_odd_class(classes: int) -> None:
    net = AlexNet(paper_recipe(width=1 / 16), classes)
    assert [len(tower.fc8.weight) for tower in net.held] == [(classes + 1) // 2, classes // 2]
    assert net.eval()(torch.zeros(1, 3, 224, 224)).shape == (1, classes)


@pytest.mark.parametrize(
    ("classes", "seed", "said"),
    [(1, 0, "1 class: "), (0, 0, "0 class: "), (10, -1, "--seed -1: "), (10, 2**63, f"--seed {2**63}: ")],
)
def test_impossible_nets_are_refused(classes: int, seed: int, said: str) -> None:
    with pytest.raises(InputError, match=f"^{said}"):
        AlexNet(paper_recipe(width=1 / 16), classes, seed)


def test_initial_weights_are_normal_with_the_recipes_deviations() -> None:
    recipe = source_recipe(width=0.25)
    net = AlexNet(recipe, classes=10, seed=5)
    for tower in net.held:
        for place, layer in enumerate(LAYERS):
            weight, bias = getattr(tower, layer).weight.double() / recipe.initial_std(layer), getattr(tower, layer).bias
            deviation_of_the_mean = weight.numel() ** -0.5
            assert abs(weight.mean()) < 5 * deviation_of_the_mean
            assert abs(weight.square().mean() - 1) < 5 * 2**0.5 * deviation_of_the_mean
            assert abs((weight.abs() < 1).double().mean() - 0.6827) < 5 * 0.466 * deviation_of_the_mean
            assert (bias == recipe.biases[place]).all()


def test_seed_tower_and_layer_each_have_draws_of_their_own() -> None:
    """conv3, conv4 and fc7 of both towers, from two seeds: any two are uncorrelated; the same seed gives the same."""
    nets = [AlexNet(paper_recipe(width=1 / 16), 10, seed) for seed in (3, 4)]
    drawn = [
        getattr(tower, layer).weight.detach().flatten()[:1296]
        for net in nets
        for tower in net.held
        for layer in ("conv3", "conv4", "fc7")
    ]
    correlations = torch.corrcoef(torch.stack(drawn)) - torch.eye(len(drawn))
    assert correlations.abs().max() < 5 / 1296**0.5
    again = AlexNet(paper_recipe(width=1 / 16), 10, seed=3)
    assert all(torch.equal(a, b) for a, b in zip(nets[0].parameters(), again.parameters(), strict=True))


class OneTower:
    """An exchange of which only the question which tower is held is asked."""

    def __init__(self, tower: int) -> None:
        self.towers = (tower,)


@pytest.mark.parametrize("variant", ["no-color-noise", "no-exchange", "without-conv3"])
def test_a_process_with_one_tower_starts_with_that_half_of_the_whole_net(variant: str) -> None:
    recipe = paper_recipe(width=1 / 16).varied(variant)
    halves = [dict(AlexNet(recipe, 5, 3, OneTower(tower)).named_parameters()) for tower in (0, 1)]
    assert all(name.startswith(f"towers.{tower}.") for tower in (0, 1) for name in halves[tower])
    whole = dict(AlexNet(recipe, 5, 3).named_parameters())
    assert halves[0].keys() | halves[1].keys() == whole.keys()
    assert all(torch.equal(value, whole[name]) for half in halves for name, value in half.items())


@dataclass(frozen=True)
class Case:
    """A net of which a dense twin is built: the layers that read their own tower only, and what else differs."""

    recipe: Recipe
    own: tuple[str, ...] = ("conv2", "conv4", "conv5")
    pool: int = 3
    activation: str = "relu"
    alpha: float = 1e-4  # of the LRN, before the sum; 0: none
    source: bool = False
    dropout: float = 0.5
    paddings: tuple[int, ...] = (0, 2, 1, 1, 1)


PAPER = paper_recipe(width=NARROW)
CASES = {
    "paper": Case(PAPER),
    "source": Case(source_recipe(width=NARROW), alpha=1e-4 / 5, source=True),
    "no-lrn": Case(PAPER.varied("no-lrn"), alpha=0),
    "source no-lrn": Case(source_recipe(width=NARROW).varied("no-lrn"), alpha=0),
    "no-overlap": Case(PAPER.varied("no-overlap"), pool=2),
    "source no-overlap": Case(  # S #147
        source_recipe(width=NARROW).varied("no-overlap"), pool=2, alpha=1e-4 / 5, source=True, paddings=(0, 1, 1, 1, 0)
    ),
    "no-exchange": Case(PAPER.varied("no-exchange"), own=("conv2", "conv3", "conv4", "conv5", "fc6", "fc7")),
    "exchange-at-conv4": Case(PAPER.varied("exchange-at-conv4"), own=("conv2", "conv3", "conv5")),
    "one-tower": Case(PAPER.varied("one-tower"), own=()),
    "without-conv3": Case(PAPER.varied("without-conv3"), own=("conv2", "conv5")),
    "without-conv2": Case(PAPER.varied("without-conv2"), own=("conv4", "conv5")),
    "without-conv4": Case(PAPER.varied("without-conv4"), own=("conv2", "conv5")),
    "without-conv5": Case(PAPER.varied("without-conv5"), own=("conv2", "conv4")),
    "without-conv3, conv4": Case(PAPER.varied("without-conv3", "without-conv4"), own=("conv2",)),
    "no-dropout": Case(PAPER.varied("no-dropout"), dropout=0),
    "tanh": Case(PAPER.varied("tanh"), activation="tanh"),
}


class DenseNet:
    """The same function on one device: joined weights, grouped layers, and loops where a formula has a sum."""

    def __init__(self, net: AlexNet, case: Case) -> None:
        self.case, self.towers, self.seed = case, len(net.held), net.seed
        self.layers = [layer for layer in LAYERS if hasattr(net.held[0], layer)]
        self.weights = {
            f"{layer}.{kind}": torch.cat([getattr(getattr(tower, layer), kind).detach() for tower in net.held])
            for layer in self.layers
            for kind in ("weight", "bias")
        }
        for weight in self.weights.values():
            weight.requires_grad_()

    def __call__(self, images: Tensor, step: int, first_row: int, training: bool) -> dict[str, Tensor]:
        outputs, x, stays = {}, F.pad(images, (0, 3, 0, 3)), ""
        for layer in LAYERS:
            if layer not in self.layers:
                outputs[stays] = x = self.pool(x) if layer in ("conv2", "conv5") else x
                continue
            stays, x = layer, self.linear(layer, x)
            if layer in ("fc6", "fc7"):
                x = self.drop(layer, self.activate(x), step, first_row, training)
            elif layer != "fc8":
                x = self.after_convolution(layer, x)
            outputs[layer] = x
        return outputs

    def linear(self, layer: str, x: Tensor) -> Tensor:
        weight, bias = self.weights[f"{layer}.weight"], self.weights[f"{layer}.bias"]
        groups = self.towers if layer in self.case.own else 1
        if layer.startswith("conv"):
            stride, padding = 4 if layer == "conv1" else 1, self.case.paddings[LAYERS.index(layer)]
            return F.conv2d(x, weight, bias, stride, padding, groups=groups)
        parts = zip(x.flatten(1).chunk(groups, 1), weight.chunk(groups), bias.chunk(groups), strict=True)
        return torch.cat([part @ w.T + b for part, w, b in parts], 1)

    def after_convolution(self, layer: str, x: Tensor) -> Tensor:
        if layer == "conv1" and self.case.source:
            return self.activate(self.pool(self.lrn(x)))
        x = self.activate(x)
        if layer in ("conv1", "conv2"):
            x = self.lrn(x)
        if layer == "conv2" and self.case.source:
            x = in_map(x)
        return self.pool(x) if layer in ("conv1", "conv2", "conv5") else x

    def activate(self, x: Tensor) -> Tensor:
        return x.clamp_min(0) if self.case.activation == "relu" else x.tanh()

    def pool(self, x: Tensor) -> Tensor:
        if self.case.source and x.shape[2] % 2:  # S rounds up: a last window of the pixels there are
            x = F.pad(x, (0, 1, 0, 1), value=-torch.inf)
        return F.max_pool2d(x, self.case.pool, 2)

    def lrn(self, x: Tensor) -> Tensor:
        return torch.cat([lrn(half, self.case.alpha) for half in x.chunk(self.towers, 1)], 1) if self.case.alpha else x

    def drop(self, layer: str, x: Tensor, step: int, first_row: int, training: bool) -> Tensor:
        if not training:
            return x * (1 - self.case.dropout)
        if not self.case.dropout:
            return x
        size, draw = torch.Size((len(x), x.shape[1] // self.towers)), DropoutKey(self.seed, step, first_row)
        return x * torch.cat([dropout_mask(draw, t, layer, size, 0.5, x.device) for t in range(self.towers)], 1)


def lrn(x: Tensor, alpha: float) -> Tensor:
    """P §3.3, one kernel map at a time."""
    sums = [x[:, max(0, i - 2) : i + 3].square().sum(1) for i in range(x.shape[1])]
    return torch.stack([x[:, i] / (2 + alpha * total) ** 0.75 for i, total in enumerate(sums)], 1)


def in_map(x: Tensor) -> Tensor:
    """S layers-145: the squares of the 5x5 pixels about each pixel of the same map."""
    squares, (height, width) = F.pad(x.square(), (2, 2, 2, 2)), x.shape[2:]
    total = sum(squares[:, :, i : i + height, j : j + width] for i in range(5) for j in range(5))
    return x / (1 + 0.001 / 25 * total) ** 0.75


def assert_same(actual: Tensor, expected: Tensor) -> None:
    """Equal to 1e-9 of the largest value, which is not zero."""
    largest = expected.abs().max()
    assert largest > 0
    assert (actual - expected).abs().max() <= 1e-9 * largest


@pytest.mark.parametrize("training", [True, False], ids=["training", "testing"])
@pytest.mark.parametrize("name", CASES)
def test_towers_compute_the_dense_net_and_its_gradients(name: str, training: bool) -> None:
    """Float64, with images of the size that makes every normalisation count."""
    generator = torch.Generator().manual_seed(0)
    images, reference_images = (
        (60 * torch.randn(2, 3, 224, 224, generator=generator.manual_seed(1), dtype=torch.float64)).requires_grad_()
        for _ in range(2)
    )
    pull = torch.randn(2, 5, generator=generator, dtype=torch.float64)  # the gradient of the logits
    net = AlexNet(CASES[name].recipe, classes=5, seed=7).double().train(training)
    dense = DenseNet(net, CASES[name])

    logits, features = net(images, step=3, first_row=4, return_features=True)
    expected = dense(reference_images, 3, 4, training)
    assert features.keys() == expected.keys()
    for layer, value in expected.items():
        assert_same(features[layer], value)

    (logits * pull).sum().backward()
    (expected["fc8"] * pull).sum().backward()
    assert_same(images.grad, reference_images.grad)
    for kind, weight in dense.weights.items():
        assert_same(torch.cat([tower.get_parameter(kind).grad for tower in net.held]), weight.grad)


def test_every_variant_has_a_dense_twin() -> None:
    assert VARIANTS.keys() - {"no-color-noise", "wide-init"} <= CASES.keys()  # these leave the function as it is


@pytest.mark.parametrize("recipe", [paper_recipe, source_recipe])
def test_in_bfloat16_it_computes_what_autocast_does(recipe) -> None:
    """To the bit, gradients too; they are float32 where nobody asks for bfloat16."""
    results, images = [], 60 * torch.randn(2, 3, 224, 224)
    for autocast in (True, False):
        net = AlexNet(recipe(width=NARROW), 5, seed=1)
        computing = net if autocast else InBfloat16(net)
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            logits = computing(images, 3)
        logits.float().square().sum().backward()
        results += [[logits.float(), *(weight.grad for weight in net.parameters())]]
    torch.testing.assert_close(*results, rtol=0, atol=0)


def test_a_net_given_no_step_counts_its_training_passes() -> None:
    net, images = AlexNet(paper_recipe(width=1 / 16), 5, seed=1), torch.randn(2, 3, 224, 224) * 60
    counted = [net(images) for _ in range(2)]
    assert torch.equal(counted[0], net(images, step=0))
    assert torch.equal(counted[1], net(images, step=1))
    assert not torch.equal(*counted)


@pytest.mark.cuda
def test_a_cuda_device_computes_the_same() -> None:
    net, images = AlexNet(PAPER, classes=5, seed=7).double(), 60 * torch.randn(2, 3, 224, 224, dtype=torch.float64)
    on_cpu = net(images, step=3)
    on_cuda = net.place(["cuda"])(images, step=3).cpu()
    torch.testing.assert_close(on_cuda, on_cpu, rtol=1e-9, atol=1e-9)
