"""No two purposes, seeds or indices share a stream, and streams never change."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest

from alexnet2012 import AlexNet, paper_recipe
from alexnet2012.core.errors import InputError
from alexnet2012.core.random_streams import STREAMS, Purpose, philox, refuse_other_streams, torch_seed
from alexnet2012.data import TrainingPlan, hold_out, open_dataset
from alexnet2012.data.statistics import Statistics
from alexnet2012.network.dropout import keys

SEEDS = (0, 1, 2, 3, 255, 256, 512, 768, 2**32, 2**32 + 1, 2**62, 2**63 - 1)


def test_no_two_streams_are_alike() -> None:
    """Version 1 gave conv1's weights, epoch 0's order and the held-back images of seed 0 one stream."""
    places = itertools.product(Purpose, SEEDS, (0, 1, 2, 255, 256, 2**32, 2**55))
    drawn = {place: tuple(philox(*place).random_raw(4).tolist()) for place in places}
    assert len(set(drawn.values())) == len(drawn)


def test_what_the_project_draws_at_one_seed_is_unrelated() -> None:
    """The users of the streams, not the function alone: ranks of 1,000 draws each, uncorrelated pair by pair."""
    train = open_dataset("sample", "train")
    plan = TrainingPlan(paper_recipe(), len(train), 1000, 0, Statistics.none(), 2)
    net = AlexNet(paper_recipe(width=1 / 16), seed=0)
    weights = [getattr(tower, layer).weight for tower in net.held for layer in ("conv2", "fc6")]
    drawn = [plan.augmentations(step).index for step in (0, plan.steps_per_epoch)]
    drawn += [plan.augmentations(0).top * 32 + plan.augmentations(0).left, hold_out(train, 0.5, 0)[1].indices[:1000]]
    drawn += [weight.detach().flatten()[:1000].numpy() for weight in weights]
    for one, other in itertools.combinations([values[:600] for values in drawn], 2):
        assert abs(np.corrcoef(one, other)[0, 1]) < 0.2
    assert len({keys(seed, tower, layer) for seed in SEEDS for tower in (0, 1) for layer in ("fc6", "fc7")}) == 48


def test_a_block_is_a_place_in_the_stream() -> None:
    whole = philox(Purpose.ORDER, 7, 3).random_raw(40)
    assert np.array_equal(philox(Purpose.ORDER, 7, 3, block=2).random_raw(32), whole[8:])


def test_the_streams_are_these_in_every_version() -> None:
    assert STREAMS == 2
    found = {purpose.name: int(philox(purpose, 2012, 1).random_raw()) for purpose in Purpose}
    assert found == {
        "WEIGHTS": 724696649322109011,
        "DROPOUT": 15865158960171966928,
        "ORDER": 18205572121450554537,
        "AUGMENTATION": 8605542867996105584,
        "HELD_BACK": 14188103281369072590,
        "REFERENCE_WEIGHTS": 4032717337679350879,
        "PREPARATION": 13953010603593086912,
        "SUBSET": 5832864094034880850,
        "BOOTSTRAP": 8849070481004345235,
    }
    assert torch_seed(Purpose.REFERENCE_WEIGHTS, 0) < 2**63


@pytest.mark.parametrize("version", [1, 3, "2", None])
def test_a_run_of_other_streams_does_not_go_on(version: object) -> None:
    with pytest.raises(InputError, match=rf"^last\.pt: .*version {version} .*evaluate and export here"):
        refuse_other_streams(Path("last.pt"), version)
    refuse_other_streams(Path("last.pt"), STREAMS)
