"""A net's costs on the command line."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image
from running import ROOT, assert_refused, here

ANALYSE = ROOT / "launch" / "analyse.py"


def test_the_net_of_2012(tmp_path: Path) -> None:
    ended = here(ANALYSE, "--batch-size", "64,128", "--figure", tmp_path / "roofline.png")
    assert (ended.code, ended.err) == (0, "")
    assert "parameters   60,965,224, 243.9 MB in float32: convolutions 3.8 %, fully connected 96.2 %" in ended.out
    assert ended.out.count("a device of two") == ended.out.count("ms on H100 SXM") / 2 == 2
    with Image.open(tmp_path / "roofline.png") as image:
        assert image.width > 500


def test_a_device_of_one_s_own_and_what_is_measured_here() -> None:
    ended = here(ANALYSE, "--net", "lenet", "--batch-size", "8", "--tflops", "1", "--gbps", "100", "--measure")
    assert ended.code == 0 and "ms on the device (" in ended.out and "GTX" not in ended.out
    assert "batch 8 here, on " in ended.out and " images/s, peak " in ended.out


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--batch-size", "8,0"), "8,0: must be whole numbers from 1"),
        (("--tflops", "1"), "each needs the other"),
        (("--tflops", "0", "--gbps", "0"), "each needs the other, both above 0"),
        (("--tflops", "-1", "--gbps", "5"), "each needs the other, both above 0"),
        (("--classes", "1"), "--classes 1: must be at least 2"),
        (("--net", "vgg"), "invalid choice: 'vgg'"),
    ],
)
def test_bad_flags_are_one_line(flags: tuple[str, ...], said: str) -> None:
    assert_refused(here(ANALYSE, *flags), said)
