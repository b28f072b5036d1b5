import numpy as np
import pytest
from scipy import stats

from alexnet2012.data.plan import TrainingPlan, evaluation_batches
from alexnet2012.data.statistics import Statistics
from alexnet2012.errors import InputError
from alexnet2012.recipe import paper_recipe, source_recipe

IMAGES = 20_000
LIKELY = 1e-3  # the seed is fixed: a fair generator fails a test at this level once in a thousand seeds


def statistics() -> Statistics:
    vectors = np.linalg.qr(np.random.default_rng(1).normal(size=(3, 3)))[0]
    values = np.array([14_835.0, 1_376.0, 388.0])  # near ImageNet's
    mean = np.zeros((256, 256, 3), np.float32)
    return Statistics(mean, vectors @ np.diag(values) @ vectors.T, values, vectors, IMAGES)


def plan(recipe=None, batch_size=IMAGES, seed=0, epochs=90) -> TrainingPlan:
    return TrainingPlan(recipe or paper_recipe(), IMAGES, batch_size, seed, statistics(), epochs)


def same(one, other) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(vars(one).values(), vars(other).values(), strict=True))


@pytest.mark.parametrize(("recipe", "offsets"), [(paper_recipe(), 32), (source_recipe(), 33)])
def test_every_offset_is_equally_likely(recipe, offsets):
    views = plan(recipe).views(0)
    both_axes = np.bincount(views.top * offsets + views.left, minlength=offsets**2)
    assert both_axes.shape == (offsets**2,)
    assert stats.chisquare(both_axes).pvalue > LIKELY
    for axis in (views.top, views.left):
        assert stats.chisquare(np.bincount(axis, minlength=offsets)).pvalue > LIKELY


def test_spares_are_four_independent_draws_of_all_images():
    spares = plan().views(0).spares
    assert spares.shape == (IMAGES, 4) and spares.min() >= 0 and spares.max() < IMAGES
    for column in spares.T:
        assert stats.chisquare(np.bincount(column * 200 // IMAGES, minlength=200)).pvalue > LIKELY
    agreeing = [(spares[:, i] * 20 // IMAGES == spares[:, j] * 20 // IMAGES).sum() for i in range(4) for j in range(i)]
    assert all(stats.binomtest(int(count), IMAGES, 1 / 20).pvalue > LIKELY for count in agreeing)


def test_reflections_follow_the_recipe_and_no_offset():
    views = plan().views(0)
    assert stats.binomtest(int(views.reflect.sum()), IMAGES, 0.5).pvalue > LIKELY
    table = [np.bincount(views.left[views.reflect == side], minlength=32) for side in (False, True)]
    assert stats.chi2_contingency(table).pvalue > LIKELY
    assert not plan(paper_recipe(reflect=0.0)).views(0).reflect.any()
    assert plan(paper_recipe(reflect=1.0)).views(0).reflect.all()


def test_noise_along_each_axis_is_normal_with_a_tenth_of_its_deviation():
    noise, given = plan().views(0).noise, statistics()
    assert noise.dtype == np.float32
    along = noise @ given.eigenvectors / (0.1 * np.sqrt(given.eigenvalues))
    for axis in along.T:
        assert stats.kstest(axis, "norm").pvalue > LIKELY
    assert np.abs(np.corrcoef(along.T) - np.eye(3)).max() < 0.03


def test_an_epoch_is_a_permutation_and_no_two_are_alike():
    batches = plan(batch_size=128)
    epochs = [
        np.concatenate([batches.views(epoch * batches.steps_per_epoch + step).index for step in range(156)])
        for epoch in (0, 1)
    ]
    assert batches.steps_per_epoch == 156 and batches.steps == 156 * 90
    assert all(len(np.unique(order)) == 156 * 128 for order in epochs)
    assert abs(np.corrcoef(*epochs)[0, 1]) < 0.03
    assert not np.array_equal(epochs[0], plan(batch_size=128, seed=1).views(0).index)


def test_rows_are_the_same_however_a_batch_is_sliced_and_in_whatever_order_steps_are_asked_for():
    whole = plan(batch_size=128).views(1000)
    for start, stop in ((0, 1), (1, 64), (64, 128), (127, 128), (5, 5)):
        part = plan(batch_size=128).views(1000, start, stop)
        assert same(part, type(whole)(*(rows[start:stop] for rows in list(vars(whole).values())[:6])))
    walked = plan(batch_size=128)
    for step in (0, 999, 3, 1000):
        last = walked.views(step)
    assert same(last, whole)


def test_the_draws_of_a_position_do_not_depend_on_the_batch_size():
    small, large = plan(batch_size=100), plan(batch_size=200)
    assert np.array_equal(small.views(1).noise, large.views(0).noise[100:])


def test_the_draws_are_these_in_every_version():
    views = plan(batch_size=4).views(4)
    assert views.index.tolist() == [11937, 16818, 3782, 3959]
    assert views.top.tolist() == [22, 17, 23, 14]
    assert views.left.tolist() == [8, 30, 10, 29]
    assert views.reflect.tolist() == [True, True, False, True]


def test_noise_ends_with_the_recipe_epoch_scaled_to_the_run():
    full, short = plan(source_recipe(), epochs=91), plan(source_recipe(), epochs=10)
    assert full.noisy(66) and not full.noisy(67)
    assert short.noisy(7) and not short.noisy(8)  # 8 x 91 >= 67 x 10
    assert full.views(66).divisor == 1.1 and full.views(67).divisor == 1.0
    assert full.views(66).noise.any() and not full.views(67).noise.any()
    without = plan(source_recipe(color_noise=0.0)).views(0)
    assert without.divisor == 1.0 and not without.noise.any()
    assert plan().views(89).noise.any() and plan().views(89).divisor == 1.0


def test_less_than_a_batch_is_refused():
    with pytest.raises(InputError, match="--batch-size 20001: the training split has 20000 images"):
        plan(batch_size=20_001)


@pytest.mark.parametrize(
    ("images", "batch_size", "parts"), [(50, 16, 1), (50, 16, 4), (5, 16, 8), (48, 16, 3), (1, 1, 2)]
)
def test_evaluation_sees_each_image_once(images, batch_size, parts):
    batches = [list(evaluation_batches(images, batch_size, part, parts)) for part in range(parts)]
    assert {len(part) for part in batches} == {-(-images // batch_size)}
    assert all(max(map(len, same_batch)) - min(map(len, same_batch)) <= 1 for same_batch in zip(*batches, strict=True))
    joined = [np.concatenate(same_batch) for same_batch in zip(*batches, strict=True)]
    assert np.array_equal(np.concatenate(joined), np.arange(images))
    assert all(part.dtype == np.int64 for part in joined)
