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
from helpers.measure.inference import ALPHA, COMBINE, EQUIVALENT, FLOOR, SIGNS, UNDECIDED, Cell
from helpers.worlds import World

DECLARATIONS = Path(__file__).parent / "claims.csv"
COLUMNS = [
    *("id", "paper", "claim", "verdict", "corrected", "value", "low", "high", "margin", "sign"),
    *("p", "p_holm", "p_inside", "p_inside_holm", "seeds", "needed", "cell", "reason"),
]
SAME = ("claim", "margin", "sign")  # if a declaration changes, what was found before is left
NOT_RUN = "not run in this world"
Estimates = Mapping[str, Sequence[Cell] | str]


def declared(path: Path = DECLARATIONS) -> pd.DataFrame:
    """The declarations, a row per claim, indexed by ``id``; all is text but ``margin``.

    Raises ``StudyError`` on an id twice, an unknown sign, testability or way to combine cells, a
    margin that is not above 0, and a testable claim without a family for Holm's correction.
    """
    with reading(path, KeyError):
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
        table = table.rename(columns={"expected_sign": "sign"}).astype({"margin": float})
    for twice in table["id"][table["id"].duplicated()]:
        raise StudyError(f"{path.name} declares claim {twice} twice; every claim needs its own id.")
    for row in table.to_dict("records"):
        for column, valid in (("sign", SIGNS), ("combine", COMBINE)):
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
    keep their row of the table ``before``, or are undecided. *Corrected* is a verdict that its p by
    Holm leaves below 0.05, else undecided; a family is all its testable claims, run or not. The p
    of an equivalent claim is ``p_inside``, against the margin. Raises ``StudyError`` on a claim
    that is not declared, or whose cells do not suit it.
    """
    claims = declared()
    for name in estimates:
        if name not in claims.index:
            raise unknown("claim", name, claims.index)
    tested = [] if before is None else before.dropna(subset=["p"]).to_dict("records")
    kept = {row["id"]: row for row in tested if claims["testable"].get(row["id"]) == "yes"}
    rows = []
    for name, claim in claims.iterrows():
        old = kept.get(name, {})
        stands = name not in estimates and all(old.get(key) == claim[key] for key in SAME)
        rows.append({**claim, **(old if stands else _found(claim, estimates.get(name)))})
    table = pd.DataFrame(rows)
    for p in ("p", "p_inside"):
        families = table[table["testable"] == "yes"].groupby("holm")[p]
        table[f"{p}_holm"] = families.transform(inference.holm)
    decisive = table["p_holm"].where(table["verdict"] != EQUIVALENT, table["p_inside_holm"])
    stays = (table["verdict"] == FLOOR) | (decisive < ALPHA)
    table["corrected"] = table["verdict"].where(stays, UNDECIDED)
    return table[COLUMNS].astype({"seeds": "Int64"})


def record(w: World, estimates: Estimates) -> pd.DataFrame:
    """``decide`` for a world; the table is kept as ``claims.csv`` beside the world's figures.

    Rows that other notebooks put there stay, unless their declaration has changed since.
    """
    path = figures.folder(w) / "claims.csv"
    before = None
    if path.exists():
        with reading(path, KeyError):
            before = pd.read_csv(path, dtype={"sign": str})[COLUMNS]
            before[["cell", "reason"]] = before[["cell", "reason"]].fillna("")
    table = decide(estimates, before)
    store.write(path, table.to_csv(index=False, float_format="%.6g").encode())
    return table


def _found(claim: pd.Series, cells: Sequence[Cell] | str | None) -> dict[str, Any]:
    """What is found about a claim: its verdict, the numbers of the cell that decides, the reason.

    The reason of an undecided one is what it would take: seeds in all, or more test images.
    """
    row: dict[str, Any] = dict.fromkeys(("value", "low", "high", "needed"), np.nan)
    row |= {"verdict": FLOOR, "p": 1.0, "p_inside": 1.0, "seeds": pd.NA}
    row |= {"cell": "", "reason": cells}
    if claim["testable"] != "yes":
        why = claim["testable"].removeprefix("no: ")
        return row | {"p": np.nan, "p_inside": np.nan, "reason": why}
    if isinstance(cells, str):
        return row
    if not cells:
        return row | {"verdict": UNDECIDED, "reason": NOT_RUN}
    sign, margin = claim["sign"], claim["margin"]
    try:
        word, cell, p, p_inside = inference.combined(cells, sign, margin, claim["combine"])
    except StudyError as e:
        raise StudyError(f"claim {claim['id']}: {e}") from e
    value, low, high, *_ = cell.estimate
    row |= {"verdict": word, "value": value, "low": low, "high": high, "p": p}
    row |= {"p_inside": p_inside, "seeds": cell.estimate.seeds, "cell": cell.name}
    reasons = []
    if word == UNDECIDED:
        row["needed"] = needed = inference.seeds_needed(cell.estimate, sign, margin)
        wanted = f"about {needed:,.0f} seeds" if needed < np.inf else "more test images"
        reasons.append("spread not known" if np.isnan(needed) else wanted)
    floors = [cell.name for cell in cells if cell.floor]
    if floors:
        reasons.append(f"near chance or the ceiling: {', '.join(floors)}".removesuffix(": "))
    return row | {"reason": "; ".join(reasons)}
