"""Training images held back for validation."""

from __future__ import annotations

import numpy as np
import pytest

from alexnet2012.core.errors import InputError
from alexnet2012.data import hold_out, open_dataset
from alexnet2012.data.statistics import Statistics


def test_the_two_parts_are_the_whole() -> None:
    whole = open_dataset("sample", "train")
    train, val = hold_out(whole, 0.2, seed=5)
    assert (len(train), len(val)) == (4800, 1200)
    names = [part.name(index) for part in (train, val) for index in range(len(part))]
    assert sorted(names) == sorted(whole.name(index) for index in range(len(whole)))
    assert np.bincount(val.labels).min() > 80  # of about 120 a class


def test_a_part_hands_out_the_whole_sets_images() -> None:
    whole = open_dataset("sample", "train")
    _, val = hold_out(whole, 0.01, seed=5)
    for index in range(3):
        assert val[index] == whole[int(val.indices[index])]


def test_a_part_of_a_prepared_set_has_the_sets_statistics_and_decodes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A prepared set keeps them in a file; other sets are measured, without the images held back."""
    whole = open_dataset("sample", "train").with_statistics(Statistics.none())
    monkeypatch.setattr(whole, "square256", True)
    monkeypatch.setattr("alexnet2012.data.dataset.measure", None)
    for part in hold_out(whole, 0.2, seed=5):
        assert part.statistics is whole.statistics and part.statistics_kept
        given = Statistics.none()
        assert part.with_statistics(given).statistics is given


def test_the_seed_decides() -> None:
    whole = open_dataset("sample", "train")
    one, same, other = (hold_out(whole, 0.1, seed)[1].indices.tolist() for seed in (5, 5, 6))
    assert one == same != other


@pytest.mark.parametrize("fraction", [0.00001, 0.99999])
def test_an_empty_part_is_refused(fraction: float) -> None:
    with pytest.raises(InputError, match="--val-fraction"):
        hold_out(open_dataset("sample", "train"), fraction, 0)
