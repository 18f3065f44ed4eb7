"""Intervals and verdicts: by hand, and held to account by simulated studies with a known truth.

The variance components are those of this study: 0.5 to 2.1 points between seeds' differences, 1,400
to 10,000 test images, accuracies from .3 to .9.
"""

import math

import numpy as np
import pytest
from scipy import stats

from helpers.errors import StudyError
from helpers.measure import folds, inference
from helpers.measure.inference import Cell, around, combined, verdict
from tests.measure.simulated import Study, covers

RNG = np.random.default_rng(0)


def jackknifed(points, strata):
    """``points`` (seeds, images) by the jackknife of the study's folds."""
    kept = folds.fold_of(strata)[:, None] != np.arange(folds.FOLDS)
    return inference.jackknifed(points.mean(1), points @ kept / kept.sum(0))


def test_intervals():
    mean, low, high = inference.interval([1.0, 2.0, 3.0])
    assert (
        mean == 2
        and high - mean == pytest.approx(4.302653 / 3**0.5, rel=1e-5)
        and mean - low == pytest.approx(high - mean)
    )
    assert inference.interval([2.0]) == (2, 2, 2)
    assert inference.share_interval(8, 10) == pytest.approx((0.4902, 0.9433), abs=1e-3)
    assert inference.share_interval(np.int64(0), np.int64(0)) == (0, 1)


# --- by hand


def test_crossed_by_hand():
    """Two seeds, four images, two classes; the sums of squares were written down on paper.

    Class a is images 0, 1, class b images 2, 3. Means by seed 4, 6; of the classes 4, 4 (first
    seed) and 8, 4. Within: (-2, 2, -2, 2), (0, 0, -2, 2); their image means (-1, 1, -2, 2), squares
    10; what is left of each seed is (-1, 1, 0, 0) turned round, squares 4 in all.
    """
    values = [[2, 6, 2, 6], [8, 8, 2, 6]]
    estimate = inference.crossed(values, list("aabb"))
    seed, image, both = 2 / 2, 10 / 2 / 4, 4 / 2 / 8
    variance = seed + image - both
    df = variance**1.5 / (seed**1.5 / 1 + image**1.5 / 2)
    assert estimate.value == 5 and estimate.seeds == 2
    assert estimate.se**2 == pytest.approx(variance) and estimate.df == pytest.approx(df)
    assert estimate.images == pytest.approx(image - both)
    half = stats.t.ppf(0.975, df) * variance**0.5
    assert estimate[1:3] == pytest.approx((5 - half, 5 + half))
    assert estimate.p_above(0) == pytest.approx(stats.t.sf(5 / variance**0.5, df))
    assert estimate.p_above(5) == pytest.approx(0.5) and estimate.p_above(6) > 0.5


def test_crossed_is_the_t_interval_where_images_do_not_vary():
    """With nothing but seeds it is the interval of the means; with nothing but images, theirs."""
    means = np.array([1.0, 3.0, 4.0, 8.0])
    only_seeds = inference.crossed(np.repeat(means[:, None], 6, 1), np.zeros(6))
    assert only_seeds[:3] == pytest.approx(inference.interval(means))
    assert only_seeds.df == pytest.approx(3) and only_seeds.images == 0
    only_images = inference.crossed(np.repeat(means[None], 3, 0), np.zeros(4))
    assert only_images[:3] == pytest.approx(inference.interval(means))
    assert only_images.images == pytest.approx(only_images.se**2)


def test_differences_between_classes_are_no_variance():
    strata = np.arange(240) % 3
    values = RNG.normal(size=(4, 240))
    shifted = inference.crossed(values + 100.0 * strata, strata)
    assert shifted.se == pytest.approx(inference.crossed(values, strata).se)


@pytest.mark.parametrize("number", range(3))
def test_three_estimators_agree_on_a_mean(number):
    study = Study(5, 1_440, 1.7, 0.5, number=number)
    first, second = (arm[0] for arm in study.runs())
    points = 100 * (first - second)
    one = inference.crossed(points, study.strata)
    two = jackknifed(points, study.strata)
    three = inference.pigeonhole(
        lambda a, b: 100 * (a - b), (first, second), study.strata, study.rng, 400
    )
    assert two.value == pytest.approx(one.value, abs=1e-4)
    assert three.value == pytest.approx(one.value, abs=1e-4)
    assert two.se == pytest.approx(one.se, rel=0.4)  # of ten folds
    assert three.se == pytest.approx(one.se, rel=0.15)


def test_pigeonhole_resamples_whole_curves():
    """Curves of three sizes keep their pairing: a slope that never varies has no variance."""
    level = RNG.normal(size=(1, 5, 60))
    curve = level + np.array([0.0, 2.0, 4.0])[:, None, None]

    def slope(y):
        return float(np.polyfit([0, 1, 2], y, 1)[0])

    still = inference.pigeonhole(slope, [curve], np.arange(60) % 3, RNG, 50)
    assert still.value == pytest.approx(2) and still.high == np.inf
    noisy = curve + 0.1 * RNG.normal(size=curve.shape)
    moving = inference.pigeonhole(slope, [noisy], np.arange(60) % 3, RNG, 200)
    expected = inference.crossed((noisy[2] - noisy[0]) / 2, np.arange(60) % 3)
    assert moving.se == pytest.approx(expected.se, rel=0.2)


def test_holm_worked_example():
    """Four tests: .005 x 4, .011 x 3, .02 x 2, .04 x 1, none below the one before it."""
    assert inference.holm([0.02, 0.005, 0.04, 0.011]) == pytest.approx([0.04, 0.02, 0.04, 0.033])
    assert inference.holm([0.03, 0.02]) == pytest.approx([0.04, 0.04])
    assert inference.holm([[0.6, 0.7], [0.01, 1]]).tolist() == [[1, 1], [0.02, 1]]
    assert inference.holm([]).tolist() == []


# --- where nothing can be known


@pytest.mark.parametrize(
    "estimate",
    [
        inference.crossed(RNG.normal(size=(1, 60)), np.arange(60) % 3),
        inference.crossed(RNG.normal(size=(4, 3)), np.arange(3)),  # one image a class
        inference.crossed(np.zeros((4, 60)), np.arange(60) % 3),
        inference.crossed(np.full((4, 60), 0.1), np.arange(60) % 3),
        inference.jackknifed([0.3], RNG.normal(size=(1, 10))),
        inference.jackknifed([0.1] * 4, np.full((4, 10), 0.1)),
        inference.jackknifed([0.1, np.nan, 0.2], RNG.normal(size=(3, 10))),
        inference.pigeonhole(float, [RNG.normal(size=(1, 60))], np.arange(60) % 3, RNG, 20),
        inference.pigeonhole(float, [np.full((4, 60), 0.1)], np.arange(60) % 3, RNG, 20),
        inference.pigeonhole(lambda x: np.nan, [np.zeros((4, 60))], np.arange(60) % 3, RNG, 20),
    ],
)
def test_one_seed_and_constant_values_decide_nothing(estimate):
    assert (estimate.low, estimate.high) == (-np.inf, np.inf) and estimate.p_above(0) == 0.5
    for sign in ("+", "-", "0", "noninferior"):
        assert verdict(estimate, sign, 2) == "undecided"
        assert np.isnan(inference.seeds_needed(estimate, sign, 2))


def test_variance_components_below_zero_add_nothing():
    """Means by seed, or by image, closer to each other than chance has them."""
    noise = RNG.normal(size=(5, 300))
    strata = np.arange(300) % 3
    even_seeds = noise - noise.mean(1, keepdims=True)
    even_images = noise - noise.mean(0)
    plain = inference.crossed(noise, strata).se
    for values in (even_seeds, even_images, even_images - even_images.mean(1, keepdims=True)):
        estimate = inference.crossed(values, strata)
        assert 0.5 * plain < estimate.se < 1.5 * plain and np.isfinite(estimate.df)
        assert estimate.images >= 0 and estimate.df >= 3.9
        assert jackknifed(values, strata).se == pytest.approx(estimate.se, rel=0.5)


def test_equal_runs_leave_the_images():
    bits = np.repeat(RNG.normal(size=(1, 300)), 4, 0)
    estimate = inference.crossed(bits, np.zeros(300))
    assert estimate.se == pytest.approx(bits[0].std(ddof=1) / 300**0.5)
    assert estimate.df == pytest.approx(299)


def test_errors():
    for values, strata in ((np.zeros(4), np.zeros(4)), (np.zeros((2, 4)), np.zeros(3))):
        with pytest.raises(StudyError, match="seeds, images"):
            inference.crossed(values, strata)
    with pytest.raises(StudyError, match="finite"):
        inference.crossed([[1.0, np.nan]], [0, 0])
    with pytest.raises(StudyError, match="folds"):
        inference.jackknifed([1.0, 2.0], np.zeros((3, 5)))
    with pytest.raises(StudyError, match="noninferior"):
        verdict(around(1, 1, 4, 5), "non-inferior", 2)
    with pytest.raises(StudyError, match="2 cells"):
        combined([Cell("a", around(1, 1, 4, 5))] * 2, "+", 2)


# --- pooling variances


def test_pooling_by_hand():
    """Uncorrelated rows of equal variance count fully; equal rows count once."""
    values = np.array([[1.0, -1, 1, -1, 0], [1, 1, -1, -1, 0]])
    strata = np.zeros(40)
    table = np.repeat(values[0][:, None], 40, 1)
    apart = inference.crossed(table, strata, [values[1]])
    assert apart.se**2 == pytest.approx(1 / 5) and apart.df == pytest.approx(8)
    same = inference.crossed(table, strata, [values[0]])
    assert same.se**2 == pytest.approx(1 / 5) and same.df == pytest.approx(4)


def test_unlike_variances_are_not_pooled():
    own = np.array([1.0, 2.0, 4.0, 7.0, 9.0])
    table = np.repeat(own[:, None], 40, 1)
    for other in (1000 * own, 0 * own):
        alone = inference.crossed(table, np.zeros(40))
        assert inference.crossed(table, np.zeros(40), [other]) == alone
    two = inference.crossed(table[:2], np.zeros(40), [own[2:4]])
    assert two.df == pytest.approx(1)  # two seeds tell nothing of how sizes correlate


# --- coverage

# Of 800, 500, 400 and 300 studies the share that is covered has a binomial error of 0.8, 1.0, 1.1
# and 1.3 points.
SETTINGS = [  # seeds, images, spread, accuracy, studies
    (5, 1_400, 1.7, 0.4, 800),
    (5, 4_000, 0.5, 0.9, 500),
    (20, 1_400, 2.1, 0.6, 400),
    (20, 1_400, 0.5, 0.3, 400),
    (5, 10_000, 1.2, 0.7, 300),
]


@pytest.mark.parametrize("seeds, images, spread, accuracy, studies", SETTINGS)
def test_coverage(seeds, images, spread, accuracy, studies):
    """Of the random effects and of the jackknife, which with five seeds is too wide: 97 %."""
    study = Study(seeds, images, spread, accuracy, gap=3)
    tables = [study.points()[0] for _ in range(studies)]
    estimates = [inference.crossed(points, study.strata) for points in tables]
    assert covers(estimates, 3)
    values = np.array([e.value for e in estimates])
    squared = np.mean([e.se**2 for e in estimates])
    assert squared == pytest.approx(values.var(), rel=0.2)  # the variance is without bias
    assert covers([jackknifed(points, study.strata) for points in tables], 3)


def test_seeds_alone_do_not_cover():
    """An interval over seeds only leaves the images out; the third test of the same runs shows."""
    study = Study(20, 1_400, 0.5, 0.3)
    naive = [inference.interval(study.points()[0].mean(1))[1:] for _ in range(300)]
    assert np.mean([low <= 0 <= high for low, high in naive]) < 0.9


@pytest.mark.parametrize("spread", [1.2, 2.1])
def test_coverage_of_three_seeds_with_pooled_variances(spread):
    """Four sizes, whose seeds are correlated as their training sets are nested.

    Of 400 studies the share that is covered has a binomial error of 1.1 points.
    """
    study = Study(3, 1_400, spread, 0.5, sizes=4)
    pooled, own = [], []
    for _ in range(400):
        first, *others = study.points()
        means = [other.mean(1) for other in others]
        pooled.append(inference.crossed(first, study.strata, means))
        own.append(inference.crossed(first, study.strata))
    assert covers(pooled, 0)
    assert np.mean([e.se * 2 < e.high - e.value for e in own]) > 0.3  # as wide as t(2) and more
    assert np.mean([e.high for e in pooled]) < 0.9 * np.mean([e.high for e in own])


@pytest.mark.parametrize("seeds, images, studies", [(5, 1_400, 240), (20, 240, 400)])
def test_coverage_of_the_pigeonhole(seeds, images, studies):
    """Of log2 of a ratio of error rates: not a mean of anything. As many draws as the study has.

    Of 240 and 400 studies the share that is covered has a binomial error of 1.4 and 1.1 points.
    """
    study = Study(seeds, images, 1.7, 0.6, gap=4)

    def ratio(first, second):
        return math.log2((1 - first) / (1 - second))

    estimates = []
    for _ in range(studies):
        arms = [arm[0] for arm in study.runs()]
        estimates.append(inference.pigeonhole(ratio, arms, study.strata, study.rng, 200))
    assert covers(estimates, ratio(*study.accuracies))


# --- verdicts


@pytest.mark.parametrize(
    "sign, margin, value, se, expected",
    [
        ("+", 2, 3, 1, "holds"),
        ("+", 2, -3, 1, "reversed"),
        ("+", 2, 1, 0.3, "equivalent"),  # even if the interval excludes zero
        ("+", 2, 1, 1, "undecided"),
        ("-", 2, -3, 1, "holds"),
        ("-", 2, 3, 1, "reversed"),
        ("-", 2, 0, 0.5, "equivalent"),
        ("0", 2, 0.5, 0.5, "holds"),
        ("0", 2, -4, 0.5, "reversed"),
        ("0", 2, 4, 0.5, "reversed"),
        ("0", 2, 2.5, 0.5, "undecided"),
        ("noninferior", 2, 0, 0.5, "holds"),
        ("noninferior", 2, 9, 0.5, "holds"),
        ("noninferior", 2, -4, 0.5, "reversed"),
        ("noninferior", 2, -2, 0.5, "undecided"),
    ],
)
def test_verdicts(sign, margin, value, se, expected):
    estimate = around(value, se, 30, 31)
    assert verdict(estimate, sign, margin) == expected
    decided = combined([Cell("", estimate)], sign, margin)
    if expected in ("holds", "reversed"):
        assert decided.p < 0.05
    elif expected == "undecided":
        assert decided.p >= 0.05 and decided.p_inside >= 0.05
    else:
        assert decided.p_inside < 0.05 and decided.p == pytest.approx(
            2 * min(estimate.p_above(0), 1 - estimate.p_above(0))
        )


def cells(*values, se=1.0, floors=()):
    """A cell per value, named by its position, of many degrees of freedom."""
    return [Cell(str(i), around(v, se, 1e6, 9), i in floors) for i, v in enumerate(values)]


@pytest.mark.parametrize(
    "values, combine, expected, cell",
    [
        ((9, 5, 3), "all", "holds", "2"),
        ((9, 5, 1), "all", "undecided", "2"),
        ((9, 9, -3), "all", "reversed", "2"),
        ((9, 9, -2.2), "all", "undecided", "2"),  # beyond 1.96, but not after Holm over three
        ((-3, 1), "either", "undecided", "1"),
        ((-3, 3), "either", "holds", "1"),
        ((-3, -3), "either", "reversed", "0"),
        ((2.1, -1), "either", "undecided", "0"),  # not after Holm over two
    ],
)
def test_verdicts_of_several_cells(values, combine, expected, cell):
    found = combined(cells(*values), "+", 2, combine)
    assert (found.verdict, found.cell.name) == (expected, cell)
    turned = combined(cells(*(-v for v in values)), "-", 2, combine)
    assert turned.verdict == expected and turned.p == pytest.approx(found.p)


def test_p_of_several_cells():
    """The largest of the cells for "all", Holm's smallest for "either"."""
    of = [2 * stats.norm.sf(z) for z in (9, 3)]
    assert combined(cells(9, 3), "+", 2, "all").p == pytest.approx(of[1], rel=1e-3)
    assert combined(cells(3, -1), "+", 2, "either").p == pytest.approx(2 * of[1], rel=1e-3)
    assert combined(cells(9, -3), "+", 2, "all").p == pytest.approx(2 * of[1], rel=1e-3)


def test_a_small_cell_is_no_support():
    small = Cell("small", around(0.2, 0.05, 1e6, 9))
    large = cells(9)[0]
    assert combined([large, small], "+", 2, "all").verdict == "equivalent"
    assert combined([large, small], "+", 2, "either").verdict == "holds"
    assert combined([small, small], "+", 2, "either").verdict == "equivalent"
    assert combined([small, cells(-9)[0]], "+", 2, "all").verdict == "reversed"
    assert combined([small, cells(-9)[0]], "+", 2, "either").verdict == "undecided"


def test_the_floor_comes_first():
    assert combined(cells(9, floors=[0]), "+", 2).verdict == "not testable here"
    assert combined(cells(9, 9, floors=[0, 1]), "+", 2, "all").verdict == "not testable here"
    assert combined(cells(9, 9, floors=[0]), "+", 2, "all").verdict == "not testable here"
    assert combined(cells(9, -9, floors=[0]), "+", 2, "all").verdict == "reversed"
    assert combined(cells(9, 9, -9, floors=[2]), "+", 2, "all").verdict == "holds"
    assert combined(cells(9, -9, floors=[1]), "+", 2, "either").verdict == "holds"
    assert combined(cells(9, -9, floors=[0]), "+", 2, "either").verdict == "not testable here"


# --- how often verdicts are wrong


@pytest.mark.parametrize("spread", [0.5, 1.7])
def test_false_verdicts_without_an_effect(spread):
    study = Study(5, 1_400, spread, 0.5)
    estimates = [inference.crossed(study.points()[0], study.strata) for _ in range(1000)]
    for sign in ("+", "-"):
        found = [verdict(e, sign, 1.0) for e in estimates]
        assert np.mean([v in ("holds", "reversed") for v in found]) <= 0.05


def test_false_verdicts_at_the_edge_of_the_margin():
    """At the margin nothing is equivalent, and nothing beyond it; each by 2.5 % at most."""
    study = Study(5, 1_400, 0.5, 0.5, gap=-4)
    estimates = [inference.crossed(study.points()[0], study.strata) for _ in range(1000)]
    for sign, word in (
        ("+", "equivalent"), ("0", "holds"), ("0", "reversed"),
        ("noninferior", "holds"), ("noninferior", "reversed"),
    ):  # fmt: skip
        assert np.mean([verdict(e, sign, 4.0) == word for e in estimates]) <= 0.035
    assert np.mean([verdict(e, "0", 8.0) == "holds" for e in estimates]) > 0.9


def test_false_verdicts_of_a_family():
    """Seventeen claims without an effect: uncorrected, half of the families err somewhere.

    Normal values, whose parts of the variance are as of 1.7 points and 1,400 images, on 48 images.
    """
    rng = np.random.default_rng(0)
    p = np.empty((240, 17))
    for index in np.ndindex(p.shape):
        seeds = 1.7 * rng.normal(size=(5, 1))
        values = seeds + 5 * rng.normal(size=48) + 9 * rng.normal(size=(5, 48))
        above = inference.crossed(values, np.arange(48) % 3).p_above(0)
        p[index] = 2 * min(above, 1 - above)
    assert (p < 0.05).any(1).mean() > 0.4
    assert (inference.holm(p) < 0.05).any(1).mean() <= 0.05


@pytest.mark.parametrize("effects", [(0, 0), (0, 9), (0, 0, 0, 9)])
def test_false_verdicts_of_several_cells(effects):
    """All and either, at effects that make the claim, or its reversal, false."""
    rng = np.random.default_rng(0)
    draws = rng.normal(effects, size=(600, len(effects)))
    of_all = [combined(cells(*row), "+", 0.5, "all").verdict for row in draws]
    either = [combined(cells(*-row), "+", 0.5, "either").verdict for row in draws]
    assert np.mean([v in ("holds", "reversed") for v in of_all]) <= 0.06
    assert np.mean([v in ("holds", "reversed") for v in either]) <= 0.06


# --- how many seeds it would take


def test_seeds_needed_by_hand():
    """Seeds alone: the t interval of the value's own size; with more of it, fewer seeds."""
    estimate = around(1.0, 1.0, 4, 5)  # a variance of 5 a seed
    n = inference.seeds_needed(estimate, "+", 0.1)
    t = stats.t.ppf(0.975, np.array([n - 1, n - 2]))
    widths = t * np.sqrt(5 / np.array([n, n - 1]))
    assert n > 5 and widths[0] < 1 <= widths[1]
    assert inference.seeds_needed(estimate, "-", 0.1) == n
    assert inference.seeds_needed(estimate, "+", 4) < n  # the interval is inside the margin sooner
    assert inference.seeds_needed(estimate, "0", 2) == n  # as far from the margin as from zero
    assert inference.seeds_needed(estimate, "noninferior", 1) < n


def test_no_seeds_help_where_images_are_too_few():
    assert inference.seeds_needed(around(1, 0.8, 9, 5, images=0.3), "+", 0.1) == np.inf
    assert inference.seeds_needed(around(1, 0.8, 9, 5, images=0.2), "+", 0.1) < 500
    assert inference.seeds_needed(around(1e-9, 1, 9, 5), "+", 0.1) < np.inf  # inside the margin
    assert inference.seeds_needed(around(2, 1, 9, 5), "0", 2) == np.inf  # at its edge


def test_seeds_needed_comes_true():
    """With the seeds that five promised, most studies of the same effect are decided."""
    few = Study(5, 3_000, 2.1, 0.5, gap=1.8)
    estimate = around(1.8, np.mean([_estimate(few).se for _ in range(50)]), 5, 5, 0.15)
    n = int(inference.seeds_needed(estimate, "+", 0.5))
    assert 5 < n < 30
    many = Study(2 * n, 3_000, 2.1, 0.5, gap=1.8)
    decided = [verdict(_estimate(many), "+", 0.5) == "holds" for _ in range(100)]
    assert np.mean(decided) > 0.6


def _estimate(study):
    return inference.crossed(study.points()[0], study.strata)
