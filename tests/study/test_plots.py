"""Plots of one notebook: bands stay within bounds, fitted points are filled, legends name once."""

import matplotlib as mpl
import numpy as np
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


def test_a_band_stays_within_its_bounds(axes):
    rows = pd.DataFrame({"n": [12, 24, 48, 96], "mean": 0.7, "low": -0.1, "high": 1.2})
    plots.banded(axes[0], rows, "n", "red", "accuracy")
    edges = axes[0].collections[0].get_paths()[0].vertices[:, 1]
    assert edges.min() >= 0 and edges.max() <= 1
    assert axes[0].lines[0].get_ydata() == pytest.approx([0.7] * 4)


def test_sizes_outside_the_fit_are_hollow(axes):
    law = {"k": 0.3, "b": np.log(3), "n_min": 24, "n_max": 48}
    means = RUNS[RUNS["seed"] == 0].assign(mean=lambda t: t["loss"], low=0.1, high=3.0)
    plots.power_law(axes[0], means, law, "red", "law")
    fitted, hollow, line = (axes[0].lines[i] for i in (0, 1, -1))
    assert fitted.get_xdata().tolist() == [24, 48] and fitted.get_markerfacecolor() == "red"
    assert hollow.get_xdata().tolist() == [12, 96] and hollow.get_markerfacecolor() == "white"
    assert line.get_xdata().tolist() == [24, 48]
    assert line.get_ydata() == pytest.approx(3 * np.array([24, 48]) ** -0.3)


def test_a_legend_names_each_label_once_and_sizes_are_ticks(axes):
    for ax in axes:
        ax.plot([1, 2], [1, 2], label="one")
    axes[1].plot([1, 2], [2, 1], label="two")
    handles, labels = plots.legend_of(axes)
    assert labels == ["one", "two"] and len(handles) == 2
    plots.size_axis(axes[0], [24, 1_000, 2_000_000])
    assert [tick.get_text() for tick in axes[0].get_xticklabels()] == ["24", "1,000", "2 M"]
