"""Verdicts on the claims of the three papers: claims.csv declares them, before any run.

Notebooks hand in their estimates, claim by claim; every world keeps one table of all claims.
Nothing that is built depends on this module.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from helpers.engine import figures, store
from helpers.errors import StudyError, reading, unknown
from helpers.measure import inference
from helpers.measure.inference import EQUIVALENT, FLOOR, HOLDS, REVERSED, UNDECIDED, Cell
from helpers.worlds import World

DECLARATIONS = Path(__file__).parent / "claims.csv"
COLUMNS = [
    *("id", "paper", "claim", "verdict", "corrected", "value", "low", "high", "margin", "sign"),
    *("p", "p_holm", "p_inside", "p_inside_holm", "seeds", "needed", "cell", "reason"),
]
SAME = ("claim", "margin", "sign")  # if a declaration changes, what was found before is left
MANY = 1_000  # seeds that nobody will train
VERDICTS = (HOLDS, REVERSED, EQUIVALENT, UNDECIDED, FLOOR)
NOT_RUN = "not run in this world"
Estimates = Mapping[str, Sequence[Cell] | str]


def declared(path: Path = DECLARATIONS) -> pd.DataFrame:
    """The declarations, a row per claim, indexed by ``id``; all is text but ``margin``.

    Raises ``StudyError`` on an id twice, unknown words, a margin that is not above 0, and a
    testable claim without a family for Holm's correction.
    """
    with reading(path, KeyError):
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
        table = table.rename(columns={"expected_sign": "sign"}).astype({"margin": float})
    for twice in table["id"][table["id"].duplicated()]:
        raise StudyError(f"{path.name} declares claim {twice} twice; every claim needs its own id.")
    for row in table.to_dict("records"):
        for column, valid in (("sign", inference.SIGNS), ("combine", inference.COMBINE)):
            if row[column] not in valid:
                raise unknown(f"{column} of claim {row['id']}", row[column], valid)
        if row["testable"] != "yes" and not row["testable"].startswith("no: "):
            raise unknown(f"testable of claim {row['id']}", row["testable"], ("yes", "no: and why"))
        if not row["margin"] > 0 or (row["testable"] == "yes" and not row["holm"]):
            raise StudyError(f"claim {row['id']} needs a margin above 0 and a family (holm).")
    return table.set_index("id", drop=False)


def decide(estimates: Estimates, before: pd.DataFrame | None = None) -> pd.DataFrame:
    """The table of all claims (``COLUMNS``), decided by ``estimates``: claim id -> cells.

    A text in place of cells says why this world cannot test a claim. Claims without an estimate
    keep their row of ``before``, or are undecided. *Corrected* is a verdict whose p (of an
    equivalent claim, ``p_inside``) stays below 0.05 by Holm over all testable claims of its family,
    run or not; else undecided. Raises ``StudyError`` on unknown claims and cells that do not fit.
    """
    claims = declared()
    for name in estimates.keys() - claims.index:
        raise unknown("claim", name, claims.index)
    kept = {} if before is None else {row["id"]: row for row in before.to_dict("records")}
    rows = []
    for name, claim in claims.iterrows():
        old = kept.get(name, {})
        stands = name not in estimates and all(old.get(key) == claim[key] for key in SAME)
        tested = claim["testable"] == "yes" and pd.notna(old.get("p"))
        found = old if stands and tested else _found(claim, estimates.get(name))
        rows.append({**claim, **found})
    table = pd.DataFrame(rows).reindex(columns=[*COLUMNS, "testable", "holm"])
    for p in ("p", "p_inside"):
        families = table[table["testable"] == "yes"].groupby("holm")[p]
        table[f"{p}_holm"] = families.transform(inference.holm)
    decisive = table["p_holm"].where(table["verdict"] != EQUIVALENT, table["p_inside_holm"])
    stays = (table["verdict"] == FLOOR) | (decisive < inference.ALPHA)
    table["corrected"] = table["verdict"].where(stays, UNDECIDED)
    for i, row in table[~stays & (table["verdict"] != UNDECIDED)].iterrows():
        if row["id"] in estimates:  # what it would take to stand among all
            found = _found(
                claims.loc[row["id"]], estimates[row["id"]], sum(table["holm"] == row["holm"])
            )
            table.loc[i, ["needed", "reason"]] = found["needed"], found["reason"]
    return table[COLUMNS].astype({"seeds": "Int64"})


def record(w: World, estimates: Estimates) -> pd.DataFrame:
    """``decide`` for a world; ``claims.csv`` beside its figures keeps rows of other notebooks."""
    path = figures.folder(w) / "claims.csv"
    before = None
    if path.exists():
        with reading(path, KeyError):
            before = pd.read_csv(path, dtype={"sign": str}, float_precision="round_trip")[COLUMNS]
            before = before.fillna({"cell": "", "reason": ""})
    table = decide(estimates, before)
    store.write(path, table.to_csv(index=False).encode())
    return table


def counted(table: pd.DataFrame) -> str:
    """How many claims of a table came out how, in brackets how many do after correction."""
    plain, corrected = (table[column].value_counts() for column in ("verdict", "corrected"))
    words = [word for word in VERDICTS if word in plain or word in corrected]
    return ", ".join(f"{plain.get(w, 0)} {w} ({corrected.get(w, 0)})" for w in words)


def recommend(
    gains: pd.DataFrame, task: str, retrieved: int, generator: str, margin: float, real: int = 0
) -> dict[str, Any]:
    """How many ``synthetic`` images to add to ``yours``, the retrieved ones, and what they gain.

    ``gains`` are fields of notebook 08's map: ``task, generator, real, retrieved, synthetic`` and
    an ``Estimate``; ``real`` are images of the task in every class. Of the nearest by log
    ``retrieved``, the field decides that surely gains and may gain the margin (of several, whose
    interval begins highest), else that whose interval ends highest. ``gain`` is in points over
    adding none; it, and ``sure``, that there is any, are corrected for the number of fields; ``so``
    says it. Raises ``StudyError`` on a task, generator or number of real images not there.
    """
    gains = gains.assign(real=gains.get("real", 0))
    for column, value in (("task", task), ("generator", generator), ("real", real)):
        if value not in set(gains[column]):
            raise unknown(f"{column} of the map", value, gains[column].unique())
        gains = gains[gains[column] == value]
    far = (np.log1p(gains["retrieved"]) - np.log1p(retrieved)).abs()
    near = gains[far == far.min()]
    known = near[["value", "se", "df", "seeds", "images"]].to_numpy(float)
    found = [
        inference.around(value, se, df, int(seeds), images, len(near))
        for value, se, df, seeds, images in known
    ]
    helps = [gain.low if gain.high >= margin else -np.inf for gain in found]
    at = int(np.argmax(helps if max(helps) > 0 else [gain.high for gain in found]))
    low, high = found[at].low, found[at].high
    words = {"do not": high < 0, "no need": high < margin, "add them": low > 0, "test it": True}
    so = next(word for word, fits in words.items() if fits)
    row, rest = near.iloc[at], found[at]._asdict()
    advice: dict[str, Any] = {"task": task, "yours": retrieved, "retrieved": int(row["retrieved"])}
    advice |= {"synthetic": int(row["synthetic"]) if so in ("add them", "test it") else 0}
    advice |= {"gain": rest.pop("value"), **rest}
    return advice | {"sure": 1 - min(1, len(near) * found[at].p_above(0)), "so": so}


def _found(claim: pd.Series, cells: Sequence[Cell] | str | None, tests: int = 0) -> dict[str, Any]:
    """The verdict on a claim, the numbers of the cell that decides, and what it would yet take; if
    decided, what it would take among as many ``tests``."""
    if claim["testable"] != "yes":
        return {"verdict": FLOOR, "cell": "", "reason": claim["testable"].removeprefix("no: ")}
    if not cells or isinstance(cells, str):
        word, reason = (FLOOR, cells) if cells else (UNDECIDED, NOT_RUN)
        return {"verdict": word, "p": 1.0, "p_inside": 1.0, "cell": "", "reason": reason}
    try:
        decided = inference.combined(cells, claim["sign"], claim["margin"], claim["combine"])
    except StudyError as e:
        raise StudyError(f"claim {claim['id']}: {e}") from e
    estimate, reasons = decided.cell.estimate, []
    row = {**estimate._asdict(), **decided._asdict(), "cell": decided.cell.name}
    if decided.verdict == UNDECIDED or tests:
        asked = estimate, claim["sign"], claim["margin"], max(tests, 1)
        row["needed"] = needed = inference.seeds_needed(*asked)
        more = f"about {needed:,.0f}" if needed <= MANY else f"over {MANY:,}"
        wanted = f"{more} {decided.cell.unit}" if needed < np.inf else "more test images"
        reasons.append("spread not known" if np.isnan(needed) else wanted)
    floors = [cell.name for cell in cells if cell.floor]
    if floors:
        near = "near chance, the ceiling or the unadapted model"
        reasons.append(f"{near}: {', '.join(floors)}".removesuffix(": "))
    return row | {"reason": "; ".join(reasons)}
