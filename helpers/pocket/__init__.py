"""The miniature: a rendered pool and everything trained on it.

``SEAM`` says which function of which module answers to each name; ``helpers.paper``, the published
setting, has the same names with the same signatures. A module is imported when one of its functions
is first asked for.
"""

from __future__ import annotations

import pkgutil
from typing import Any

SEAM = {
    "configured": "helpers.pocket.answers:configured",
    "outside": "helpers.pocket.answers:outside",
    "check": "helpers.pocket.answers:check",
    "prepare": "helpers.pocket.models:prepare",
    "write_captions": "helpers.pocket.models:write_captions",
    "draw": "helpers.pocket.models:draw",
    "open_pool": "helpers.pocket.world.pool:open_pool",
    "search_index": "helpers.pocket.answers:search_index",
    "benchmark": "helpers.pocket.world.benchmarks:benchmark",
    "shifted": "helpers.pocket.world.shifts:shifted",
    "judge": "helpers.pocket.models:judge",
    "judge_features": "helpers.pocket.models:judge_features",
    "main_gear": "helpers.pocket.answers:main_gear",
    "intervention": "helpers.pocket.world.rarity:intervention",
    "published": "helpers.pocket.answers:published",
    "probe_sets": "helpers.pocket.world.probes:probe_sets",
    "checkpoint": "helpers.pocket.answers:checkpoint",
    "quality": "helpers.pocket.train.calibration:quality",
    "clip_folder": "helpers.pocket.models:clip_folder",
    "retrain": "helpers.pocket.train.card:retrain",
}
__all__ = tuple(SEAM)


def __getattr__(name: str) -> Any:
    if name not in SEAM:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return pkgutil.resolve_name(SEAM[name])
