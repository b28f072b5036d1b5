"""The numbers of 2012, and what a recipe refuses."""

from __future__ import annotations

import dataclasses
import itertools
import re
from pathlib import Path

import pytest
import torch
from torch.nn.functional import max_pool2d

from alexnet2012 import paper_recipe, source_recipe
from alexnet2012.core.errors import InputError
from alexnet2012.network.reference import NETS
from alexnet2012.recipe import BOUNDS, LAYERS, VARIANTS, Recipe, pooled_side


def test_the_paper_recipe_holds_the_papers_numbers() -> None:
    recipe = paper_recipe()
    assert (recipe.kernels, recipe.neurons) == ((48, 128, 192, 192, 128), (2048, 2048))  # P §3.5
    assert (recipe.lrn_k, recipe.lrn_size, recipe.lrn_alpha, recipe.lrn_beta) == (2, 5, 1e-4, 0.75)  # P §3.3
    assert (recipe.batch_size, recipe.momentum, recipe.weight_decay, recipe.lr) == (128, 0.9, 0.0005, 0.01)  # P §5
    assert recipe.biases == (0, 1, 0, 1, 1, 1, 1, 0)  # P §5


def test_the_page_on_fidelity_tells_where_the_recipes_differ_and_nothing_else() -> None:
    page = (Path(__file__).parents[1] / "docs" / "fidelity.md").read_text()
    reported = re.findall(r"^\| `(\w+)` \| `([^`]+)` \| `([^`]+)` \|", page, re.MULTILINE)
    paper, source = (dataclasses.asdict(recipe()) for recipe in (paper_recipe, source_recipe))
    different = [name for name in paper if source[name] != paper[name] and name != "name"]
    assert sorted(reported) == sorted((name, repr(paper[name]), repr(source[name])) for name in different)


@pytest.mark.parametrize("width", [0.3, 1 / 3, 1 / 32, 0.0, -1.0, 17.0, float("nan")])
def test_a_width_without_whole_kernels_is_refused(width: float) -> None:
    with pytest.raises(InputError, match="--width"):
        paper_recipe(width=width)


@pytest.mark.parametrize("width", [1 / 16, 1 / 8, 0.25, 1 / 2, 1, 2])
def test_width_multiplies_kernels_and_neurons(width: float) -> None:
    recipe = paper_recipe(width=width)
    full = (48, 128, 192, 192, 128, 2048, 2048)
    assert [recipe.outputs(layer) for layer in LAYERS[:-1]] == [count * width for count in full]


def test_initial_deviations_grow_as_the_net_narrows_but_not_conv1s() -> None:
    quarter = source_recipe(width=0.25)
    deviations = [quarter.initial_std(layer) for layer in LAYERS]
    assert deviations == [0.01, 0.02, 0.06, 0.06, 0.06, 0.02, 0.02, 0.02]


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"epochs": 0}, "--epochs 0"),
        ({"batch_size": 0}, "--batch-size 0"),
        ({"lr": -1.0}, "--lr -1"),
        ({"lr": float("nan")}, "--lr nan"),
        ({"activation": "gelu"}, "gelu"),
        ({"lrn_size": 4}, "lrn_size 4"),
        ({"dropout": 1.0}, "dropout 1"),
        ({"meetings": ("conv1",)}, "conv1"),
        ({"without": ("fc6",)}, "fc6"),
        ({"lrn_k": -2.0}, "lrn_k -2: must be above 0"),
        ({"in_map_size": 2}, "in_map_size 2"),
        ({"paddings": (0, 2, 1, 1, 10**6)}, r"paddings 1e\+06: must be at least 0 and at most 32"),
        ({"paddings": (0, 2, 1, 1)}, "paddings: has 4 values, not 5"),
        ({"paddings": (0, 2, 1, 1, 0)}, "reach fc6 as 5x5"),
        ({"conv1_edge": -50}, "conv1_edge -50"),
        ({"conv1_stride": 0}, "conv1_stride 0"),
        ({"pool_size": 0}, "pool_size 0"),
        ({"pool_stride": 0}, "pool_stride 0"),
        ({"pool_size": 32}, "leave nothing behind conv2"),
        ({"crop_size": 0}, "crop_size 0"),
        ({"crop_size": 226}, "crop_size 226: at 32 offsets does not fit images of 256"),
        ({"crop_size": 1, "crop_offsets": 1}, "leave nothing behind conv1"),
        ({"channels": 1}, "channels 1"),
        ({"channels": 1, "mean_subtracted": False, "color_noise": 0.0}, "224 pixels and 1 channels"),
        ({"pixel_scale": (0.0,)}, "pixel_scale 0"),
        ({"pixel_offset": (1.0, 2.0)}, "pixel_offset has 2 values"),
        ({"lr": float("inf")}, "--lr inf"),
    ],
)
def test_impossible_values_are_refused_by_name(change: dict[str, object], named: str) -> None:
    with pytest.raises(InputError, match=named):
        paper_recipe(**change)


def test_every_number_of_a_recipe_has_bounds() -> None:
    fields = dataclasses.fields(Recipe)
    numbers = {field.name for field in fields if "int" in str(field.type) or "float" in str(field.type)}
    bounded = [name for _, _, names in BOUNDS for name in names]
    assert sorted(bounded) == sorted(numbers)


def test_maps_are_pooled_as_torch_pools_them() -> None:
    for side, size, stride, rounds_up in itertools.product(range(1, 12), range(1, 5), range(1, 5), (False, True)):
        if side >= size:
            pooled = max_pool2d(torch.empty(1, side, side), size, stride, ceil_mode=rounds_up)
            assert pooled.shape == (1, *[pooled_side(side, size, stride, rounds_up)] * 2)


def test_another_learning_rate_keeps_the_biases_ratio() -> None:
    recipe = source_recipe().with_lr(0.001)
    assert (recipe.lr, recipe.bias_lr) == pytest.approx((0.001, 0.002))


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_variant_changes_its_own_fields_only(variant: str) -> None:
    varied, paper = (dataclasses.asdict(recipe) for recipe in (paper_recipe().varied(variant), paper_recipe()))
    assert {name for name in paper if varied[name] != paper[name]} <= VARIANTS[variant].changes.keys()
    assert all(varied[name] == value for name, value in VARIANTS[variant].changes.items())


def test_no_overlap_of_the_source_has_the_authors_own_geometry() -> None:
    """S #147: conv2 pads 1 and conv5 0; the paper's pools come out at the same 27, 13, 6 with its own paddings."""
    assert paper_recipe().varied("no-overlap").paddings == (0, 2, 1, 1, 1)
    assert source_recipe().varied("no-overlap").paddings == (0, 1, 1, 1, 0)
    with pytest.raises(InputError, match="--without conv5: in recipe source --no-overlap needs conv5"):
        source_recipe().varied("no-overlap", "without-conv5")


def test_wide_weights_do_not_start_flat() -> None:
    assert paper_recipe().starts_flat and paper_recipe(width=0.25).starts_flat
    assert not source_recipe().starts_flat and not paper_recipe().varied("wide-init").starts_flat
    assert not NETS["lenet"].recipe().starts_flat


def test_variants_that_contradict_each_other_are_refused() -> None:
    with pytest.raises(InputError, match="no-exchange and one-tower"):
        paper_recipe().varied("no-exchange", "one-tower")


def test_wide_init_is_one_step_from_paper_to_source() -> None:
    varied = paper_recipe().varied("wide-init")
    assert varied.weight_std == source_recipe().weight_std
    with pytest.raises(InputError, match="--wide-init: the recipe has it already"):
        source_recipe().varied("wide-init")


def meetings(recipe: Recipe) -> list[str]:
    return [layer for layer in recipe.layers if recipe.reads_both_towers(layer)]


def test_where_towers_meet() -> None:
    assert meetings(paper_recipe()) == ["conv3", "fc6", "fc7", "fc8"]  # P §3.5
    assert meetings(paper_recipe().varied("no-exchange")) == ["fc8"]
    assert meetings(paper_recipe().varied("exchange-at-conv4")) == ["conv4", "fc6", "fc7", "fc8"]
    assert meetings(paper_recipe().varied("without-conv3")) == ["conv4", "fc6", "fc7", "fc8"]
    assert meetings(paper_recipe().varied("without-conv4")) == ["conv3", "fc6", "fc7", "fc8"]
    assert meetings(paper_recipe().varied("one-tower")) == []


def test_a_reference_nets_description_leaves_out_what_it_does_not_read() -> None:
    fields = NETS["lenet"].recipe().described()
    assert "kernels" not in fields
    assert (fields["net"], fields["optimizer"], fields["image_size"]) == ("lenet", "sgd", 28)
    assert paper_recipe().described() == dataclasses.asdict(paper_recipe())


def test_statistics_are_those_of_256_pixels() -> None:
    with pytest.raises(InputError, match="image_size 512"):
        paper_recipe(image_size=512)
