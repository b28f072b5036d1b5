import numpy as np
import pytest
from PIL import Image

from alexnet2012.core.errors import InputError
from alexnet2012.data.dataset import measure
from alexnet2012.data.datasets import ArrayDataset, open_dataset
from alexnet2012.data.pixels import decode
from alexnet2012.data.statistics import Statistics, Sums


def colored(count: int) -> ArrayDataset:
    """Images whose channels vary together, as photographs' do."""
    draws = np.random.default_rng(0)
    light = draws.integers(0, 200, (count, 40, 30, 1))
    pixels = (light + draws.integers(0, 56, (count, 40, 30, 3))).astype(np.uint8)
    return ArrayDataset(pixels, np.zeros(count, np.int64), ["a", "b"], "memory", None)


def test_statistics_are_those_of_plain_numpy():
    dataset = colored(9)
    images = np.stack([decode(dataset[i][0]) for i in range(9)])
    found = dataset.statistics
    colors = images.reshape(-1, 3).astype(np.float64)
    expected = np.cov(colors.T, bias=True)
    assert found.images == 9
    assert np.abs(found.mean - images.mean(0, dtype=np.float64)).max() < 1e-9
    assert np.abs(found.covariance / expected - 1).max() < 1e-9
    assert np.allclose(found.covariance @ found.eigenvectors, found.eigenvectors * found.eigenvalues, rtol=1e-9)
    assert (np.diff(found.eigenvalues) <= 0).all()
    assert np.allclose(found.color_axes @ found.color_axes.T, expected, rtol=1e-9)


def test_those_kept_with_the_sample_are_the_measured_ones():
    kept, sums = open_dataset("sample", "val").statistics, measure(open_dataset("sample", "train"))
    measured = sums.statistics()
    assert np.array_equal(kept.mean, measured.mean.astype(np.float32)) and kept.images == measured.images == 6_000
    assert np.array_equal(kept.covariance, measured.covariance)
    assert np.allclose(kept.color_axes, measured.color_axes, rtol=1e-9, atol=1e-5)  # eigenvectors of 0 are arbitrary


def test_statistics_at_another_side():
    dataset = colored(5)
    images = np.stack([decode(dataset[i][0], 32) for i in range(5)])
    parts = Sums()
    for start, stop in ((0, 2), (2, 2), (2, 5)):
        parts.merge(measure(dataset, start, stop, side=32))
    found = parts.statistics()
    assert np.abs(found.mean - images.mean(0, dtype=np.float64)).max() < 1e-9
    assert np.abs(found.covariance / np.cov(images.reshape(-1, 3).T.astype(np.float64), bias=True) - 1).max() < 1e-9


def test_parts_merge_to_the_whole_exactly(tmp_path):
    dataset = colored(9)
    whole = measure(dataset, workers=1)
    merged = Sums()
    for start, stop in ((5, 9), (0, 2), (2, 5), (3, 3)):
        measure(dataset, start, stop, workers=3).save(tmp_path / "part.npz")
        merged.merge(Sums.load(tmp_path / "part.npz"))
    assert merged.images == whole.images
    assert np.array_equal(merged.pixels, whole.pixels) and np.array_equal(merged.products, whole.products)


def test_sums_are_exact_for_the_brightest_images():
    sums = Sums()
    sums.add(np.full((3, 256, 256, 3), 255, np.uint8))
    assert (sums.products == 3 * 256 * 256 * 255**2).all() and (sums.pixels == 3 * 255).all()
    for _ in range(29):
        sums.merge(sums)  # 1.6 thousand million images
    statistics = sums.statistics()
    assert statistics.images == 3 * 2**29
    assert (statistics.mean == 255).all() and (statistics.covariance == 0).all()


def test_grey_images_have_one_axis_and_it_points_up():
    sample = open_dataset("sample", "val")
    grey = measure(sample, 0, 50).statistics()
    assert sample.with_statistics(grey).statistics is grey
    assert np.allclose(grey.eigenvectors[:, 0], 3**-0.5)
    assert (grey.eigenvalues[1:] >= 0).all() and np.abs(grey.color_axes[:, 1:]).max() < 1e-3
    largest = np.abs(grey.eigenvectors).argmax(0)
    assert (grey.eigenvectors[largest, range(3)] > 0).all()


def test_saved_statistics_load_as_they_were(tmp_path):
    given = colored(3).statistics
    given.save(tmp_path / "statistics.npz")
    loaded = Statistics.load(tmp_path / "statistics.npz")
    for name, value in vars(given).items():
        assert np.array_equal(getattr(loaded, name), value) and type(getattr(loaded, name)) is type(value)


def test_objects_are_not_loaded(tmp_path):
    np.savez(tmp_path / "statistics.npz", **{name: np.array([{}]) for name in Statistics.__dataclass_fields__})
    with pytest.raises(InputError, match=r"statistics.npz: cannot be read \(mean is of type"):
        Statistics.load(tmp_path / "statistics.npz")


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("mean", np.zeros((256, 256)), "mean has shape"),
        ("mean", np.zeros((256, 255, 3)), "mean has shape"),
        ("mean", np.full((2, 2, 3), np.nan), "mean has values from nan"),
        ("mean", np.full((2, 2, 3), 256.0), "mean has values from 256"),
        ("mean", np.zeros((2, 2, 3), np.int64), "mean is of type int64"),
        ("eigenvalues", np.array([3.0, 2.0, -1.0]), "eigenvalues has values from -1"),
        ("eigenvalues", np.array([3.0, 2.0, 1.5]), "eigenvectors are not those of the covariance"),
        ("images", np.array(-1), "images has values from -1"),
        ("images", np.array([1]), "images has shape"),
    ],
)
def test_statistics_that_no_images_have_are_refused(name, value, said, tmp_path):
    variances = np.array([3.0, 2.0, 1.0])
    good = {"mean": np.zeros((2, 2, 3)), "covariance": np.diag(variances), "eigenvalues": variances}
    good |= {"eigenvectors": np.eye(3), "images": np.array(5)}
    np.savez(tmp_path / "statistics.npz", **good)
    assert Statistics.load(tmp_path / "statistics.npz").images == 5
    np.savez(tmp_path / "statistics.npz", **good | {name: value})
    with pytest.raises(InputError, match=f"statistics.npz: cannot be read .*{said}"):
        Statistics.load(tmp_path / "statistics.npz")


def test_both_splits_have_the_training_statistics(tmp_path):
    for split, level in (("train", 50), ("val", 200)):
        for name in ("a", "b"):
            (tmp_path / split / name).mkdir(parents=True)
            Image.new("RGB", (256, 256), (level, level, level)).save(tmp_path / split / name / "1.png")
    for split in ("train", "val"):
        found = open_dataset(tmp_path, split).statistics
        assert found.images == 2 and (found.mean == 50).all()


def test_progress_counts_each_image_once():
    done: list[int] = []
    measure(colored(150), 10, 150, progress=done.append, workers=2)
    assert sum(done) == 140 and len(done) > 1
