"""Shape bias and probe sets by hand."""

import numpy as np
import pandas as pd
import pytest

from helpers.errors import StudyError
from helpers.measure import metrics

GROUPS = pd.DataFrame(
    {"shape": ["5", "5", "6"], "texture": ["red", "white", "red"]}, index=["a", "b", "c"]
)


def test_shape_bias_by_hand():
    facts = pd.DataFrame({"shape": ["6"] * 4, "texture": ["white"] * 4})
    # One class of three is of this shape, one of this texture: half of the others, by guessing.
    assert metrics.shape_bias(np.array([2, 2, 2, 1]), facts, GROUPS) == pytest.approx(
        {
            "shape_hits": 0.75,
            "texture_hits": 0.25,
            "shape_bias": 0.75,
            "floor": 0.375 / (0.375 + 0.25),
            "ceiling": 0.75 / (0.75 + 0.125),
        }
    )
    assert "shape_bias" not in metrics.shape_bias(np.array([0, 0, 0, 0]), facts, GROUPS)
    with pytest.raises(StudyError, match="no cue conflict"):
        metrics.shape_bias(
            np.array([0]), pd.DataFrame({"shape": ["5"], "texture": ["red"]}), GROUPS
        )


def test_who_follows_texture_and_guesses_else_is_at_the_floor():
    rng = np.random.default_rng(0)
    shapes, textures = np.arange(14) % 7, np.arange(14) // 7 * 7 + np.arange(14) % 7 // 2
    groups = pd.DataFrame({"shape": shapes, "texture": textures}, index=list("abcdefghijklmn"))
    pairs = [(s, t) for s in set(shapes) for t in set(textures)]
    known = set(zip(shapes, textures, strict=True))
    facts = pd.DataFrame([p for p in pairs if p not in known] * 300, columns=["shape", "texture"])
    follows = rng.random(len(facts)) < 0.6
    answers = rng.integers(14, size=len(facts))
    for row in np.flatnonzero(follows):
        answers[row] = rng.choice(np.flatnonzero(textures == facts["texture"][row]))
    found = metrics.shape_bias(answers, facts, groups)
    assert found["shape_bias"] == pytest.approx(found["floor"], abs=0.015)
    assert found["ceiling"] > found["floor"] + 0.05
    guessed = metrics.shape_bias(rng.integers(14, size=len(facts)), facts, groups)
    assert guessed["floor"] == pytest.approx(guessed["ceiling"], abs=0.02)
