"""What notebooks 04 and 05 read off finished runs: contrasts over seeds and test images, claims.

No builder imports this. A contrast is in points: 100 times a difference of accuracies. Where arms
have the same seeds, they are paired by seed, and always by image.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from helpers.data import tables
from helpers.engine import randomness, report
from helpers.measure import inference
from helpers.measure.inference import Cell, Estimate
from helpers.study.finetune import METRICS, SOURCES
from helpers.study.runs import unpacked
from helpers.worlds import World

Arm = tuple[str, int]  # source or arm of an ablation, and its number of images
CLIP: Arm = ("clip", 0)
DECADE = 10  # slopes, and "never hurts", are asked for from a tenth of the largest size up [P]


@dataclass(frozen=True, eq=False)
class Runs:
    """All results of notebooks 04 and 05 (tables of ``finetune.by_metric``) of a world."""

    w: World
    results: pd.DataFrame

    @functools.cached_property
    def known(self) -> dict:
        """The answers of the runs, in order of their seeds, by task, source, n and metric."""
        rows = self.results[self.results["metric"].isin(METRICS)].sort_values("seed")
        return dict(iter(rows.groupby(["task", "source", "n", "metric"])))

    def answers(self, task: str, metric: str, arm: Arm) -> np.ndarray:
        """The class that each run of an arm sees in each test image: (seeds, images)."""
        return np.stack([unpacked(x) for x in self.known[task, *arm, metric]["answers"]])

    @functools.lru_cache(maxsize=128)  # noqa: B019 - one instance a notebook
    def hits(self, task: str, metric: str, arm: Arm) -> np.ndarray:
        """Whether each run of an arm is right about each test image: (seeds, images) 0 or 1."""
        return (self.answers(task, metric, arm) == self.labels(task)).astype(np.float32)

    def labels(self, task: str) -> np.ndarray:
        """The class of each test image."""
        return tables.benchmark(self.w, task).test.labels

    def sizes(self, task: str, source: str, low: float = 0) -> list[int]:
        """The sizes at which a source was trained on, from ``low`` on."""
        found = self.results[(self.results["task"] == task) & (self.results["source"] == source)]
        return sorted(n for n in found["n"].unique() if n >= low)

    def ends(self, task: str) -> tuple[Arm, Arm, Arm]:
        """The largest retrieved and the largest synthetic arm, and a synthetic one like the first.

        The second is larger than the first, if so many were drawn.
        """
        real = self.sizes(task, "retrieved")[-1]
        drawn = self.sizes(task, "synthetic")
        common = max(n for n in drawn if n <= real)
        return ("retrieved", common), ("synthetic", drawn[-1]), ("synthetic", common)

    def decade(self, task: str, source: str) -> list[int]:
        """The sizes of a source's top decade."""
        return self.sizes(task, source, self.sizes(task, source)[-1] / DECADE)

    def levels(self) -> pd.DataFrame:
        """The accuracy of every arm, 0..1: ``task, source, n, metric, mean, low, high``."""
        rows = []
        for task, source, n, metric in self.known:
            found = inference.crossed(self.hits(task, metric, (source, n)), self.labels(task))
            rows.append((task, source, n, metric, *found[:3]))
        return pd.DataFrame(rows, columns=["task", "source", "n", "metric", "mean", "low", "high"])

    def gaps(self) -> pd.DataFrame:
        """Retrieved minus synthetic in points, by size: ``task, metric, n, mean, low, high``."""
        rows = []
        for task, metric in itertools.product(self.w.tasks, METRICS):
            for n in sorted(set.intersection(*(set(self.sizes(task, s)) for s in SOURCES))):
                found = self.gap(task, metric, *((source, n) for source in SOURCES))
                rows.append((task, metric, n, *found[:3]))
        return pd.DataFrame(rows, columns=["task", "metric", "n", "mean", "low", "high"])

    def gap(self, task: str, metric: str, arm: Arm, other: Arm) -> Estimate:
        """The first arm minus the second, in points.

        With few seeds the variance over seeds is pooled over the sizes that both sources have.
        """
        change = 100 * (self.hits(task, metric, arm) - self.hits(task, metric, other))
        others: list[np.ndarray] = []
        if arm[1] == other[1]:
            shared = set(self.sizes(task, arm[0])) & set(self.sizes(task, other[0])) - {arm[1]}
            for n in sorted(shared):
                pair = [self.hits(task, metric, (source, n)) for source in (arm[0], other[0])]
                others.append(100 * (pair[0] - pair[1]).mean(1))
        return inference.crossed(change, self.labels(task), others)

    def against(self, task: str, other: Arm, arms: Sequence[Arm]) -> pd.DataFrame:
        """Arms minus ``other``, in points: ``arm, metric`` (in words), ``mean, low, high``."""
        rows = []
        for arm, metric in itertools.product(arms, METRICS):
            rows.append((arm[0], report.words(metric), *self.gap(task, metric, arm, other)[:3]))
        return pd.DataFrame(rows, columns=["arm", "metric", "mean", "low", "high"])

    def swapped(
        self, task: str, metric: str, arm: Arm, pairs: Sequence[tuple[str, str]]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Whether an image of a class in a pair is taken for its partner: (seeds, images), 0 or 1.

        The second array is the class of these images.
        """
        names = tables.benchmark(self.w, task).classes
        ends = [[names.index(name) for name in pair] for pair in pairs]
        partner = np.full(len(names), -1)
        for first, second in ends:
            partner[[first, second]] = second, first
        labels = self.labels(task)
        paired = partner[labels] >= 0
        return (self.answers(task, metric, arm) == partner[labels])[:, paired], labels[paired]

    def slope(self, task: str, metric: str, source: str) -> Estimate:
        """Points per doubling of a source's images, over the top decade of its sizes."""
        sizes = self.decade(task, source)
        x = np.log2(sizes) - np.log2(sizes).mean()
        hits = [self.hits(task, metric, (source, n)) for n in sizes]
        weighted = sum(100 * c * h for c, h in zip(x / (x**2).sum(), hits, strict=True))
        return inference.crossed(np.asarray(weighted), self.labels(task))

    def sloped(self, task: str, metric: str, source: str) -> Cell:
        """``slope`` as a cell of a claim."""
        return Cell(f"{task}, {report.words(metric)}: {source}", self.slope(task, metric, source))

    def near(self, task: str, metric: str, margin: float, *arms: Arm) -> bool:
        """Whether all arms are within ``margin`` points of chance, or of the ceiling."""
        chance = 100 / len(tables.benchmark(self.w, task).classes)
        means = np.array([100 * self.hits(task, metric, arm).mean() for arm in arms])
        return bool((means < chance + margin).all() or (means > 100 - margin).all())

    def cell(self, task: str, metric: str, arm: Arm, other: Arm, margin: float) -> Cell:
        """``gap`` as a cell of a claim with this margin."""
        name = f"{task}, {report.words(metric)}: {arm[0]} {arm[1]} - {other[0]} {other[1]}"
        floor = self.near(task, metric, margin, arm, other)
        return Cell(name, self.gap(task, metric, arm, other), floor)

    def matched(self, task: str) -> dict[str, Cell]:
        """UP12, UP13: retrieved images where their probe is as good as that of most synthetic ones.

        Their zero-shot accuracy there, minus the synthetic one's; and how many times more are
        synthetic, as log2. Both curves are linear in log2 n. Not testable where they do not meet.
        """
        sizes = self.sizes(task, "retrieved")
        most = self.sizes(task, "synthetic")[-1]
        x = np.log2(sizes)
        real = [np.stack([self.hits(task, m, ("retrieved", n)) for n in sizes]) for m in METRICS]
        arrays = [*real, *(self.hits(task, m, ("synthetic", most)) for m in METRICS)]

        def doublings(_zero: Any, probe: Any, _zero_drawn: Any, probe_drawn: Any) -> float:
            return np.log2(most) - crossing(x, probe.mean((1, 2)), probe_drawn.mean())

        def ahead(zero: Any, probe: Any, zero_drawn: Any, probe_drawn: Any) -> float:
            at = crossing(x, probe.mean((1, 2)), probe_drawn.mean())
            return 100 * (np.interp(at, x, zero.mean((1, 2))) - zero_drawn.mean())

        cells = {}
        for claim, statistic in {"UP12": ahead, "UP13": doublings}.items():
            rng = randomness.rng(self.w, "matched", claim)
            found = inference.pigeonhole(statistic, arrays, self.labels(task), rng, 200)
            cells[claim] = Cell(task, found, not np.isfinite(found.value))
        return cells


def crossing(x: np.ndarray, curve: np.ndarray, level: float) -> float:
    """Where a curve, linear between its points, first rises to ``level``; nan where it does not."""
    above = np.flatnonzero(curve >= level)
    if not len(above) or above[0] == 0:
        return np.nan
    i = above[0]
    return float(np.interp(level, curve[i - 1 : i + 1], x[i - 1 : i + 1]))


def fidelity_gap(fidelity: pd.DataFrame, axles: pd.Series) -> Estimate:
    """Images with the right axles, retrieved minus synthetic, in points, where there are several.

    ``fidelity`` counts, per source and class; classes are fixed, and count alike.
    """
    several = fidelity[(fidelity["attribute"] == "axles") & (fidelity["class"].map(axles) > 1)]
    wide = several.pivot(index="class", columns="source", values=["correct", "images"])
    share = (wide["correct"] / wide["images"])[list(SOURCES)].dropna()
    images = wide["images"].loc[share.index, list(SOURCES)]
    variance = (share * (1 - share) / (images - 1)).to_numpy().sum() / len(share) ** 2
    value = 100 * float((share["retrieved"] - share["synthetic"]).mean())
    df = float(images.to_numpy().sum())
    return inference.around(value, 100 * variance**0.5, df, 1, 1e4 * variance)


def superiority(w: World) -> Estimate:
    """P(CLIP score of a synthetic image > that of a retrieved one of its class) - 0.5.

    Mean over classes, then tasks; images are random (DeLong's variance), classes are fixed.
    """
    from scipy.stats import rankdata

    rows = []
    for task in w.tasks:
        facts = [tables.source_set(w, task, source).facts for source in SOURCES]
        real, drawn = (dict(iter(table.groupby("label")["score"])) for table in facts)
        for label in real.keys() & drawn.keys():
            parts = drawn[label], real[label]
            ranks = np.split(rankdata(np.r_[parts]), [len(parts[0])])
            # of every image the share of the other source's that lie below it
            below = [
                (r - rankdata(p)) / len(q)
                for r, p, q in zip(ranks, parts, parts[::-1], strict=True)
            ]
            variance = sum(share.var(ddof=1) / len(share) for share in below)
            rows.append((task, below[0].mean() - 0.5, variance, len(parts[0]) + len(parts[1])))
    table = pd.DataFrame(rows, columns=["task", "value", "variance", "images"]).groupby("task")
    variance = float((table["variance"].mean() / table.size()).sum()) / len(table) ** 2
    df = float(table["images"].sum().sum())
    return inference.around(float(table["value"].mean().mean()), variance**0.5, df, 1, variance)
