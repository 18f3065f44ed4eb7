"""What notebooks 04 and 05 read off finished runs: contrasts over seeds and test images.

No builder imports this. Arms are paired by seed and by test image; a difference is in points.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from helpers.data import tables
from helpers.engine import randomness, report
from helpers.measure import inference
from helpers.measure.inference import Cell, Estimate
from helpers.study.finetune import METRICS
from helpers.study.runs import unpacked
from helpers.worlds import World

Arm = tuple[str, int]  # source or arm of an ablation, and its number of images
CLIP: Arm = ("clip", 0)
DECADE = 10  # slopes, and "never hurts", are asked for from a tenth of the largest size up [P]


@dataclass(frozen=True, eq=False)
class Runs:
    """Results of notebooks 04 and 05 (tables of ``finetune.by_metric``) of a world."""

    w: World
    results: pd.DataFrame

    @functools.cached_property
    def known(self) -> dict:
        """The rows in order of seeds, by task, source, n and metric."""
        rows = self.results.sort_values("seed")
        return dict(iter(rows.groupby(["task", "source", "n", "metric"])))

    def labels(self, task: str) -> np.ndarray:
        """The class of each test image."""
        return tables.benchmark(self.w, task).test.labels

    def answers(self, task: str, metric: str, arm: Arm) -> np.ndarray:
        """The class that each run of an arm sees in each test image: (seeds, images)."""
        return np.stack([unpacked(x) for x in self.known[task, *arm, metric]["answers"]])

    @functools.lru_cache(maxsize=128)  # noqa: B019 - one instance a notebook
    def hits(self, task: str, metric: str, arm: Arm) -> np.ndarray:
        """Whether each run of an arm is right about each test image: (seeds, images) 0 or 1."""
        return (self.answers(task, metric, arm) == self.labels(task)).astype(np.float32)

    def sizes(self, task: str, *sources: str) -> list[int]:
        """The sizes at which all of the sources were trained on, in order."""
        found = [{n for t, s, n, _ in self.known if (t, s) == (task, source)} for source in sources]
        return sorted(set.intersection(*found))

    def decade(self, task: str, source: str) -> list[int]:
        """The sizes of a source's top decade."""
        sizes = self.sizes(task, source)
        return [n for n in sizes if n >= sizes[-1] / DECADE]

    def ends(self, task: str) -> tuple[Arm, Arm, Arm]:
        """The largest retrieved arm, the largest synthetic one, and one as large as the first.

        The first is no larger than synthetic images allow.
        """
        common = self.sizes(task, "retrieved", "synthetic")[-1]
        most = self.sizes(task, "synthetic")[-1]
        return ("retrieved", common), ("synthetic", most), ("synthetic", common)

    def gap(self, task: str, metric: str, arm: Arm, other: Arm) -> Estimate:
        """The first arm minus the second, in points.

        Between equally large arms the variance over seeds is pooled with that at other sizes. Of
        probes on few labels no answers are kept: their interval is over seeds alone.
        """
        if metric not in METRICS:
            one, two = (self.known[task, *a, metric]["accuracy"].to_numpy() for a in (arm, other))
            change = 100 * (one - two)
            error = change.std(ddof=1) / len(change) ** 0.5 if len(change) > 1 else np.inf
            return inference.around(change.mean(), error, len(change) - 1, len(change))
        pairs = [(arm, other)]
        if arm[1] == other[1]:
            further = [n for n in self.sizes(task, arm[0], other[0]) if n != arm[1]]
            pairs += [((arm[0], n), (other[0], n)) for n in further]
        hits = functools.partial(self.hits, task, metric)
        changes = [100 * (hits(one) - hits(two)) for one, two in pairs]
        means = [change.mean(1) for change in changes[1:]]
        return inference.crossed(changes[0], self.labels(task), means)

    def table(self, asked: Iterable[tuple[str, str, Arm, Arm | None]]) -> pd.DataFrame:
        """Accuracies (0..1) of arms, or ``gap`` to another arm (points), a row for each.

        ``asked``: task, metric, arm and the other or None. Columns ``task, metric, source, n, mean,
        low, high``.
        """
        rows = []
        for task, metric, arm, other in asked:
            if other:
                found = self.gap(task, metric, arm, other)
            else:
                found = inference.crossed(self.hits(task, metric, arm), self.labels(task))
            rows.append((task, metric, *arm, *found[:3]))
        columns = ["task", "metric", "source", "n", "mean", "low", "high"]
        return pd.DataFrame(rows, columns=columns)

    def levels(self) -> pd.DataFrame:
        """``table`` of all arms."""
        arms = [(task, m, (source, n), None) for task, source, n, m in self.known if m in METRICS]
        return self.table(arms)

    def slope(self, task: str, metric: str, source: str) -> Cell:
        """Points per doubling of a source's images, over the top decade of its sizes."""
        sizes = self.decade(task, source)
        alone = [((source, n), None) for n in sizes]
        return Cell(f"{task}, {source}", self.trend(task, metric, sizes, alone))

    def trend(self, task: str, metric: str, numbers: Sequence, pairs: Sequence) -> Estimate:
        """Points per doubling of ``numbers`` that pairs' first arms gain on the others, if any."""
        x = np.log2(numbers) - np.log2(numbers).mean()
        hits = [[0 if a is None else self.hits(task, metric, a) for a in pair] for pair in pairs]
        weighted = np.tensordot(100 * x / (x**2).sum(), [one - two for one, two in hits], 1)
        return inference.crossed(weighted, self.labels(task))

    def cell(
        self, task: str, metric: str, arm: Arm, other: Arm, margin: float, gained: bool = False
    ) -> Cell:
        """``gap`` as a cell of a claim with this margin; at the floor near chance or ceiling.

        With ``gained``, as ablations want it, also where both arms are near the unadapted CLIP:
        what neither has learned cannot differ.
        """
        chance = 100 / len(tables.benchmark(self.w, task).classes)
        *means, base = (100 * self.hits(task, metric, a).mean() for a in (arm, other, CLIP))
        floor = max(means) < chance + margin or min(means) > 100 - margin
        idle = gained and max(abs(mean - base) for mean in means) < margin
        name = f"{task}, {report.words(metric)}: {told(arm)} minus {told(other)}"
        return Cell(name, self.gap(task, metric, arm, other), bool(floor or idle))

    def stacked(self, task: str, metric: str, source: str) -> np.ndarray:
        """``hits`` at all sizes of a source: (sizes, seeds, images)."""
        return np.stack([self.hits(task, metric, (source, n)) for n in self.sizes(task, source)])

    def exchange(self, task: str, metric: str, arm: Arm, source: str) -> Estimate:
        """log2 of how many images of ``source`` are worth one image of an arm, by whole curves.

        The curve is linear in log2 n; nan where it does not rise to the arm's accuracy.
        """
        x = np.log2(self.sizes(task, source))
        arrays = [self.stacked(task, metric, source), self.hits(task, metric, arm)]
        return self.resampled(
            lambda curve, level: crossing(x, curve, level) - np.log2(arm[1]), task, arrays
        )

    def resampled(self, statistic: Callable, task: str, arrays: Sequence[np.ndarray]) -> Estimate:
        """``statistic`` of the mean hits of arrays (..., seeds, images), resampled at once."""
        rng = randomness.rng(self.w, "resampled", task)
        return inference.pigeonhole(statistic, arrays, self.labels(task), rng, 200)


def told(arm: Arm) -> str:
    """An arm in words: "3,840 retrieved", "480 redrawn at 0.1", "960 + 960 at equal epochs"."""
    source, n = arm
    if arm == CLIP:
        return "unadapted CLIP"
    if " " in source:  # a mix of notebook 08, which says its numbers
        return source
    kind, _, how = source.partition("-")
    said = {"sdedit": f"redrawn at {how}", "captions": f"synthetic, generator {how}"}
    said |= {"alt": "from alt texts", "templates": "from templates"}
    if kind == "mixed":
        both, _, equal = how.partition("-")
        parts = " + ".join(f"{int(part):,}" for part in both.split("+"))
        return f"{parts} at {equal.replace('-', ' ').replace('steps', 'updates')}"
    return f"{n:,} {said.get(kind, source)}"


@functools.partial(np.vectorize, otypes=[float], excluded=(0, 1))
def crossing(x: np.ndarray, curve: np.ndarray, level: float) -> float:
    """Where a curve, linear between its points, first rises to a level, or each; nan if never."""
    above = np.flatnonzero(curve >= level)
    if not len(above) or above[0] == 0:
        return np.nan
    ends = slice(above[0] - 1, above[0] + 1)
    return float(np.interp(level, curve[ends], x[ends]))
