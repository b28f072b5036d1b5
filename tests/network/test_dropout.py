"""The masks of fc6 and fc7: half dropped, everywhere independent, the same however a batch is sliced."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor

from alexnet2012 import paper_recipe
from alexnet2012.network.dropout import DropoutKey, dropout_mask, mix
from alexnet2012.network.tower import Tower

ROWS, UNITS = 128, 2048
CPU = torch.device("cpu")


def mask(seed: int = 1, step: int | Tensor = 2, tower: int = 0, layer: str = "fc6", share: float = 0.5) -> Tensor:
    return dropout_mask(DropoutKey(seed, step), tower, layer, torch.Size((ROWS, UNITS)), share, CPU)


def deviation(agreeing: Tensor) -> float:
    """How far the share of agreeing values lies from a half, in standard deviations of fair coins."""
    return float((agreeing.double().mean() - 0.5).abs() * 2 * agreeing.numel() ** 0.5)


@pytest.mark.parametrize("share", [0.5, 0.25, 0.9])
def test_the_share_is_dropped(share: float) -> None:
    dropped = 1 - mask(share=share).double().mean()
    assert abs(dropped - share) < 5 * (share * (1 - share) / (ROWS * UNITS)) ** 0.5


def test_every_row_and_every_unit_is_dropped_half_the_time() -> None:
    kept = mask().double()
    for axis, count in ((0, ROWS), (1, UNITS)):
        assert (kept.mean(axis) - 0.5).abs().max() < 5 * 0.5 * count**-0.5


@pytest.mark.parametrize(
    "other",
    [
        {"seed": 2},
        {"seed": 1 + 2**32},
        {"seed": 2**63 - 1},
        {"step": 3},
        {"step": 2 + 2**16},
        {"tower": 1},
        {"layer": "fc7"},
        {"tower": 1, "layer": "fc7"},
    ],
    ids=str,
)
def test_masks_of_two_places_agree_by_chance_only(other: dict[str, int | str]) -> None:
    assert deviation(mask() == mask(**other)) < 5


def test_many_masks_are_pairwise_independent() -> None:
    masks = [
        mask(seed, step, tower, layer)
        for seed in (0, 1)
        for step in (0, 1)
        for tower in (0, 1)
        for layer in ("fc6", "fc7")
    ]
    assert max(deviation(a == b) for a, b in itertools.combinations(masks, 2)) < 5


@pytest.mark.parametrize("axis", [0, 1], ids=["rows", "units"])
@pytest.mark.parametrize("distance", [1, 2, 4, 16, 64])
def test_neighbours_agree_by_chance_only(axis: int, distance: int) -> None:
    kept = mask()
    assert deviation(kept == kept.roll(distance, axis)) < 5


def test_triples_of_neighbours_are_independent() -> None:
    """The parity of three masks is a fair coin: pairwise independence alone would not show it."""
    kept = mask()
    for axis in (0, 1):
        assert deviation(kept ^ kept.roll(1, axis) ^ kept.roll(2, axis)) < 5


def test_one_bit_of_the_word_flips_half_of_the_hash() -> None:
    words = torch.randint(2**32, (20_000,), generator=torch.Generator().manual_seed(0))
    for bit in range(32):
        flipped = mix(words) ^ mix(words ^ (1 << bit))
        shares = torch.stack([(flipped >> out & 1).double().mean() for out in range(32)])
        assert (shares - 0.5).abs().max() < 0.05


def test_the_hash_is_a_permutation_of_words_of_32_bits() -> None:
    words = torch.arange(100_000) * 42_949
    hashed = mix(words)
    assert len(hashed.unique()) == len(words)
    assert hashed.min() >= 0
    assert hashed.max() < 2**32


def test_the_hash_of_a_number_and_of_a_tensor_agree() -> None:
    words = [0, 1, 2**31, 2**32 - 1, 123_456_789]
    assert mix(torch.tensor(words)).tolist() == [mix(word) for word in words]


def test_rows_are_counted_over_the_global_batch() -> None:
    parts = [
        dropout_mask(DropoutKey(1, 2, first), 0, "fc6", torch.Size((rows, UNITS)), 0.5, CPU)
        for first, rows in ((0, 3), (3, 61), (64, 64))
    ]
    assert torch.equal(torch.cat(parts), mask())


def test_a_step_on_the_device_is_the_same_step() -> None:
    assert torch.equal(mask(step=torch.tensor(2)), mask(step=2))


def test_training_does_not_rescale_and_testing_halves() -> None:
    tower, ones = Tower(paper_recipe(width=1 / 16), 0, 5), torch.ones(8, 128)
    trained = tower.dropout(ones, "fc6", DropoutKey(1, 2))
    assert set(trained.unique().tolist()) == {0.0, 1.0}
    assert torch.equal(tower.dropout(ones, "fc6", None), ones / 2)


@pytest.mark.cuda
def test_a_cuda_device_draws_the_same_masks() -> None:
    on_cuda = dropout_mask(DropoutKey(1, 2), 0, "fc6", torch.Size((ROWS, UNITS)), 0.5, torch.device("cuda"))
    assert torch.equal(on_cuda.cpu(), mask())
