"""The published setting: LLaMA, Stable Diffusion, LAION, public benchmarks.

``SEAM`` says which function of which module answers to each name; ``helpers.pocket`` has the same
names with the same signatures. What there is, and where, says ``paper.toml`` in ``$STUDY_PAPER``
(see helpers/paper/example.toml); what is missing: ``python -m helpers.run paper --check``.
"""

from helpers.worlds import lazy

# No name here may be that of a module of this package, which would stand in its way once imported.
SEAM = {
    "configured": "helpers.paper.world:configured",
    "outside": "helpers.paper.world:outside",
    "check": "helpers.paper.doctor:check",
    "prepare": "helpers.paper.world:prepare",
    "write_captions": "helpers.paper.language:write_captions",
    "draw": "helpers.paper.generator:draw",
    "pipeline": "helpers.paper.generator:pipeline",
    "open_pool": "helpers.paper.pools:open_pool",
    "search_index": "helpers.paper.index:search_index",
    "benchmark": "helpers.paper.benchmarks:benchmark",
    "shifted": "helpers.paper.world:shifted",
    "judge": "helpers.paper.world:judge",
    "judge_features": "helpers.paper.world:judge_features",
    "main_gear": "helpers.paper.world:main_gear",
    "intervention": "helpers.paper.world:intervention",
    "published": "helpers.paper.benchmarks:published",
    "probe_sets": "helpers.paper.probes:probe_sets",
    "checkpoint": "helpers.paper.config:checkpoint",
    "quality": "helpers.paper.world:quality",
    "clip_folder": "helpers.paper.config:clip_folder",
    "retrain": "helpers.paper.world:retrain",
}
__getattr__ = lazy(__name__, SEAM)
