"""Runs by chance with a known truth: two arms, paired by seed and test image, right or wrong.

Images differ in difficulty, arms in the images that they find hard; a seed moves a whole arm and,
apart, each of its classes. With these numbers an image counts for more than any seed.
"""

import numpy as np
from scipy.optimize import brentq
from scipy.stats import binom, norm

CLASSES = 24
OF_ARM, OF_RUN = 0.3, 0.5  # spreads of an image between arms, and between an arm's runs
APART = 0.2  # share of a seed's variance that moves classes apart
NESTED = 0.5  # correlation of seeds between sizes, whose training sets are nested
IMAGE = np.sqrt(1 + OF_ARM**2 + OF_RUN**2)  # spread of the images of a class in one run


def covered(estimates, truth):
    """The share of intervals that contain the truth."""
    return np.mean([e.low <= truth <= e.high for e in estimates])


def bounds(studies):
    """Between which shares of covered ``studies`` a coverage passes for 93 to 97 %.

    These are the bounds, but where the binomial error is too large for that: then they are what a
    coverage of 95 % leaves once in 1,000 times.
    """
    least, most = binom.ppf([0.0005, 0.9995], studies, 0.95) / studies
    return min(least, 0.93), max(most, 0.97)


def covers(estimates, truth):
    """Whether the share of intervals that contain the truth is within ``bounds``."""
    least, most = bounds(len(estimates))
    return least <= covered(estimates, truth) <= most


class Study:
    """Two arms of ``seeds`` runs on ``images``: ``spread`` points between seeds' differences.

    ``gap``: true difference in points; ``accuracy``: of the second arm, about.
    """

    def __init__(
        self, seeds, images, spread, accuracy, gap=0.0, sizes=1, number=0, classes=CLASSES
    ):
        self.rng = np.random.default_rng(number)
        self.shape = (sizes, seeds, images)
        self.classes = classes
        self.strata = np.arange(images) % classes
        seed = spread / 2**0.5 / (100 * norm.pdf(norm.ppf(accuracy)) / IMAGE)
        self.of_seed = seed * np.sqrt([1 - APART, APART * classes])
        of_class = norm.ppf(accuracy) * IMAGE + np.random.default_rng(1).normal(0, 0.3, classes)
        whole = np.sqrt(IMAGE**2 + (self.of_seed**2).sum())
        weights = np.bincount(self.strata) / images

        def right(shift):
            return 100 * weights @ norm.cdf((of_class + shift) / whole)

        shift = brentq(lambda shift: right(shift) - right(0) - gap, -3, 3)
        self.levels = [of_class + shift, of_class]
        self.accuracies = right(shift) / 100, right(0) / 100

    def normal(self, *shape):
        """Standard normal chances."""
        return self.rng.standard_normal(shape, dtype=np.float32)

    def _seeds(self, spread, *shape):
        sizes, seeds, _ = self.shape
        apart = (1 - NESTED) ** 0.5 * self.normal(sizes, seeds, *shape)
        return spread * (apart + NESTED**0.5 * self.normal(1, seeds, *shape))

    def margins(self):
        """How far both arms are from being wrong: (sizes, seeds, images) each, wrong below 0."""
        _, _, images = self.shape
        difficulty = self.normal(images)
        arms = []
        for level in self.levels:
            logit = level[self.strata] + difficulty + OF_ARM * self.normal(images)
            seed = self._seeds(self.of_seed[0], 1)
            apart = self._seeds(self.of_seed[1], self.classes)[..., self.strata]
            arms.append(logit + seed + apart + OF_RUN * self.normal(*self.shape))
        return arms

    def runs(self):
        """Right or wrong, 1 or 0, of both arms: (sizes, seeds, images) each."""
        return [(margin > 0).astype(np.float32) for margin in self.margins()]

    def points(self):
        """The first arm minus the second, in points: (sizes, seeds, images)."""
        first, second = self.runs()
        return 100 * (first - second)

    def expected(self, runs):
        """Of each arm in ``runs`` of it: mean margins (runs, classes), another chance (runs,).

        Half of the runs are the others with all their chances turned round.
        """
        rng = np.random.default_rng(2)
        for level in self.levels:
            chances = rng.standard_normal((runs // 2, 2 + self.classes))
            chances = np.concatenate([chances, -chances])
            seed, apart = chances[:, :1], chances[:, 2:]
            yield level + self.of_seed[0] * seed + self.of_seed[1] * apart, chances[:, 1]
