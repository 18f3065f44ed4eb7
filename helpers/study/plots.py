"""Plots that one notebook draws; nothing that is built depends on them."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from helpers.data import tables
from helpers.engine.figures import COLOURS, SOURCES, size_axis
from helpers.measure.inference import interval
from helpers.study import robustness
from helpers.worlds import World


def gear_box(
    image: np.ndarray, gear: tuple[float, float], width: float = 0.42
) -> tuple[float, float, float, float]:
    """Where the main gear stands in a side view of an aircraft: a box (x0, y0, x1, y1 as shares) for ``with_inset``.

    ``gear``: from the first to the last wheel, as shares of the side from the middle, with the nose to the left. Aircraft face
    either way and stand a little aside; so, of the stretches as long as the gear that are near its place in one of the two
    directions, the one in which the line of the wheels is darkest is put into the middle of a box of ``width``.
    """
    n, (first, last) = len(image), gear
    line = image[round(0.7 * n) : round(0.82 * n)].mean(2)
    dark = np.maximum(np.median(line, 1, keepdims=True) - line, 0).sum(0)
    span = max(1, round((last - first) * n))
    found = np.convolve(dark, np.ones(span), "valid")
    middle = (np.arange(len(found)) + span / 2) / n - 0.5
    near = (
        np.abs(np.abs(middle) - abs(first + last) / 2) <= 0.07
    )  # as far aside as the renderer puts them
    pixels, middle = (
        round(width * n),
        0.5 + middle[near][found[near].argmax()],
    )  # whole pixels, so that all boxes are of one size
    left = int(np.clip(round(middle * n - pixels / 2), 0, n - pixels))
    return left / n, 0.62, (left + pixels) / n, 0.84


def with_inset(
    image: np.ndarray, box: tuple[float, float, float, float], side: int = 448
) -> np.ndarray:
    """An image enlarged to ``side`` pixels, with the part in ``box`` (x0, y0, x1, y1 as shares) enlarged below it."""
    from PIL import Image

    n = len(image)
    x0, y0, x1, y1 = (round(b * n) for b in box)
    height = round(side * (y1 - y0) / max(x1 - x0, 1))
    whole = np.asarray(Image.fromarray(image).resize((side, side), Image.Resampling.NEAREST))
    part = np.asarray(
        Image.fromarray(image[y0:y1, x0:x1]).resize((side, height), Image.Resampling.NEAREST)
    )
    return np.concatenate([whole, np.full((side // 48, side, 3), 255, np.uint8), part])


def band(
    ax,
    table: pd.DataFrame,
    x: str,
    y: str,
    colour: str,
    label: str | None = None,
    within=(0, 1),
    **line,
) -> None:
    """Mean over seeds of ``y`` against ``x``, with its 95 % interval, as far as ``within`` bounds (those of an accuracy), as a band."""
    rows = pd.DataFrame(
        [(v, *interval(part[y])) for v, part in table.groupby(x)],
        columns=[x, "mean", "low", "high"],
    )
    rows[["low", "high"]] = rows[["low", "high"]].clip(*within)
    ax.plot(rows[x], rows["mean"], marker="o", color=colour, label=label, **line)
    ax.fill_between(rows[x], rows["low"], rows["high"], color=colour, alpha=0.18, linewidth=0)


def power_law(
    ax,
    table: pd.DataFrame,
    low: int,
    high: int,
    k: float,
    b: float,
    colour: str,
    label: str | None = None,
    **line,
) -> None:
    """Loss against n on two logarithmic axes: means over seeds with 95 % intervals, and the law exp(b) n^-k where it was fitted.

    ``table`` has ``n`` and ``loss``, one row per run. Sizes outside ``low`` to ``high`` did not take part: their points are hollow.
    """
    rows = np.array(
        [(n, *np.exp(interval(np.log(part["loss"])))) for n, part in table.groupby("n")]
    )
    inside = (rows[:, 0] >= low) & (rows[:, 0] <= high)
    for chosen, face, text in ((inside, colour, label), (~inside, "white", None)):
        n, mean, below, above = rows[chosen].T
        ax.errorbar(
            n,
            mean,
            [mean - below, above - mean],
            fmt=line.get("marker", "o"),
            color=colour,
            mfc=face,
            ms=5,
            lw=1,
            label=text,
        )
    ends = np.array([max(low, rows[inside, 0].min()), rows[inside, 0].max()])
    ax.plot(
        ends,
        np.exp(b) * ends**-k,
        color=colour,
        lw=1.3,
        **{k: v for k, v in line.items() if k != "marker"},
    )
    ax.set_yscale("log")
    ax.yaxis.set_major_formatter("{x:.3g}"), ax.yaxis.set_minor_formatter("{x:.3g}")


def published(ax, table: pd.DataFrame, group: str, y: str, what: str = "") -> None:
    """Published points, ``n`` against ``y``, one grey dotted line per value of ``group``, with ticks at their ends; none for no rows."""
    for marker, (name, part) in zip("*PXv", table.groupby(group), strict=False):
        ax.plot(
            part["n"],
            part[y],
            marker + ":",
            color="0.5",
            mfc="white",
            ms=8,
            lw=1,
            label=f"PUBLISHED, ImageNet: {what}{name}",
        )
    if len(table):
        size_axis(ax, [*ax.get_xticks(), table["n"].min(), table["n"].max()])


def slopes(table: pd.DataFrame, columns: dict[str, str]):
    """One panel per column (name -> title), a line per ``class`` from the pool where it was not ``thinned`` to the one where it was.

    Classes that no pool thins are grey, from the first ``pool`` to the second.
    """
    fig, axes = plt.subplots(
        1, len(columns), figsize=(3.3 * len(columns), 4), layout="constrained", squeeze=False
    )
    for ax, (column, title) in zip(axes[0], columns.items(), strict=True):
        for _, part in table.sort_values(["thinned", "pool"]).groupby("class"):
            chosen = part["thinned"].any()
            ax.plot(
                [0, 1],
                part[column],
                marker="o",
                ms=5 if chosen else 3,
                zorder=2 if chosen else 1,
                lw=1.6 if chosen else 1,
                color=COLOURS["synthetic"] if chosen else "0.8",
            )
        above, gap = -np.inf, np.ptp(table[column]) / 24  # so far apart are labels
        for name, y in (
            table[table["thinned"]]
            .sort_values(column)[["class", column]]
            .itertuples(index=False, name=None)
        ):
            above = max(y, above + gap)
            ax.annotate(
                name,
                (1.04, y),
                (1.15, above),
                va="center",
                fontsize=7,
                arrowprops={"arrowstyle": "-", "color": "0.7", "lw": 0.6},
            )
        ax.set_xticks([0, 1], ["not thinned", "thinned"])
        ax.set(title=title, xlim=(-0.15, 1.85))
    return fig


def models(w: World, results: pd.DataFrame) -> str:
    """What was probed, in a sentence."""
    bench, n = (
        tables.benchmark(w, robustness.task(w)),
        len(results.drop_duplicates(robustness.MODEL)),
    )
    if w.robustness.checkpoints:
        named = "; ".join(
            f"{family}, {labels(w)[source]}: {name}"
            for family, source, name in w.robustness.checkpoints
        )
        return f"{n} finished checkpoints, probed on {bench.task} ({len(bench.classes)} classes). {named}."
    return (
        f"{n} models of {bench.task} ({len(bench.classes)} classes), each trained on {results['n'].max()} images for "
        f"{w.robustness.steps} updates, and smaller ones for two ablations."
    )


def labels(w: World) -> dict[str, str]:
    """What figures call the sources; a finished checkpoint's real images were not retrieved in this study."""

    return {**SOURCES, **({"retrieved": "real"} if w.robustness.checkpoints else {})}
