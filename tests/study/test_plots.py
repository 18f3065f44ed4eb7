"""Plots of one notebook: runs are dots, differences have intervals, a legend names each once."""

import matplotlib as mpl
import pandas as pd
import pytest
from matplotlib import pyplot as plt

from helpers.study import plots

mpl.use("Agg")
RUNS = pd.DataFrame(
    [(n, seed, 3 * n**-0.3 * (1 + 0.1 * seed)) for n in (12, 24, 48, 96) for seed in range(3)],
    columns=["n", "seed", "loss"],
)


@pytest.fixture
def axes():
    fig, axes = plots.panels(2, 4, 3)
    yield axes
    plt.close(fig)


def test_runs_are_dots_and_their_mean_a_line(axes):
    plots.dotted(axes[0], RUNS, "n", "loss", "red", "loss")
    dots, line = axes[0].lines
    assert len(dots.get_xdata()) == len(RUNS)
    assert line.get_xdata().tolist() == [12, 24, 48, 96]
    assert line.get_ydata() == pytest.approx(RUNS.groupby("n")["loss"].mean())


def test_a_difference_has_its_interval_and_zero(axes):
    rows = pd.DataFrame({"n": [1, 2], "mean": [0.5, -1.0], "low": [-0.5, -3.0], "high": [1.0, 0.0]})
    plots.differences(axes[0], rows, "n", "red")
    zero, marks = axes[0].lines[:2]
    assert list(zero.get_ydata()) == [0, 0]
    assert marks.get_ydata().tolist() == [0.5, -1.0]
    ends = axes[0].collections[0].get_segments()
    assert [segment[:, 1].tolist() for segment in ends] == [[-0.5, 1.0], [-3.0, 0.0]]


def test_a_legend_names_each_label_once_and_sizes_are_ticks(axes):
    for ax in axes:
        ax.plot([1, 2], [1, 2], label="one")
    axes[1].plot([1, 2], [2, 1], label="two")
    handles, labels = plots.legend_of(axes)
    assert labels == ["one", "two"] and len(handles) == 2
    plots.size_axis(axes[0], [24, 1_000, 2_000_000])
    assert [tick.get_text() for tick in axes[0].get_xticklabels()] == ["24", "1,000", "2 M"]
