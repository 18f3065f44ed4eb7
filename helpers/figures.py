"""How every figure looks and is kept: theme, one colour per source, image grids, PNG with alt text and CSV beside it."""

from __future__ import annotations

import html
import inspect
import os
import textwrap
from base64 import b64encode
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns

from helpers import gpu, store
from helpers.worlds import StudyError, World

SOURCES = {"clip": "unadapted CLIP", "retrieved": "retrieved", "synthetic": "synthetic", "mixed": "mixed",
           "ground_truth": "ground truth"}
COLOURS = {"clip": "#5c5c5c", "retrieved": "#0072b2", "synthetic": "#d55e00", "mixed": "#009e73", "ground_truth": "#b8860b"}
CATEGORIES = ("#332288", "#d99ab8", "#7a7a7a", "#aa9fd6", "#882255")  # of whatever is not a source
PAIRS = ("#332288", "#aa9fd6", "#882255", "#d99ab8", "#7a7a7a", "#c4c4c4", "#5b3a1e", "#b79a80")  # the same for categories in twos
DPI = 150

sns.set_theme(style="ticks", context="notebook", palette="colorblind", rc={
    "font.size": 11, "axes.titlesize": 12, "axes.labelsize": 11, "xtick.labelsize": 10, "ytick.labelsize": 10,
    "legend.fontsize": 10, "axes.spines.right": False, "axes.spines.top": False, "axes.grid": True, "grid.alpha": 0.35,
    "figure.dpi": 80, "legend.frameon": False})


def folder(w: World) -> Path:
    """Where this world's figures are kept: ``$STUDY_FIGURES/<world>``, or ``figures/<world>`` beside the package."""
    return Path(os.environ.get("STUDY_FIGURES") or store.PACKAGE.parent / "figures") / w.name


def save(fig, name: str, data: pd.DataFrame | None, alt: str, w: World):
    """Keep a figure as ``NN_name.png`` with its alt text, and the plotted rows as ``NN_name.csv``; returns what to display.

    ``alt`` says what form the figure has and what it shows, 60 to 300 characters. A line below the figure names world, seed
    and device. Raises ``StudyError`` on an alt text out of bounds or a folder that cannot be written to.
    """
    if not 60 <= len(alt) <= 300:
        raise StudyError(f"the alt text of {name} has {len(alt)} characters; write 60 to 300: form, then finding.")
    fig.text(0.995, -0.005, f"{w.name} world · seed {w.seed} · {gpu.describe()}", ha="right", va="top", fontsize=8, color="0.4")
    buffer = BytesIO()
    fig.savefig(buffer, format="png", dpi=DPI, bbox_inches="tight", pad_inches=0.1,
                metadata={"Description": alt, "Title": name, "Software": None})
    plt.close(fig)
    store.write(folder(w) / f"{name}.png", buffer.getvalue())
    if data is not None:
        store.write(folder(w) / f"{name}.csv", data.to_csv(index=False, float_format="%.6g").encode())
    return _Shown(buffer.getvalue(), name, alt)


class _Shown:
    """A figure as HTML with its alt text, which is where nbconvert keeps it."""

    def __init__(self, png: bytes, name: str, alt: str):
        self.png, self.name, self.alt = png, name, alt

    def _repr_mimebundle_(self, **_):
        source = f"data:image/png;base64,{b64encode(self.png).decode()}"
        shown = (f'<figure style="margin:0"><img src="{source}" alt="{html.escape(self.alt)}" style="max-width:100%">'
                 f"<figcaption>{self.name}</figcaption></figure>")
        return {"text/html": shown, "text/plain": f"{self.name}: {self.alt}"}


def grid(rows: Sequence[tuple[str, np.ndarray]], columns: Sequence[str] = (), tile: float = 0.95, label: float = 1.9):
    """Images in labelled rows, uint8 (n, side, side, 3) each, enlarged without smoothing; ``columns`` are headings.

    A heading may be empty; it stands over the column at its position. ``tile`` and ``label`` are widths in inches.
    """
    if not rows:
        raise StudyError("a grid needs at least one row of images; this selection is empty.")
    across = max(len(images) for _, images in rows)
    fig, axes = plt.subplots(len(rows), across, figsize=(label + tile * across, tile * len(rows) + (0.35 if columns else 0.1)),
                             squeeze=False, gridspec_kw={"wspace": 0.04, "hspace": 0.06})
    width = label + tile * across
    fig.subplots_adjust(left=label / width, right=0.999, top=1 - 0.3 / fig.get_figheight() if columns else 0.999, bottom=0.001)
    for line, (name, images) in zip(axes, rows, strict=True):
        for ax, image in zip(line, images, strict=False):
            ax.imshow(image, interpolation="nearest")
        for ax in line:
            ax.set_axis_off()
        line[0].text(-0.06, 0.5, textwrap.fill(str(name), 22), transform=line[0].transAxes, ha="right", va="center", fontsize=10)
    for ax, heading in zip(axes[0], columns, strict=False):
        ax.set_title(heading, fontsize=10, loc="left", pad=4)
    plt.close(fig)  # else a notebook shows it twice, as the cell's value and as an open figure
    return fig


def gear_box(image: np.ndarray, gear: tuple[float, float], width: float = 0.42) -> tuple[float, float, float, float]:
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
    near = np.abs(np.abs(middle) - abs(first + last) / 2) <= 0.07  # as far aside as the renderer puts them
    pixels, middle = round(width * n), 0.5 + middle[near][found[near].argmax()]  # whole pixels, so that all boxes are of one size
    left = int(np.clip(round(middle * n - pixels / 2), 0, n - pixels))
    return left / n, 0.62, (left + pixels) / n, 0.84


def with_inset(image: np.ndarray, box: tuple[float, float, float, float], side: int = 448) -> np.ndarray:
    """An image enlarged to ``side`` pixels, with the part in ``box`` (x0, y0, x1, y1 as shares) enlarged below it."""
    from PIL import Image

    n = len(image)
    x0, y0, x1, y1 = (round(b * n) for b in box)
    height = round(side * (y1 - y0) / max(x1 - x0, 1))
    whole = np.asarray(Image.fromarray(image).resize((side, side), Image.Resampling.NEAREST))
    part = np.asarray(Image.fromarray(image[y0:y1, x0:x1]).resize((side, height), Image.Resampling.NEAREST))
    return np.concatenate([whole, np.full((side // 48, side, 3), 255, np.uint8), part])


def interval(values) -> tuple[float, float, float]:
    """Mean with its 95 % t-interval over seeds: (mean, low, high); the interval is the mean where there is one value."""
    from scipy import stats

    values = np.asarray(values, float)
    mean = float(values.mean())
    if len(values) < 2:
        return mean, mean, mean
    half = float(stats.t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values)))
    return mean, mean - half, mean + half


def share_interval(right: int, n: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share of ``right`` out of ``n``: (low, high) in 0..1."""
    if n == 0:
        return 0.0, 1.0
    z, p = 1.959964, right / n
    centre, half = p + z * z / (2 * n), z * np.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return float((centre - half) / (1 + z * z / n)), float((centre + half) / (1 + z * z / n))


def show_source(function):
    """The source of a helper, to read in the notebook."""
    from IPython.display import Code

    return Code(inspect.getsource(function), language="python")


def band(ax, table: pd.DataFrame, x: str, y: str, colour: str, label: str | None = None, within=(0, 1), **line) -> None:
    """Mean over seeds of ``y`` against ``x``, with its 95 % interval, as far as ``within`` bounds (those of an accuracy), as a band."""
    rows = pd.DataFrame([(v, *interval(part[y])) for v, part in table.groupby(x)], columns=[x, "mean", "low", "high"])
    rows[["low", "high"]] = rows[["low", "high"]].clip(*within)
    ax.plot(rows[x], rows["mean"], marker="o", color=colour, label=label, **line)
    ax.fill_between(rows[x], rows["low"], rows["high"], color=colour, alpha=0.18, linewidth=0)


def power_law(ax, table: pd.DataFrame, low: int, high: int, k: float, b: float, colour: str, label: str | None = None, **line) -> None:
    """Loss against n on two logarithmic axes: means over seeds with 95 % intervals, and the law exp(b) n^-k where it was fitted.

    ``table`` has ``n`` and ``loss``, one row per run. Sizes outside ``low`` to ``high`` did not take part: their points are hollow.
    """
    rows = np.array([(n, *np.exp(interval(np.log(part["loss"])))) for n, part in table.groupby("n")])
    inside = (rows[:, 0] >= low) & (rows[:, 0] <= high)
    for chosen, face, text in ((inside, colour, label), (~inside, "white", None)):
        n, mean, below, above = rows[chosen].T
        ax.errorbar(n, mean, [mean - below, above - mean], fmt=line.get("marker", "o"), color=colour, mfc=face, ms=5, lw=1, label=text)
    ends = np.array([max(low, rows[inside, 0].min()), rows[inside, 0].max()])
    ax.plot(ends, np.exp(b) * ends**-k, color=colour, lw=1.3, **{k: v for k, v in line.items() if k != "marker"})
    ax.set_yscale("log")
    ax.yaxis.set_major_formatter("{x:.3g}"), ax.yaxis.set_minor_formatter("{x:.3g}")


def published(ax, table: pd.DataFrame, group: str, y: str, what: str = "") -> None:
    """Published points, ``n`` against ``y``, one grey dotted line per value of ``group``, with ticks at their ends; none for no rows."""
    for marker, (name, part) in zip("*PXv", table.groupby(group), strict=False):
        ax.plot(part["n"], part[y], marker + ":", color="0.5", mfc="white", ms=8, lw=1, label=f"PUBLISHED, ImageNet: {what}{name}")
    if len(table):
        size_axis(ax, [*ax.get_xticks(), table["n"].min(), table["n"].max()])


def panels(count: int, width: float, height: float, sharey: bool = False):
    """A figure with ``count`` panels in a row, ``width`` by ``height`` inches each: figure, array of axes."""
    fig, axes = plt.subplots(1, count, figsize=(max(width * count, 6), height), layout="constrained", sharey=sharey, squeeze=False)
    return fig, axes[0]


def legend_of(axes) -> tuple[list, list]:
    """Handles and labels of all panels, each label once: for a legend of the whole figure."""
    every: dict = {}
    for ax in np.ravel(axes):
        for handle, label in zip(*ax.get_legend_handles_labels(), strict=True):
            every.setdefault(label, handle)
    return list(every.values()), list(every)


def size_axis(ax, sizes: Sequence[int]) -> None:
    """A logarithmic x axis for numbers of images, with a tick at each of ``sizes``."""
    ax.set_xscale("log", base=2)
    ax.set_xticks(list(sizes), [f"{n:,.0f}" if n < 10**6 else f"{n / 10**6:,.0f} M" for n in sizes])


def slopes(table: pd.DataFrame, columns: dict[str, str]):
    """One panel per column (name -> title), a line per ``class`` from the pool where it was not ``thinned`` to the one where it was.

    Classes that no pool thins are grey, from the first ``pool`` to the second.
    """
    fig, axes = plt.subplots(1, len(columns), figsize=(3.3 * len(columns), 4), layout="constrained", squeeze=False)
    for ax, (column, title) in zip(axes[0], columns.items(), strict=True):
        for _, part in table.sort_values(["thinned", "pool"]).groupby("class"):
            chosen = part["thinned"].any()
            ax.plot([0, 1], part[column], marker="o", ms=5 if chosen else 3, zorder=2 if chosen else 1, lw=1.6 if chosen else 1,
                    color=COLOURS["synthetic"] if chosen else "0.8")
        above, gap = -np.inf, np.ptp(table[column]) / 24  # so far apart are labels
        for name, y in table[table["thinned"]].sort_values(column)[["class", column]].itertuples(index=False, name=None):
            above = max(y, above + gap)
            ax.annotate(name, (1.04, y), (1.15, above), va="center", fontsize=7, arrowprops={"arrowstyle": "-", "color": "0.7", "lw": 0.6})
        ax.set_xticks([0, 1], ["not thinned", "thinned"])
        ax.set(title=title, xlim=(-0.15, 1.85))
    return fig


def use_headless_backend() -> None:
    """Draw without a display, for tests and scripts."""
    matplotlib.use("Agg")
