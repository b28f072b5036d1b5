"""conv1's kernels as pixels, and their colour as a number."""

from __future__ import annotations

import pytest
import torch

from alexnet2012.evaluation.features import colour_share, columns, kernel_sheet, scaled_together, sheet


def test_colour_is_what_lies_off_the_grey_axis() -> None:
    grey = torch.randn(48, 1, 11, 11).expand(48, 3, 11, 11)
    red_green = torch.randn(48, 1, 11, 11) * torch.tensor([1.0, -1.0, 0.0])[:, None, None]
    assert colour_share(grey) == pytest.approx(0, abs=1e-6)
    assert colour_share(red_green) == pytest.approx(1, abs=1e-6)
    assert colour_share(torch.cat([grey, red_green])) == pytest.approx(
        float(red_green.square().sum() / (grey.square().sum() + red_green.square().sum()))
    )
    assert colour_share(torch.randn(2000, 3, 11, 11)) == pytest.approx(2 / 3, abs=0.01)


def test_towers_are_scaled_by_the_same_largest_weight() -> None:
    small, large = torch.full((2, 3, 11, 11), 0.5), torch.full((2, 3, 11, 11), -2.0)
    pixels = scaled_together([small, large])
    assert pixels[0].unique().tolist() == [0.625] and pixels[1].unique().tolist() == [0.0]


def test_a_sheet_holds_every_kernel_in_order() -> None:
    kernels = torch.rand(48, 3, 11, 11)
    pixels = sheet(kernels)
    assert pixels.shape == (3, 3 * 12 - 1, 16 * 12 - 1)
    for index in range(48):
        top, left = index // 16 * 12, index % 16 * 12
        assert torch.equal(pixels[:, top : top + 11, left : left + 11], kernels[index])
    assert pixels[:, 11].eq(1).all()


def test_the_sheet_of_a_net_has_tower_0_above_tower_1() -> None:
    weights = {f"towers.{tower}.conv1.weight": torch.full((48, 3, 11, 11), tower - 0.5) for tower in (0, 1)}
    pixels = kernel_sheet(weights)
    assert pixels.shape == (3, 3 * (2 * 35 + 3), 3 * 191)
    assert pixels[:, 0, 0].eq(0).all() and pixels[:, -1, 0].eq(1).all()


@pytest.mark.parametrize(("kernels", "across"), [(48, 16), (12, 12), (24, 12), (6, 6), (17, 17)])
def test_kernels_fill_whole_rows(kernels: int, across: int) -> None:
    assert columns(kernels) == across
