"""Exchange between two ranks against exchange within a process: the same bits forward and backward.

The two ranks are threads here, each with an end of its own of a real gloo group; ``tests/launch`` starts processes.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import pytest
import torch
import torch.distributed as dist
from torch import Tensor

from alexnet2012 import AlexNet, paper_recipe, source_recipe
from alexnet2012.network.exchange import BetweenRanks, InProcess
from alexnet2012.recipe import Recipe

T = TypeVar("T")
FORMATS = [torch.contiguous_format, torch.channels_last]


def on_two_ranks(run: Callable[[BetweenRanks], T]) -> list[T]:
    """What ``run`` returns on each rank of a pair."""
    store = dist.HashStore()

    def rank(tower: int) -> T:
        torch.set_num_threads(1)
        return run(BetweenRanks(dist.ProcessGroupGloo(store, tower, 2), tower))

    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(rank, range(2)))


def values(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("memory_format", FORMATS, ids=str)
def test_gather_channels_gives_both_ranks_both_towers_and_sums_their_gradients(
    memory_format: torch.memory_format,
) -> None:
    outputs = [values(2, 3, 5, 5, seed=t).to(memory_format=memory_format) for t in (0, 1)]
    pulls = [values(2, 6, 5, 5, seed=2 + t) for t in (0, 1)]  # each rank's use sends another gradient back

    def cross(exchange: BetweenRanks) -> tuple[Tensor, Tensor]:
        x = outputs[exchange.tower].clone().requires_grad_()
        (gathered,) = exchange.gather_channels([x], "conv3")
        (gathered * pulls[exchange.tower]).sum().backward()
        return gathered, x.grad

    inputs = [x.clone().requires_grad_() for x in outputs]
    both = InProcess(2).gather_channels(inputs, "conv3")
    sum((gathered * pull).sum() for gathered, pull in zip(both, pulls, strict=True)).backward()
    for (gathered, gradient), expected, x in zip(on_two_ranks(cross), both, inputs, strict=True):
        assert torch.equal(gathered, expected)
        assert torch.equal(gradient, x.grad)
        assert gathered.is_contiguous(memory_format=memory_format)


def test_every_wait_for_the_peer_is_named_and_the_ranks_own_work_is_no_wait() -> None:
    def cross(exchange: BetweenRanks) -> list[str]:
        seen = []

        @contextlib.contextmanager
        def waiting(name: str) -> Iterator[None]:
            seen.append(f"{name} begins")
            yield
            seen.append("ends")

        exchange.waiting = waiting
        x = values(2, 3, 5, 5).requires_grad_()
        (gathered,) = exchange.gather_channels([x], "conv3")
        joined = exchange.gather_logits([gathered.mean((2, 3))], "fc8", 12)
        seen.append("loss")
        joined.sum().backward()
        return seen

    crossed = ["channels of both towers for conv3 begins", "ends", "fc8 of both towers begins", "ends"]
    expected = [*crossed, "loss", "gradients of conv3's input begins", "ends"]
    assert on_two_ranks(cross) == [expected, expected]


@pytest.mark.parametrize("memory_format", FORMATS, ids=str)
def test_the_gradient_of_gather_channels_arrives_in_any_memory_format(memory_format: torch.memory_format) -> None:
    pulls = [values(2, 6, 5, 5, seed=t).to(memory_format=memory_format) for t in (0, 1)]

    def cross(exchange: BetweenRanks) -> Tensor:
        x = values(2, 3, 5, 5).requires_grad_()
        exchange.gather_channels([x], "conv3")[0].backward(pulls[exchange.tower])
        return x.grad

    total = pulls[0] + pulls[1]
    for gradient, expected in zip(on_two_ranks(cross), total.chunk(2, 1), strict=True):
        assert torch.equal(gradient, expected)


@pytest.mark.parametrize("channels", [2, 3, 4, 7, 1000])
@pytest.mark.parametrize("shape", [(), (2, 3)], ids=["logits", "maps"])
def test_gather_logits_gives_the_whole_and_each_tower_its_slice_of_the_gradient_once(
    channels: int, shape: tuple[int, ...]
) -> None:
    whole, pull = values(4, channels, *shape), values(4, channels, *shape, seed=1)
    halves = whole.split((channels + 1) // 2, 1)

    def cross(exchange: BetweenRanks) -> tuple[Tensor, Tensor]:
        x = halves[exchange.tower].clone().requires_grad_()
        joined = exchange.gather_logits([x], "fc8", channels)
        (joined * pull).sum().backward()
        return joined, x.grad

    for (joined, gradient), slice_ in zip(on_two_ranks(cross), pull.split((channels + 1) // 2, 1), strict=True):
        assert torch.equal(joined, whole)
        assert torch.equal(gradient, slice_)


@pytest.mark.parametrize("classes", [4, 5])
@pytest.mark.parametrize(
    "recipe", [paper_recipe(width=1 / 16), source_recipe(width=1 / 16)], ids=lambda recipe: recipe.name
)
def test_a_tower_a_rank_computes_the_whole_net(recipe: Recipe, classes: int) -> None:
    """Logits, features and gradients of a training pass; each rank holds its own half and no more."""
    images, labels = 60 * values(2, 3, 224, 224), torch.tensor([0, classes - 1])

    def train(exchange: BetweenRanks | None) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        net = AlexNet(recipe, classes, seed=3, exchange=exchange).double()
        logits, features = net(images, step=5, return_features=True)
        torch.nn.functional.cross_entropy(logits, labels).backward()
        return features, {name: weight.grad for name, weight in net.named_parameters()}

    features, gradients = train(None)
    for tower, (rank_features, rank_gradients) in enumerate(on_two_ranks(train)):
        assert rank_gradients.keys() == {name for name in gradients if name.startswith(f"towers.{tower}.")}
        torch.testing.assert_close(rank_features, features, rtol=1e-12, atol=1e-12)
        for name, gradient in rank_gradients.items():
            largest = gradients[name].abs().max()
            assert largest > 0
            torch.testing.assert_close(gradient, gradients[name], rtol=0, atol=1e-12 * float(largest))


def test_a_rank_without_a_row_takes_part() -> None:
    """Of an epoch's short batch a replica may have none: it computes gradients of zero."""

    def train(exchange: BetweenRanks) -> list[Tensor]:
        net = AlexNet(paper_recipe(width=1 / 16), 5, seed=3, exchange=exchange)
        net(torch.zeros(0, 3, 224, 224), step=5).sum().backward()
        return [weight.grad for weight in net.parameters()]

    assert all(gradient is not None and not gradient.any() for rank in on_two_ranks(train) for gradient in rank)
