"""Runs by chance with a known truth: two arms, paired by seed and test image, right or wrong.

Images differ in difficulty, arms in the images that they find hard; a seed moves a whole arm and,
apart, each of its classes. With these numbers an image counts for more than any seed.
"""

import numpy as np
from scipy.optimize import brentq
from scipy.stats import norm

CLASSES = 24
OF_ARM, OF_RUN = 0.3, 0.5  # spreads of an image between arms, and between an arm's runs
APART = 0.2  # share of a seed's variance that moves classes apart
NESTED = 0.5  # correlation of seeds between sizes, whose training sets are nested


class Study:
    """Two arms of ``seeds`` runs on ``images``: ``spread`` points between seeds' differences.

    ``gap``: true difference in points; ``accuracy``: of the second arm, about.
    """

    def __init__(self, seeds, images, spread, accuracy, gap=0.0, sizes=1, number=0):
        self.rng = np.random.default_rng(number)
        self.shape = (sizes, seeds, images)
        self.strata = np.arange(images) % CLASSES
        image = np.sqrt(1 + OF_ARM**2 + OF_RUN**2)
        seed = spread / 2**0.5 / (100 * norm.pdf(norm.ppf(accuracy)) / image)
        self.of_seed = seed * np.sqrt([1 - APART, APART * CLASSES])
        of_class = norm.ppf(accuracy) * image + np.random.default_rng(1).normal(0, 0.3, CLASSES)
        whole = np.sqrt(image**2 + (self.of_seed**2).sum())
        weights = np.bincount(self.strata) / images

        def right(shift):
            return 100 * weights @ norm.cdf((of_class + shift) / whole)

        shift = brentq(lambda shift: right(shift) - right(0) - gap, -3, 3)
        self.levels = [of_class + shift, of_class]
        self.accuracies = right(shift) / 100, right(0) / 100

    def _normal(self, *shape):
        return self.rng.standard_normal(shape, dtype=np.float32)

    def _seeds(self, spread, *shape):
        sizes, seeds, _ = self.shape
        apart = (1 - NESTED) ** 0.5 * self._normal(sizes, seeds, *shape)
        return spread * (apart + NESTED**0.5 * self._normal(1, seeds, *shape))

    def runs(self):
        """Right or wrong, 1 or 0, of both arms: (sizes, seeds, images) each."""
        _, _, images = self.shape
        difficulty = self._normal(images)
        arms = []
        for level in self.levels:
            logit = level[self.strata] + difficulty + OF_ARM * self._normal(images)
            seed = self._seeds(self.of_seed[0], 1)
            apart = self._seeds(self.of_seed[1], CLASSES)[..., self.strata]
            noise = OF_RUN * self._normal(*self.shape)
            arms.append((logit + seed + apart + noise > 0).astype(np.float32))
        return arms

    def points(self):
        """The first arm minus the second, in points: (sizes, seeds, images)."""
        first, second = self.runs()
        return 100 * (first - second)
