"""Plots that one notebook draws; nothing that is built depends on them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from helpers.engine.figures import COLOURS
from helpers.study import readings

Box = tuple[float, float, float, float]  # x0, y0, x1, y1 as shares of an image's side
Bounds = tuple[float | None, float | None]


def panels(count: int, width: float, height: float, **options: Any) -> tuple[Figure, np.ndarray]:
    """A figure with ``count`` panels in a row, ``width`` x ``height`` inches each, and its axes."""
    size = (max(width * count, 6), height)
    fig, axes = plt.subplots(1, count, figsize=size, layout="constrained", squeeze=False, **options)
    return fig, axes[0]


def legend_of(axes: np.ndarray) -> tuple[list, list[str]]:
    """Handles and labels of all panels, each label once: for a legend of the whole figure."""
    handles: dict = {}
    for ax in np.ravel(axes):
        for handle, label in zip(*ax.get_legend_handles_labels(), strict=True):
            handles.setdefault(label, handle)
    return list(handles.values()), list(handles)


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
    # As far aside as the renderer puts them.
    near = np.abs(np.abs(middle) - abs(first + last) / 2) <= 0.07
    gear_middle = 0.5 + middle[near][of_stretch[near].argmax()]
    pixels = round(width * side)  # whole pixels, so that all boxes are of one size
    left = int(np.clip(round(gear_middle * side - pixels / 2), 0, side - pixels))
    return left / side, 0.62, (left + pixels) / side, 0.84


def with_inset(image: np.ndarray, box: Box, side: int = 448) -> np.ndarray:
    """An image enlarged to ``side`` pixels, with the part in ``box`` enlarged below it."""
    from PIL import Image

    def enlarged(part: np.ndarray, height: int) -> np.ndarray:
        picture = Image.fromarray(part)
        return np.asarray(picture.resize((side, height), Image.Resampling.NEAREST))

    x0, y0, x1, y1 = (round(share * len(image)) for share in box)
    height = round(side * (y1 - y0) / max(x1 - x0, 1))
    gap = np.full((side // 48, side, 3), 255, np.uint8)
    return np.concatenate([enlarged(image, side), gap, enlarged(image[y0:y1, x0:x1], height)])


def band(
    ax: Axes, table: pd.DataFrame, x: str, y: str, colour: str, label: str, within: Bounds = (0, 1)
) -> None:
    """Mean over seeds of ``y`` against ``x``, its 95 % interval as a band inside ``within``."""
    ribbon(ax, readings.over_seeds(table, [x], y), x, colour, label, within)


def ribbon(
    ax: Axes, rows: pd.DataFrame, x: str, colour: str, label: str, within: Bounds = (0, 1)
) -> None:
    """``mean`` against ``x``, with ``low`` to ``high`` as a band inside ``within``."""
    rows = rows.assign(low=rows["low"].clip(*within), high=rows["high"].clip(*within))
    ax.plot(rows[x], rows["mean"], marker="o", color=colour, label=label)
    ax.fill_between(rows[x], rows["low"], rows["high"], color=colour, alpha=0.18, linewidth=0)


def power_law(ax: Axes, rows: pd.DataFrame, law: Mapping, colour: str, label: str) -> None:
    """A measure against n on logarithmic axes: means with intervals, and a fitted law.

    ``rows`` have ``n, mean, low, high``; ``law`` has ``k, b, n_min, n_max``: exp(b) n^-k in that
    range. Sizes out of it are hollow.
    """
    inside = rows["n"].between(law["n_min"], law["n_max"])
    style: dict[str, Any] = {"fmt": "o", "color": colour, "ms": 5, "lw": 1}
    for chosen, face, text in ((inside, colour, label), (~inside, "white", None)):
        part = rows[chosen]
        bars = np.array([part["mean"] - part["low"].clip(lower=0), part["high"] - part["mean"]])
        ax.errorbar(part["n"], part["mean"], bars, mfc=face, label=text, **style)
    ends = np.array([law["n_min"], law["n_max"]], float)
    ax.plot(ends, np.exp(law["b"]) * ends ** -law["k"], color=colour, lw=1.3)
    ax.set_yscale("log")
    ax.yaxis.set_major_formatter("{x:.3g}")
    ax.yaxis.set_minor_formatter("{x:.3g}")


def published(ax: Axes, table: pd.DataFrame, group: str, y: str, what: str = "") -> None:
    """Published points, if any: ``n`` against ``y``, one grey dotted line per ``group``."""
    style: dict[str, Any] = {"color": "0.5", "mfc": "white", "ms": 8, "lw": 1}
    for marker, (name, part) in zip("*PXv", table.groupby(group), strict=False):
        label = f"PUBLISHED, ImageNet: {what}{name}"
        ax.plot(part["n"], part[y], marker + ":", label=label, **style)
    if len(table):
        size_axis(ax, [*ax.get_xticks(), table["n"].min(), table["n"].max()])


def slopes(table: pd.DataFrame, columns: Mapping[str, str]) -> Figure:
    """One panel per column (name -> title), a line per ``lot`` and ``class`` between two pools.

    It ends at the pool where the class was ``thinned``, its name beside the mean of the lots that
    thin it. Classes that no pool of a lot thins are grey.
    """
    fig, axes = panels(len(columns), 3.3, 4)
    ordered = table.sort_values(["thinned", "pool"])
    for ax, (column, title) in zip(axes, columns.items(), strict=True):
        for _, part in ordered.groupby(["lot", "class"]):
            style: dict[str, Any] = {"ms": 3, "zorder": 1, "lw": 1, "color": "0.8"}
            if part["thinned"].any():
                style = {"ms": 5, "zorder": 2, "lw": 1.6, "color": COLOURS["synthetic"]}
            ax.plot([0, 1], part[column], marker="o", **style)
        # Labels of thinned classes stand in a column, so far apart that they can be read.
        above = -np.inf
        gap = np.ptp(table[column]) / 24
        arrow = {"arrowstyle": "-", "color": "0.7", "lw": 0.6}
        ends = table[table["thinned"]].groupby("class", as_index=False)[column].mean()
        for row in ends.sort_values(column).to_dict("records"):
            above = max(row[column], above + gap)
            places = ((1.04, row[column]), (1.15, above))
            ax.annotate(row["class"], *places, va="center", fontsize=7, arrowprops=arrow)
        ax.set_xticks([0, 1], ["not thinned", "thinned"])
        ax.set(title=title, xlim=(-0.15, 1.85))
    return fig
