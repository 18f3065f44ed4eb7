"""Intervals of what decides notebooks 06 and 07, in simulated studies with a known truth.

Shares kept and calibration errors are no means of bits: 24 seeds, 14 classes, at most 1,120 images,
and spreads about as in the committed runs of ``desk``; so for rank correlations, over 24 classes.
"""

import numpy as np
import pytest
from scipy.special import ndtr
from scipy.stats import norm

from helpers.data.subsets import evenly_spread
from helpers.measure import fits, folds, inference, metrics
from tests.measure.simulated import IMAGE, Study, bounds, covered, covers

CLASSES = 14
SEEDS = 24
IMAGES = 1_120


def kept(fold):
    """Which images, (images, 1 + ``FOLDS``), are there: first all, then those outside a fold."""
    return (fold[:, None] != np.arange(-1, folds.FOLDS)).astype(np.float32)


def jackknifed(first, second):
    """Values (seeds, 1 + ``FOLDS``) of an arm minus another's, as notebook 07 estimates them."""
    values = first - second
    return inference.jackknifed(values[:, 0], values[:, 1:])


# --- shares kept

RADII = (0.25, 0.5, 1.0, 2.0)


@pytest.mark.parametrize(
    "accuracy, gap, spread, hold, apart, images",
    [
        (0.66, 14, 5, 1.0, 0.1, 392),  # supervised, PGD
        (0.35, 1, 5, 0.7, 0.1, 392),  # language-supervised
        (0.35, 1, 6, 1.7, 0.3, 392),  # self-supervised
        (0.35, 1, 5, 0.2, 0.2, IMAGES),  # corruptions
    ],
)
def test_coverage_of_the_share_kept(accuracy, gap, spread, hold, apart, images):
    """Accuracy under attack, mean over radii, over clean accuracy.

    A radius of 1 takes ``hold`` from margins; its logarithm has the spread ``apart`` between runs.
    As in the study 392 of the images are attacked, and their folds are those of all images: not
    stratified, which widens intervals a little. Of 1,300 studies the share that is covered has a
    binomial error of 0.6 points.
    """
    study = Study(SEEDS, IMAGES, spread, accuracy, gap, classes=CLASSES)
    attacked = evenly_spread(IMAGES, images)
    there = kept(folds.fold_of(study.strata)[attacked])
    weights = np.bincount(study.strata[attacked]) / images

    def share(levels, chance):
        takes = hold * np.exp(apart * chance)[:, None]
        right = [ndtr((levels - radius * takes) / IMAGE) @ weights for radius in (0, *RADII)]
        return (np.mean(right[1:], 0) / right[0]).mean()

    first, second = (share(*runs) for runs in study.expected(20_000))
    estimates = []
    for _ in range(1_300):
        arms = []
        for (margin,) in study.margins():
            margin = margin[:, attacked]
            takes = hold * np.exp(apart * study.normal(SEEDS, 1))
            under = sum((margin > radius * takes).astype(np.float32) for radius in RADII)
            arms.append(under / len(RADII) @ there / ((margin > 0) @ there))
        estimates.append(jackknifed(*arms))
    assert covers(estimates, first - second)


# --- calibration error

BLUR = 1.2  # spread of what a run believes of a margin
APART = 0.15  # spread of the boldness of an arm's runs


def confidence(belief, sharp, bold):
    return 1 / CLASSES + (1 - 1 / CLASSES) * ndtr(sharp * (belief + bold))


def bin_of(confidences):
    return np.ceil(confidences * metrics.BINS).astype(int) - 1


def calibration_errors(confidences, right, fold):
    """``metrics.ece`` of runs (seeds, images), on all images and without each fold."""
    shape = len(right), metrics.BINS, folds.FOLDS
    run = np.arange(len(right))[:, None]
    cell = np.ravel_multi_index((run, bin_of(confidences), fold), shape)
    gap = np.bincount(cell.ravel(), (confidences - right).ravel(), np.prod(shape)).reshape(shape)
    whole = gap.sum(2, keepdims=True)
    return np.abs(np.concatenate([whole, whole - gap], 2)).sum(1) / kept(fold).sum(0)


def test_calibration_errors_are_those_of_the_study():
    rng = np.random.default_rng(0)
    confidences = rng.uniform(0.1, 1, (2, 140))
    right = rng.random((2, 140)) < confidences
    labels = np.arange(140) % CLASSES
    fold = folds.fold_of(labels)
    errors = calibration_errors(confidences, right, fold)
    for run, of_fold in np.ndindex(errors.shape):
        logits = np.log(np.repeat((1 - confidences[run, :, None]) / (CLASSES - 1), CLASSES, 1))
        answers = (labels + ~right[run]) % CLASSES
        logits[np.arange(140), answers] = np.log(confidences[run])
        rest = fold != of_fold - 1
        assert errors[run, of_fold] == pytest.approx(metrics.ece(logits[rest], labels[rest]))


def expected_error(levels, chance, sharp, bold):
    """Mean over runs of an arm of the error on infinitely many images."""
    belief = np.linspace(-9, 9, 721)
    spread = np.hypot(IMAGE, BLUR)
    errors = []
    of_runs = confidence(belief, sharp, bold + APART * chance[:, None])
    for level, says in zip(levels, of_runs, strict=True):
        mean = level[:, None] + (belief - level[:, None]) * (IMAGE / spread) ** 2
        right = ndtr(mean / (IMAGE * BLUR / spread))
        density = norm.pdf(belief, level[:, None], spread) * (belief[1] - belief[0])
        gap = (density * (says - right)).mean(0)
        errors.append(np.abs(np.bincount(bin_of(says), gap)).sum())
    return np.mean(errors)


def of_calibration(studies, accuracy, gap, sharp, bold, images=IMAGES):
    """Estimates, and the truth on infinitely many images; the second arm is bolder or sharper."""
    study = Study(SEEDS, images, 5, accuracy, gap, classes=CLASSES)
    fold = folds.fold_of(study.strata)
    arms = [(sharp[i], bold[i]) for i in range(2)]
    first, second = (
        expected_error(*runs, *arm) for runs, arm in zip(study.expected(1_000), arms, strict=True)
    )
    estimates = []
    for _ in range(studies):
        errors = []
        for (margin,), (sharp, bold) in zip(study.margins(), arms, strict=True):
            belief = margin + BLUR * study.normal(SEEDS, images)
            says = confidence(belief, sharp, bold + APART * study.normal(SEEDS, 1))
            errors.append(calibration_errors(says, margin > 0, fold))
        estimates.append(jackknifed(*errors))
    return estimates, first - second


def test_coverage_of_the_calibration_error():
    """Of bold models, errors .28 and .34: as of those that are language-supervised.

    Of 500 studies the share that is covered has a binomial error of 1 point.
    """
    estimates, truth = of_calibration(500, 0.35, 1, (0.6, 0.7), (1.2, 1.5))
    assert covers(estimates, truth)


def test_coverage_of_the_calibration_error_on_as_many_images():
    """Of a model that is calibrated well, error .03, and one that is not, .09, as the supervised.

    On few images the smaller one comes out larger, by .013 here and by .002 on the 10,000 that the
    study has. That is a bias, of which no interval knows: 79 % hold the truth here, 95 % there.
    They are right about what is expected of as many images. Of 500 studies the share that is
    covered has a binomial error of 1 point.
    """
    estimates, truth = of_calibration(500, 0.66, 14, (0.5, 0.6), (1.0, 1.0))
    assert covers(estimates, np.mean([e.value for e in estimates]))
    assert covered(estimates, truth) < bounds(500)[0]


# --- rank correlations

ARMS, OF_CLASS = 11, 24
SPREADS = np.array(  # of recognizability and diversity: of arms, classes, both, a class's images
    [[0.061, 0.16, 0.058, 0.058], [0.0134, 0.0094, 0.0035, 0.006]]
).T[..., None, None]


@pytest.mark.parametrize("number, likeness", [(67, 0.0), (1, -0.6), (2, 0.95)])
def test_coverage_of_the_rank_correlation_of_arms(number, likeness):
    """Truths of 0, -.54 and .93. Arms are fixed; classes and their images are drawn again.

    Intervals are wider than they need be and hold 97 to 99 %: values of the classes that are drawn
    again have the chance of their images in them already. Without images drawn again it would be 90
    to 93 %, but for the truth of .93, as chance shuffles the ranks of arms that are close. Of 600
    studies the share that is covered has a binomial error of 0.9 points.
    """
    rng = np.random.default_rng(number)
    arms = rng.normal(size=(2, ARMS))
    arms[1] = likeness * arms[0] + (1 - likeness**2) ** 0.5 * arms[1]
    of_arm, of_class, both, images = SPREADS
    truth = fits.rank_correlation(*arms, [], 2).value
    estimates = []
    for _ in range(600):
        values = of_arm * arms[..., None] + of_class * rng.normal(size=(2, 1, OF_CLASS))
        values += np.hypot(both, images) * rng.normal(size=(2, ARMS, OF_CLASS))
        noise = rng.standard_normal((200, 2, ARMS, OF_CLASS), np.float32)
        chosen = rng.integers(OF_CLASS, size=(200, 1, 1, OF_CLASS))
        again = np.take_along_axis(values + images * noise, chosen, -1).mean(-1)
        estimates.append(fits.rank_correlation(*values.mean(-1), again, OF_CLASS))
    assert covered(estimates, truth) >= bounds(600)[0]
    assert all(-1 <= e.low <= e.value <= e.high <= 1 for e in estimates)
