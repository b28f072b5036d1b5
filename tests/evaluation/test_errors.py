"""Credit for ties, nats, and outputs that are not finite."""

from __future__ import annotations

import math

import pytest
import torch

from alexnet2012.evaluation.errors import ErrorCount, credit, negative_log_likelihood

NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("scores", "top1", "top5"),
    [
        ([3, 2, 1, 0, 0, 0, 0], 1, 1),  # alone on top
        ([3, 3, 1, 0, 0, 0, 0], 1 / 2, 1),  # tied with one other
        ([0, 0, 0, 0, 0, 0, 0], 1 / 7, 5 / 7),  # a net that says nothing
        ([2, 3, 4, 5, 6, 1, 1], 0, 1),  # fifth
        ([2, 3, 4, 5, 6, 2, 1], 0, 1 / 2),  # two share the fifth place
        ([2, 3, 4, 5, 6, 7, 1], 0, 0),  # sixth
        ([9, NAN, 0, 0, 0, 0, 0], 0, 0),
        ([INF, 1, 0, 0, 0, 0, 0], 0, 0),
        ([9, 0, 0, 0, 0, 0, -INF], 0, 0),
    ],
)
def test_credit_of_class_0(scores: list[float], top1: float, top5: float) -> None:
    row, label = torch.tensor([scores]), torch.tensor([0])
    assert credit(row, label, 1).item() == pytest.approx(top1)
    assert credit(row, label, 5).item() == pytest.approx(top5)


def test_fewer_classes_than_five_are_always_among_the_five_best() -> None:
    scores = torch.rand(20, 3)
    assert credit(scores, torch.arange(20) % 3, 5).eq(1).all()


def test_counting_in_batches_equals_counting_at_once() -> None:
    scores, labels = torch.rand(50, 10), torch.arange(50) % 10
    whole, parts = ErrorCount(), ErrorCount()
    whole.add(scores, labels)
    for rows in (slice(0, 1), slice(1, 33), slice(33, 50)):
        parts.add(scores[rows], labels[rows])
    assert vars(parts.rates()) == pytest.approx(vars(whole.rates()))
    assert whole.rates().images == 50


@pytest.mark.parametrize(
    ("probabilities", "loss"),
    [
        ([0.25, 0.75], math.log(4)),
        ([1, 0], 0),
        ([0, 1], 126 * math.log(2)),  # as the smallest normal float32
        ([1e-42, 1], 126 * math.log(2)),
        ([0.25, NAN], 126 * math.log(2)),
        ([INF, 0], 126 * math.log(2)),
    ],
)
def test_nats_of_class_0(probabilities: list[float], loss: float) -> None:
    assert negative_log_likelihood(torch.tensor([probabilities]), torch.tensor([0])).item() == pytest.approx(
        loss, abs=1e-7
    )
