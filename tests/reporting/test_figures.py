"""The figures: every text inside, none on another, each saying what it should."""

from __future__ import annotations

import dataclasses
import functools
import json
import math
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image

from alexnet2012 import paper_recipe, source_recipe
from alexnet2012.core.errors import InputError
from alexnet2012.data import TrainingPlan, open_dataset
from alexnet2012.data.dataset import load
from alexnet2012.data.statistics import Statistics
from alexnet2012.network.reference import NETS
from alexnet2012.recipe import Recipe
from alexnet2012.reporting.figures.curves import Curves, draw_curves, read_curves, smooth
from alexnet2012.reporting.figures.figure4 import Neighbours, draw_guesses, draw_neighbours
from alexnet2012.reporting.figures.gallery import draw_batch, draw_kernels, first_batch
from alexnet2012.reporting.figures.style import COLUMN, RIGHT, SMALL, lines_that_fit, save, width_of
from alexnet2012.training import Settings

NAMES = [
    "tench, Tinca tinca",
    "Chesapeake Bay retriever",
    "African hunting dog, hyena dog",
    "cock",
    "Ankle boot",
    "x" * 40,
]


@functools.cache
def texts(figure: Figure) -> dict[Text, tuple[float, float, float, float]]:
    """What is drawn, with its box in pixels."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    written = [*figure.texts, *(text for axes in figure.axes for text in texts_of(axes))]
    boxes = {text: text.get_window_extent(canvas.get_renderer()) for text in written if text.get_text().strip()}
    return {text: (box.x0, box.y0, box.x1, box.y1) for text, box in boxes.items()}


def texts_of(axes: Axes) -> list[Text]:
    legend = axes.get_legend()
    found = [*axes.texts, axes.title, axes._left_title, axes._right_title, *(legend.get_texts() if legend else [])]
    for axis in (axes.xaxis, axes.yaxis) if axes.axison else ():
        found += [axis.label, *(tick.label1 for tick in axis._update_ticks() if tick.label1.get_visible())]
    return found


def assert_readable(figure: Figure) -> None:
    """A column wide; nothing cut off, nothing on something else, no type too small."""
    boxes = texts(figure)
    width, height = figure.bbox.size
    assert figure.get_figwidth() == COLUMN
    for text, (left, bottom, right, top) in boxes.items():
        inside = left >= -0.5 and bottom >= -0.5 and right <= width + 0.5 and top <= height + 0.5
        assert inside, f"{text.get_text()!r} is cut off"
        assert text.get_fontsize() >= SMALL
    for (one, a), (other, b) in combinations(boxes.items(), 2):
        apart = a[2] <= b[0] + 1 or b[2] <= a[0] + 1 or a[3] <= b[1] + 1 or b[3] <= a[1] + 1
        assert apart, f"{one.get_text()!r} lies on {other.get_text()!r}"


def said(figure: Figure) -> str:
    return "\n".join(text.get_text() for text in texts(figure))


@pytest.mark.parametrize("towers", [1, 2])
def test_figure_3(towers: int) -> None:
    grey = torch.rand(48, 1, 11, 11).expand(48, 3, 11, 11)
    figure = draw_kernels({f"towers.{tower}.conv1.weight": grey for tower in range(towers)})
    assert_readable(figure)
    assert f"{48 * towers} kernels of 11x11 pixels" in said(figure)
    assert said(figure).count("colour: 0.0 %") == towers


def test_figure_4_left() -> None:
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (8, 256, 256, 3)).astype(np.uint8)
    probabilities = random.dirichlet(np.ones(6), 8).astype(np.float32)
    labels = [int(probabilities[0].argmax()), int(probabilities[1].argmin()), 2, 3, 4, 5, 0, 1]
    figure = draw_guesses(images, labels, probabilities, NAMES)
    assert_readable(figure)
    orange = [[bar.get_facecolor() for bar in axes.patches].count(rgba(RIGHT)) for axes in figure.axes[1::2]]
    assert orange[:2] == [1, 0]  # the correct class is first among six; is the sixth
    for axes, row in zip(figure.axes[1::2], probabilities, strict=True):
        np.testing.assert_allclose([bar.get_width() for bar in axes.patches], np.sort(row)[:0:-1])


def rgba(color: str) -> tuple[float, ...]:
    return (*(int(color[place : place + 2], 16) / 255 for place in (1, 3, 5)), 1.0)


def test_figure_4_right() -> None:
    image = np.zeros((256, 256, 3), np.uint8)
    rows = [Neighbours(image, name, [image] * 6, NAMES, [0.5, 1, 10, 100.123, 1000, 9999]) for name in NAMES[:5]]
    figure = draw_neighbours(rows, 4096, 1_281_167)
    assert_readable(figure)
    assert "1,281,167" in said(figure) and "4096 values" in said(figure) and "100.12\nAfrican" not in said(figure)
    assert "100.12\ncock" in said(figure)
    framed = [len(axes.patches) for axes in figure.axes]
    assert framed == [place in (0, 1 + row) for row in range(5) for place in range(7)]


def test_a_first_batch_is_readable() -> None:
    figure = draw_batch(torch.zeros(6, 1, 28, 28, dtype=torch.uint8), NAMES)
    assert_readable(figure)
    assert [axes.get_title() for axes in figure.axes][:2] == ["tench", "Chesapeake Bay…"]


@pytest.mark.parametrize(
    ("recipe", "divisor"),
    [(paper_recipe(color_noise=0.0), 1), (source_recipe(), 1.1), (NETS["torchvision"].recipe(), 1),
     (NETS["lenet"].recipe(), 1)],
    ids=lambda value: getattr(value, "name", ""),
)  # fmt: skip
def test_a_first_batch_is_the_plans_with_the_mean_added_back(recipe: Recipe, divisor: float) -> None:
    mean = np.random.default_rng(0).uniform(0, 255, (recipe.image_size, recipe.image_size, 3))
    train = open_dataset("sample", "train").with_statistics(
        Statistics(mean, np.zeros((3, 3)), np.zeros(3), np.eye(3), 1)
    )
    plan = TrainingPlan(recipe, len(train), 32, 0, train.statistics, 1)
    figure = first_batch(train, plan, Settings(recipe=recipe, loader="pillow"))["first-batch"]
    views, size = plan.augmentations(0), recipe.crop_size
    for row, axes in enumerate(figure.axes):
        pixels, label = load(train, int(views.index[row]), recipe.image_size)
        crop = pixels[views.top[row] : views.top[row] + size, views.left[row] : views.left[row] + size]
        crop = crop[:, ::-1] if views.reflect[row] else crop
        (shown,) = axes.images
        np.testing.assert_allclose(shown.get_array(), np.round(crop / divisor), atol=1)
        assert axes.get_title() == train.classes[label]
    assert len(figure.axes) == 16


def write_metrics(path: Path, classes: int | None, drop_at: int = 500, old: bool = False) -> Path:
    """``old``: as before epochs had means and validation a loss."""
    path.mkdir(parents=True)
    if classes:
        (path / "config.json").write_text(json.dumps({"classes": classes}))
    lines, error_of_batch = [], "train_top1_error" if old else "batch_top1_error"
    for step in range(10, 901, 10):
        row = {"step": step, "epoch": (step - 1) // 100 + 1, "lr": 0.01 if step < drop_at else 0.001}
        lines.append(json.dumps(row | {"loss": 7 / (1 + step / 100), error_of_batch: 100 - step / 20}))
        if step % 100 == 0:
            errors = {"val_top1_error": 90 - step / 20, "val_top5_error": 60 - step / 20}
            means = {} if old else {"val_loss": 6 - step / 200, "train_loss": 5 - step / 200, "train_top1_error": 80}
            lines.append(json.dumps({"step": step, "epoch": step // 100} | errors | means))
    (path / "metrics.jsonl").write_text("\n".join([*lines, '{"step": 9']))  # as a killed run leaves it
    return path / "metrics.jsonl"


def test_learning_curves(tmp_path: Path) -> None:
    long = "imagenet-source-no-lrn-no-color-noise-batch128-lr0.01-epochs91-steps-fp32-seed1"
    runs = [read_curves(write_metrics(tmp_path / name, 1000, drop_at)) for name, drop_at in (("one", 500), (long, 700))]
    figure = draw_curves(runs)
    assert_readable(figure)
    assert f"ln(1000) = {math.log(1000):.2f}" in said(figure) and said(figure).count("rate x 0.1") == 2
    assert {"epochs", "loss, nats", "error, %", "one"} <= set(said(figure).split("\n"))
    assert runs[0].drops() == [(500, pytest.approx(0.1))] and runs[0].epochs([250, 950]).tolist() == [2.5, 9.5]


def test_epochs_of_unequal_length_lie_on_the_x_axis_where_they_end() -> None:
    """13pct on CIFAR-10: epochs of 312 steps, later of 390."""
    ends = [{"step": 312.0, "epoch": 1.0}, {"step": 624.0, "epoch": 2.0}, {"step": 1014.0, "epoch": 3.0}]
    assert Curves("run", 10, [], ends).epochs([0, 156, 624, 819, 1014, 1209]).tolist() == [0, 0.5, 2, 2.5, 3, 3.5]


def drawn(axes: Axes, style: str) -> list[list[float]]:
    """The values of the lines of this style that are not faint."""
    lines = [line for line in axes.lines if line.get_linestyle() == style and line.get_alpha() is None]
    return [list(line.get_ydata()) for line in lines if len(line.get_ydata()) > 2]


def test_epochs_means_and_the_validation_s_loss_are_drawn_and_old_files_too(tmp_path: Path) -> None:
    new, old = (
        draw_curves([read_curves(write_metrics(tmp_path / name, 10, old=name == "old"))]).axes
        for name in ("new", "old")
    )
    assert drawn(new[0], "-") == [[5 - epoch / 2 for epoch in range(1, 10)]]
    assert drawn(new[0], "--") == [[6 - epoch / 2 for epoch in range(1, 10)]]
    assert drawn(new[1], "-") == [[80] * 9]
    assert len(drawn(old[0], "-")[0]) == len(drawn(old[1], "-")[0]) == 90 and drawn(old[0], "--") == []


def test_2012_s_last_errors_stand_at_the_edge_of_imagenet_s_curves(tmp_path: Path) -> None:
    figure = draw_curves([read_curves(write_metrics(tmp_path / "run", 1000))])
    assert_readable(figure)
    loss, error = (
        [list(line.get_ydata()) for line in axes.lines if line.get_label()[0] != "_"] for axes in figure.axes
    )
    assert (loss, error) == ([[1.741473], [1.861853]], [[40.7, 18.2], [42.7, 20.0]])
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == [
        "2012, #145: ten crops, ILSVRC-2012 validation",
        "2012, #155: centre crop, ILSVRC-2012 validation",
    ]
    assert not draw_curves([read_curves(write_metrics(tmp_path / "ten", 10))]).legends


def test_a_run_before_its_first_epoch_is_drawn_by_step(tmp_path: Path) -> None:
    path = write_metrics(tmp_path / "young", None)
    path.write_text("\n".join(path.read_text().splitlines()[:5]))
    figure = draw_curves([read_curves(path)])
    assert_readable(figure)
    assert "steps" in said(figure).split("\n") and "ln(" not in said(figure)


def test_a_run_of_one_row_whose_loss_begins_at_guessing(tmp_path: Path) -> None:
    path = write_metrics(tmp_path / "run", 1000)
    first = json.loads(path.read_text().splitlines()[0])
    path.write_text(json.dumps(first | {"loss": math.log(1000)}) + "\n")
    figure = draw_curves([read_curves(path)])
    assert_readable(figure)
    loss = figure.axes[0]
    assert any(line.get_marker() == "o" for line in loss.lines)
    note = next(text for text in loss.texts if "guessing" in text.get_text())
    figure.canvas.draw()
    assert note.get_window_extent().y1 < loss.get_window_extent().y1


def test_what_are_no_metrics_is_named(tmp_path: Path) -> None:
    text, empty = tmp_path / "text", tmp_path / "empty"
    text.write_text("no\nmetrics")
    empty.write_text("")
    for path in (text, empty, tmp_path, tmp_path / "absent"):
        with pytest.raises(InputError, match=str(path)):
            read_curves(path)


@pytest.mark.parametrize("said", ["{", "[]", '{"classes": "10"}', '{"classes": 1}'])
def test_a_damaged_config_beside_the_metrics_is_named(said: str, tmp_path: Path) -> None:
    path = write_metrics(tmp_path / "run", 100, 50)
    (path.parent / "config.json").write_text(said)
    with pytest.raises(InputError, match=r"config.json: .*; restore or remove it"):
        read_curves(path)


@pytest.mark.parametrize("damage", [{"loss": None}, {"loss": "x"}, {"epoch": 0}])
def test_a_damaged_row_is_named(damage: dict, tmp_path: Path) -> None:
    path = write_metrics(tmp_path / "run", 100, 50)
    first, *others = path.read_text().splitlines()
    path.write_text("\n".join([json.dumps({**json.loads(first), **damage}), *others]) + "\n")
    with pytest.raises(InputError, match=r"metrics.jsonl: not a run's metrics.jsonl"):
        read_curves(path)


def test_a_running_mean_begins_at_the_first_value() -> None:
    values = np.arange(200.0)
    np.testing.assert_allclose(smooth(values)[:5], [0, 0.5, 1, 1.5, 2.5])
    assert smooth(values)[-1] == pytest.approx(values[-4:].mean())


def test_names_are_cut_to_their_place() -> None:
    assert lines_that_fit("tench, Tinca tinca", 1.0) == ["tench"]
    assert lines_that_fit("golden retriever", 0.5, 2) == ["golden", "retriever"]
    for name in NAMES:
        assert all(width_of(line, False) <= 0.45 for line in lines_that_fit(name, 0.45, 2))


def test_png_and_pdf_of_a_column_s_width(tmp_path: Path) -> None:
    figure = draw_kernels({"towers.0.conv1.weight": torch.rand(12, 3, 11, 11)})
    png, pdf = save({"kernels": figure}, tmp_path / "figures")
    with Image.open(png) as image:
        assert image.width == 300 * COLUMN
    assert pdf.read_bytes().startswith(b"%PDF")


def test_a_cosine_has_no_drops(tmp_path: Path) -> None:
    run = read_curves(write_metrics(tmp_path / "run", 10))
    assert [factor for _, factor in run.drops()] == [pytest.approx(0.1)]
    falling = [{**row, "lr": 1 / (2 + index)} for index, row in enumerate(run.training)]
    assert dataclasses.replace(run, training=falling).drops() == []
