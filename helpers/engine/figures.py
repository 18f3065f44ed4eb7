"""How every figure looks and is kept: theme, colours, grids of images; PNG with alt text, CSV."""

from __future__ import annotations

import html
import sys
import textwrap
from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import matplotlib
import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from helpers.engine import gpu, places, store
from helpers.errors import StudyError
from helpers.worlds import World

SOURCES = {
    "clip": "unadapted CLIP",
    "retrieved": "retrieved",
    "synthetic": "synthetic",
    "mixed": "mixed",
    "ground_truth": "test images",
}
COLOURS = dict(zip(SOURCES, ("#5c5c5c", "#0072b2", "#d55e00", "#009e73", "#b8860b"), strict=True))
CATEGORIES = ("#332288", "#d99ab8", "#7a7a7a", "#aa9fd6", "#882255")  # of whatever is not a source
# The same for categories in twos.
PAIRS = ("#332288", "#aa9fd6", "#882255", "#d99ab8", "#7a7a7a", "#c4c4c4", "#5b3a1e", "#b79a80")
RC: dict[str, Any] = {"axes.grid": True, "grid.alpha": 0.35, "figure.dpi": 80, "font.size": 11}
RC |= {"axes.titlesize": 12, "axes.labelsize": 11}
RC |= dict.fromkeys(("xtick.labelsize", "ytick.labelsize", "legend.fontsize"), 10)
RC |= dict.fromkeys(("axes.spines.right", "axes.spines.top", "legend.frameon"), False)

matplotlib.rcdefaults()  # no matplotlibrc, and no back end of an IDE
INLINE = "module://matplotlib_inline.backend_inline"
matplotlib.rcParams["backend"] = INLINE if "ipykernel" in sys.modules else "agg"
sns.set_theme(style="ticks", context="notebook", palette="colorblind", rc=RC)


def folder(w: World) -> Path:
    """Where this world's figures are kept."""
    return places.figures_root() / places.part(w.name, w.seed)


@dataclass(frozen=True)
class Shown:
    """A figure with its alt text: in a notebook as HTML, in the report as a link to its file."""

    png: bytes
    name: str
    alt: str

    def _repr_mimebundle_(self, **_: Any) -> dict[str, str]:
        alt = html.escape(self.alt)
        source = f"data:image/png;base64,{b64encode(self.png).decode()}"
        image = f'<img src="{source}" alt="{alt}" style="max-width:100%">'
        return {
            "text/html": f"<figure>{image}<figcaption>{self.name}</figcaption></figure>",
            "text/markdown": f'<img src="{self.name}.png" alt="{alt}" width="800">',
            "text/plain": f"{self.name}: {self.alt}",
        }


def save(
    fig: Figure, name: str, data: pd.DataFrame | None, alt: str, w: World, title: str = ""
) -> Shown:
    """Keep a figure as ``NN_name.png``, and the plotted rows as ``NN_name.csv``.

    Returns what a notebook displays. ``alt`` says in 60 to 300 characters what form the figure has
    and what it shows; it is kept in the PNG. ``title`` states what the figure finds, stands above
    it and begins its text on pages; a line below names world, its seed and the device. Raises
    ``StudyError`` on an alt text out of bounds or a folder that cannot be written to.
    """
    if not 60 <= len(alt) <= 300:
        has = f"the alt text of {name} has {len(alt)} characters"
        raise StudyError(f"{has}; write 60 to 300: its form, then what it shows.")
    below = f"{w.name} world of seed {w.seed} · {gpu.describe()}"
    fig.text(0.995, -0.005, below, ha="right", va="top", fontsize=8, color="0.4")
    _head(fig, title)
    buffer = BytesIO()
    about = {"Description": alt, "Title": name, "Software": None}
    tight = {"bbox_inches": "tight", "pad_inches": 0.1}
    fig.savefig(buffer, format="png", dpi=150, metadata=about, **tight)
    plt.close(fig)
    store.write(folder(w) / f"{name}.png", buffer.getvalue())
    if data is not None:
        rows = data.to_csv(index=False, float_format="%.6g").encode()
        store.write(folder(w) / f"{name}.csv", rows)
    return Shown(buffer.getvalue(), name, f"{title}. {alt}" if title else alt)


def _head(fig: Figure, title: str) -> None:
    """Write a title above all that a figure has, from its left edge, in lines of its width."""
    fig.draw_without_rendering()  # settles the layout
    drawn = fig.get_tightbbox()  # inches
    lines = textwrap.fill(title, max(30, round(9.5 * drawn.width)))
    place = (drawn.x0 / fig.get_figwidth(), (drawn.y1 + 0.12) / fig.get_figheight())
    fig.text(*place, lines, ha="left", va="bottom", fontsize=13, weight="bold")


def grid(
    rows: Sequence[tuple], columns: Sequence[str] = (), tile: float = 0.95, label: float = 1.9
) -> Figure:
    """Images in rows (label, uint8 (n, side, side, 3)), enlarged without smoothing.

    ``columns`` are headings, each over the column at its position; one may be empty. ``tile`` and
    ``label`` are widths in inches. Raises ``StudyError`` where there are no rows.
    """
    if not rows:
        raise StudyError("a grid needs at least one row of images; this selection is empty.")
    across = max(len(images) for _, images in rows)
    width = label + tile * across
    height = tile * len(rows) + (0.35 if columns else 0.1)
    top = 1 - 0.3 / height if columns else 0.999
    fig = plt.figure(figsize=(width, height))
    # one pair of axes for all, as many are slow: images fill squares of side 1 but for a gap
    ax = fig.add_axes((label / width, 0.001, 0.999 - label / width, top - 0.001))
    ax.set(xlim=(0, across), ylim=(len(rows), 0))
    ax.set_axis_off()
    for y, (name, images) in enumerate(rows):
        for x, image in enumerate(images):
            place = (x + 0.02, x + 0.98, y + 0.98, y + 0.02)
            ax.imshow(image, interpolation="nearest", extent=place)
        words = textwrap.fill(str(name), 22)
        ax.text(-0.04, y + 0.5, words, fontsize=10, ha="right", va="center")
    for x, heading in enumerate(columns):
        ax.text(x + 0.02, -0.04, heading, fontsize=10)
    plt.close(fig)  # else a notebook shows it twice, as the cell's value and as an open figure
    return fig
