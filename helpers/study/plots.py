"""Plots that one notebook draws, and tables of `desk` behind them; nothing built depends on it."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.transforms import blended_transform_factory

from helpers import worlds
from helpers.engine import places
from helpers.engine.figures import COLOURS
from helpers.measure.inference import EQUIVALENT, FLOOR, HOLDS, REVERSED, UNDECIDED
from helpers.worlds import World

Box = tuple[float, float, float, float]  # x0, y0, x1, y1 as shares of an image's side
# How claims are drawn: colour and marker of every verdict.
VERDICTS = {HOLDS: ("#332288", "o"), REVERSED: ("#882255", "X"), EQUIVALENT: ("#8a6d3b", "s")}
VERDICTS |= {UNDECIDED: ("0.45", "D"), FLOOR: ("0.45", "")}
TICKS = (-30, -10, -3, -1, 0, 1, 3, 10, 30)  # estimates of claims, in margins
AXIS = "estimate and 95 % interval in margins, claim's side right"
BELOW = (
    "grey: inside the margin, where a difference is called equivalent; violet: where the claim\n"
    "holds if all of the interval lies there; hollow: undecided, or so once corrected"
)


def panels(
    count: int, width: float, height: float, columns: int = 0, **options: Any
) -> tuple[Figure, np.ndarray]:
    """A figure of ``count`` panels, ``width`` x ``height`` inches, in a row or in columns."""
    shape = (-(-count // (columns or count)), columns or count)
    options |= {"figsize": (max(width * shape[1], 6), height * shape[0])}
    fig, axes = plt.subplots(*shape, layout="constrained", squeeze=False, **options)
    for ax in axes.flat[count:]:
        ax.set_visible(False)
    plt.close(fig)  # a notebook shows it where it is saved, and not here as well
    return fig, axes.flat[:count]


def legend_of(axes: np.ndarray) -> tuple[list, list[str]]:
    """Handles and labels of all panels, each label once: for a legend of the whole figure."""
    handles: dict = {}
    for ax in np.ravel(axes):
        for handle, label in zip(*ax.get_legend_handles_labels(), strict=True):
            handles.setdefault(label, handle)
    return list(handles.values()), list(handles)


def concept(pool: Sequence[tuple[np.ndarray, str]], images: Mapping[str, np.ndarray]) -> Figure:
    """The study at a glance: from a pool's pairs by way of two sources' ``images`` to the test."""
    fig, ax = plt.subplots(figsize=(10, 3.7), layout="constrained")
    ax.set(xlim=(0, 10), ylim=(0.5, 4.2), aspect="equal")
    ax.set_axis_off()

    def pictures(shown: Iterable, x: float, y: float, colour: str, aside: float, up: float) -> None:
        for i, image in enumerate(shown):
            left, low = x + i * aside, y + i * up
            ax.imshow(image, extent=(left, left + 0.74, low, low + 0.74), zorder=2)
            ax.add_patch(plt.Rectangle((left, low), 0.74, 0.74, fill=False, ec=colour, lw=3))

    def box(x: float, y: float, text: str, colour: str) -> None:
        frame = {"boxstyle": "round,pad=0.45", "fc": "white", "ec": colour, "lw": 2}
        ax.text(x, y, text, ha="center", va="center", fontsize=12.5, bbox=frame, zorder=3)

    def arrow(start: tuple[float, float], end: tuple[float, float], colour: str) -> None:
        style = {"arrowstyle": "-|>", "mutation_scale": 20, "lw": 2.5, "color": colour}
        ax.annotate("", end, start, arrowprops=style)

    pictures([image for image, _ in pool], 0.05, 2.6, "0.35", 0, -0.98)
    for i, (_, caption) in enumerate(pool):
        lines = textwrap.fill(f'"{textwrap.shorten(caption, 50)}"', 15)
        ax.text(0.87, 2.97 - 0.98 * i, lines, fontsize=9.5, va="center", style="italic")
    bold: dict[str, Any] = {"fontsize": 13, "weight": "bold"}
    ax.text(0.05, 3.6, "one pool of image-text pairs", **bold)
    ways = {"synthetic": "generator\ntrained on it", "retrieved": "retriever\nsearches it"}
    for y, (source, text) in zip((2.97, 1.01), ways.items(), strict=True):
        colour = COLOURS[source]
        arrow((2.2, 1.99), (2.75, y), colour)
        box(3.4, y, text, colour)
        arrow((4.1, y), (4.5, y), colour)
        pictures(images[source], 4.55, y - 0.37, colour, 0.8, 0)
        ax.text(4.55, y + 0.5, f"{source} images", color=colour, **bold)
        arrow((7, y), (7.35, 1.99 + 0.2 * np.sign(y - 1.99)), colour)
    box(7.95, 1.99, "finetune\nthe same\nCLIP", "0.35")
    gold = COLOURS["ground_truth"]
    arrow((8.5, 1.99), (9.1, 1.99), gold)
    pictures(images["ground_truth"], 9.2, 2.6, gold, 0, -0.98)
    ax.text(9.98, 3.6, "tested on\ntest images", color=gold, ha="right", **bold)
    return fig


def size_axis(ax: Axes, sizes: Sequence[float]) -> None:
    """A logarithmic x axis for numbers of images, with a tick at each of ``sizes``."""
    labels = [f"{n:,.0f}" if n < 10**6 else f"{n / 10**6:,.0f} M" for n in sizes]
    ax.set_xscale("log", base=2)
    ax.set_xticks(list(sizes), labels)


def gear_box(image: np.ndarray, gear: tuple[float, float], width: float = 0.42) -> Box:
    """A box of ``width`` around the main gear in a side view of an aircraft, for ``with_inset``.

    ``gear``: first and last wheel, as shares of the side from the middle, nose to the left. Of all
    stretches that may hold it, whichever way the aircraft faces, the darkest is in the middle.
    """
    side = len(image)
    first, last = gear
    line = image[round(0.7 * side) : round(0.82 * side)].mean(2)
    darkness = np.maximum(np.median(line, 1, keepdims=True) - line, 0).sum(0)
    span = max(1, round((last - first) * side))
    of_stretch = np.convolve(darkness, np.ones(span), "valid")
    middle = (np.arange(len(of_stretch)) + span / 2) / side - 0.5
    near = np.abs(np.abs(middle) - abs(first + last) / 2) <= 0.07  # as the renderer puts them
    gear_middle = 0.5 + middle[near][of_stretch[near].argmax()]
    pixels = round(width * side)  # whole pixels, so that all boxes are of one size
    left = int(np.clip(round(gear_middle * side - pixels / 2), 0, side - pixels))
    return left / side, 0.62, (left + pixels) / side, 0.84


def with_inset(image: np.ndarray, box: Box, side: int = 448) -> np.ndarray:
    """An image enlarged to ``side`` pixels, with the part in ``box`` enlarged below it."""
    from PIL import Image

    picture = Image.fromarray(image)
    x0, y0, x1, y1 = (round(share * len(image)) for share in box)
    height = round(side * (y1 - y0) / max(x1 - x0, 1))
    whole = picture.resize((side, side), Image.Resampling.NEAREST)
    part = picture.resize((side, height), Image.Resampling.NEAREST, (x0, y0, x1, y1))
    gap = np.full((side // 48, side, 3), 255, np.uint8)
    return np.concatenate([whole, gap, part])


def dotted(ax: Axes, runs: pd.DataFrame, x: str, y: str, colour: str, label: str = "") -> None:
    """Every run's ``y`` against ``x`` as a small dot, and a line through the means."""
    mean = runs.groupby(x)[y].mean()
    ax.plot(runs[x], runs[y], ".", color=colour, ms=6, alpha=0.5, zorder=2)
    ax.plot(mean.index, mean, color=colour, lw=2, label=label)


def differences(ax: Axes, rows: pd.DataFrame, x: str, colour: str, label: str = "") -> None:
    """Differences against ``x``: ``mean`` with its interval, ``low`` to ``high``, around zero."""
    reach = [rows["mean"] - rows["low"], rows["high"] - rows["mean"]]
    ax.axhline(0, color="0.4", lw=1)
    ax.errorbar(rows[x], rows["mean"], reach, fmt="o", ms=5, lw=1.5, color=colour, label=label)


def desk(w: World, name: str) -> pd.DataFrame:
    """A figure's table as `desk` committed it; no rows for worlds of other models or pools."""
    other = worlds.DESK
    file = places.TOP / "figures" / other.name / f"{name}.csv"
    alike = (w.backend, w.pool.upstream) == (other.backend, other.pool.upstream)
    if alike and w.name != other.name and file.exists():
        return pd.read_csv(file)
    return pd.DataFrame(columns=["task", "source", "n", "seed", "metric", "accuracy"])


def pale(ax: Axes, table: pd.DataFrame, of: Mapping[str, str], colour: str) -> None:
    """Means of ``accuracy`` by n of the rows that are as ``of`` says: another world's, behind."""
    part = table[(table[list(of)] == pd.Series(of)).all(axis=1)].groupby("n")["accuracy"].mean()
    ax.plot(part.index, part, color=colour, lw=5, alpha=0.25, zorder=0, solid_capstyle="round")


def published(ax: Axes, table: pd.DataFrame, group: str, y: str, what: str = "") -> None:
    """Published points, if any: ``n`` against ``y``, one grey dotted line per ``group``."""
    style: dict[str, Any] = {"color": "0.5", "mfc": "white", "ms": 8, "lw": 1}
    for marker, (name, part) in zip("*PXv", table.groupby(group), strict=False):
        label = f"PUBLISHED, ImageNet: {what}{name}"
        ax.plot(part["n"], part[y], marker + ":", label=label, **style)
    if len(table):
        size_axis(ax, [*ax.get_xticks(), table["n"].min(), table["n"].max()])


def gain_map(ax: Axes, table: pd.DataFrame) -> None:
    """Gains (``value``, points) by ``retrieved`` (rows) and ``synthetic`` images, and ``verdict``:
    helps, hurts, same or open. A line borders what helps.
    """
    wide = table.pivot(index="retrieved", columns="synthetic", values="value")
    words = table.pivot(index="retrieved", columns="synthetic", values="verdict")
    style: dict[str, Any] = {"cmap": "BrBG", "vmin": -10, "vmax": 10, "cbar": False}
    sns.heatmap(wide, annot=wide.map("{:+.1f}\n".format) + words, fmt="", ax=ax, **style)
    helps = words.to_numpy() == "helps"
    for i, j in np.argwhere(helps[:, 1:] != helps[:, :-1]):
        ax.plot([j + 1, j + 1], [i, i + 1], color="k", lw=3)
    for i, j in np.argwhere(helps[1:] != helps[:-1]):
        ax.plot([j, j + 1], [i + 1, i + 1], color="k", lw=3)
    ax.set(xlabel="synthetic images", ylabel="retrieved images")


def claims(table: pd.DataFrame, paper: str) -> tuple[Figure, str]:
    """The claims of a ``paper`` in a table by ``decide``; a sentence on those left out, if any.

    Intervals are in margins, linear inside and logarithmic beyond, the claim's side to the right.
    """
    of_paper = table[table["paper"] == paper]
    rows = of_paper[of_paper["p"].notna()]
    turned = np.where(rows["sign"] == "-", -1, 1) / rows["margin"]
    ends = rows[["value", "low", "high"]].mul(turned, axis=0).clip(TICKS[0], TICKS[-1]).to_numpy()
    reach = 1.15 * np.nanmax(np.abs(ends), initial=3)
    height = 0.4 * len(rows) + 1
    fig, ax = plt.subplots(figsize=(10, height))
    fig.subplots_adjust(left=0.385, right=0.845, top=1 - 0.05 / height, bottom=0.88 / height)
    ax.axvspan(-1, 1, color="0.92", zorder=0)
    ax.axvline(0, color="0.4", lw=0.8, zorder=1)
    goals = {"+": (0, reach), "-": (0, reach), "0": (-1, 1), "noninferior": (-1, reach)}
    beside = blended_transform_factory(fig.transFigure, ax.transData)
    text: dict[str, Any] = {"transform": beside, "va": "center", "fontsize": 8}
    for y, (row, (value, *between)) in enumerate(zip(rows.to_dict("records"), ends, strict=True)):
        colour, marker = VERDICTS[row["verdict"]]
        low, high = goals[row["sign"]]
        ax.barh(y, high - low, 0.72, low, color=VERDICTS[HOLDS][0], alpha=0.09, lw=0, zorder=0)
        if marker and np.isfinite(value):
            stands = row["corrected"] == row["verdict"] != UNDECIDED
            ax.plot(between, [y, y], color=colour, lw=1.6)
            ax.plot(value, y, marker, color=colour, mfc=colour if stands else "white", ms=7)
        lacking = ": " + row["reason"].split(";")[0] if row["verdict"] == UNDECIDED else ""
        lacking += "; corrected: open" * (row["corrected"] != row["verdict"])
        short = (row["verdict"] + lacking).removesuffix(" in this world")
        ax.text(0.85, y, short, color=colour, **text)
        name = textwrap.fill(f"{row['id']}   {row['claim']}", 62, break_on_hyphens=False)
        ax.text(0.005, y, name, linespacing=1.1, **text)
    ax.spines["left"].set_visible(False)
    ax.set_xscale("symlog", linthresh=1, linscale=0.8)
    ax.set_xticks(TICKS, [f"{tick:+d}" if tick else "0" for tick in TICKS])
    ax.set(yticks=[], ylim=(len(rows) - 0.4, -0.6), xlim=(-reach, reach), xlabel=AXIS)
    fig.text(0.605, 0.02 / height, BELOW, ha="center", fontsize=8.2)
    left_out = of_paper[of_paper["p"].isna()]
    reasons = "; ".join(f"{row.id}: {row.reason}" for row in left_out.itertuples())
    return fig, f"Not drawn, as not testable here: {reasons}." if reasons else ""
