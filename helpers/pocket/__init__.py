"""The miniature: a rendered pool and everything trained on it.

``SEAM``: name -> its function, imported when first asked for; the same names as ``helpers.paper``.
"""

from helpers.worlds import lazy

SEAM = {
    "configured": "helpers.pocket.models:configured",
    "outside": "helpers.pocket.models:outside",
    "check": "helpers.pocket.models:check",
    "prepare": "helpers.pocket.models:prepare",
    "write_captions": "helpers.pocket.models:write_captions",
    "draw": "helpers.pocket.models:draw",
    "pipeline": "helpers.pocket.models:pipeline",
    "open_pool": "helpers.pocket.world.pool:open_pool",
    "search_index": "helpers.pocket.models:search_index",
    "benchmark": "helpers.pocket.world.benchmarks:benchmark",
    "shifted": "helpers.pocket.world.shifts:shifted",
    "judge": "helpers.pocket.models:judge",
    "judge_features": "helpers.pocket.models:judge_features",
    "main_gear": "helpers.pocket.models:main_gear",
    "intervention": "helpers.pocket.world.rarity:intervention",
    "published": "helpers.pocket.models:published",
    "probe_sets": "helpers.pocket.world.probes:probe_sets",
    "checkpoint": "helpers.pocket.models:checkpoint",
    "quality": "helpers.pocket.train.card:quality",
    "clip_folder": "helpers.pocket.models:clip_folder",
    "retrain": "helpers.pocket.train.card:retrain",
}
__all__ = tuple(SEAM)
__getattr__ = lazy(__name__, SEAM)
