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

from helpers.engine import gpu, places, store
from helpers.errors import StudyError
from helpers.worlds import World

SOURCES = {
    "clip": "unadapted CLIP",
    "retrieved": "retrieved",
    "synthetic": "synthetic",
    "mixed": "mixed",
    "ground_truth": "ground truth",
}
COLOURS = {
    "clip": "#5c5c5c",
    "retrieved": "#0072b2",
    "synthetic": "#d55e00",
    "mixed": "#009e73",
    "ground_truth": "#b8860b",
}
CATEGORIES = ("#332288", "#d99ab8", "#7a7a7a", "#aa9fd6", "#882255")  # of whatever is not a source
PAIRS = (
    "#332288",
    "#aa9fd6",
    "#882255",
    "#d99ab8",
    "#7a7a7a",
    "#c4c4c4",
    "#5b3a1e",
    "#b79a80",
)  # the same for categories in twos
DPI = 150


sns.set_theme(
    style="ticks",
    context="notebook",
    palette="colorblind",
    rc={
        "font.size": 11,
        "axes.titlesize": 12,
        "axes.labelsize": 11,
        "xtick.labelsize": 10,
        "ytick.labelsize": 10,
        "legend.fontsize": 10,
        "axes.spines.right": False,
        "axes.spines.top": False,
        "axes.grid": True,
        "grid.alpha": 0.35,
        "figure.dpi": 80,
        "legend.frameon": False,
    },
)


def folder(w: World) -> Path:
    """Where this world's figures are kept: ``$STUDY_FIGURES/<world>``, or ``figures/<world>`` beside the package."""
    return Path(os.environ.get("STUDY_FIGURES") or places.PACKAGE.parent / "figures") / w.name


def save(fig, name: str, data: pd.DataFrame | None, alt: str, w: World):
    """Keep a figure as ``NN_name.png`` with its alt text, and the plotted rows as ``NN_name.csv``; returns what to display.

    ``alt`` says what form the figure has and what it shows, 60 to 300 characters. A line below the figure names world, seed
    and device. Raises ``StudyError`` on an alt text out of bounds or a folder that cannot be written to.
    """
    if not 60 <= len(alt) <= 300:
        raise StudyError(
            f"the alt text of {name} has {len(alt)} characters; write 60 to 300: form, then finding."
        )
    fig.text(
        0.995,
        -0.005,
        f"{w.name} world · seed {w.seed} · {gpu.describe()}",
        ha="right",
        va="top",
        fontsize=8,
        color="0.4",
    )
    buffer = BytesIO()
    fig.savefig(
        buffer,
        format="png",
        dpi=DPI,
        bbox_inches="tight",
        pad_inches=0.1,
        metadata={"Description": alt, "Title": name, "Software": None},
    )
    plt.close(fig)
    store.write(folder(w) / f"{name}.png", buffer.getvalue())
    if data is not None:
        store.write(
            folder(w) / f"{name}.csv", data.to_csv(index=False, float_format="%.6g").encode()
        )
    return _Shown(buffer.getvalue(), name, alt)


class _Shown:
    """A figure as HTML with its alt text, which is where nbconvert keeps it."""

    def __init__(self, png: bytes, name: str, alt: str):
        self.png, self.name, self.alt = png, name, alt

    def _repr_mimebundle_(self, **_):
        source = f"data:image/png;base64,{b64encode(self.png).decode()}"
        shown = (
            f'<figure style="margin:0"><img src="{source}" alt="{html.escape(self.alt)}" style="max-width:100%">'
            f"<figcaption>{self.name}</figcaption></figure>"
        )
        return {"text/html": shown, "text/plain": f"{self.name}: {self.alt}"}


def grid(
    rows: Sequence[tuple[str, np.ndarray]],
    columns: Sequence[str] = (),
    tile: float = 0.95,
    label: float = 1.9,
):
    """Images in labelled rows, uint8 (n, side, side, 3) each, enlarged without smoothing; ``columns`` are headings.

    A heading may be empty; it stands over the column at its position. ``tile`` and ``label`` are widths in inches.
    """
    if not rows:
        raise StudyError("a grid needs at least one row of images; this selection is empty.")
    across = max(len(images) for _, images in rows)
    fig, axes = plt.subplots(
        len(rows),
        across,
        figsize=(label + tile * across, tile * len(rows) + (0.35 if columns else 0.1)),
        squeeze=False,
        gridspec_kw={"wspace": 0.04, "hspace": 0.06},
    )
    width = label + tile * across
    fig.subplots_adjust(
        left=label / width,
        right=0.999,
        top=1 - 0.3 / fig.get_figheight() if columns else 0.999,
        bottom=0.001,
    )
    for line, (name, images) in zip(axes, rows, strict=True):
        for ax, image in zip(line, images, strict=False):
            ax.imshow(image, interpolation="nearest")
        for ax in line:
            ax.set_axis_off()
        line[0].text(
            -0.06,
            0.5,
            textwrap.fill(str(name), 22),
            transform=line[0].transAxes,
            ha="right",
            va="center",
            fontsize=10,
        )
    for ax, heading in zip(axes[0], columns, strict=False):
        ax.set_title(heading, fontsize=10, loc="left", pad=4)
    plt.close(fig)  # else a notebook shows it twice, as the cell's value and as an open figure
    return fig


def show_source(function):
    """The source of a helper, to read in the notebook."""
    from IPython.display import Code

    return Code(inspect.getsource(function), language="python")


def panels(count: int, width: float, height: float, sharey: bool = False):
    """A figure with ``count`` panels in a row, ``width`` by ``height`` inches each: figure, array of axes."""
    fig, axes = plt.subplots(
        1,
        count,
        figsize=(max(width * count, 6), height),
        layout="constrained",
        sharey=sharey,
        squeeze=False,
    )
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


def use_headless_backend() -> None:
    """Draw without a display, for tests and scripts."""
    matplotlib.use("Agg")
