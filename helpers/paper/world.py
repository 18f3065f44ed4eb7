"""The paper world as ``paper.toml`` has it, and what its artifacts are made of beside the store."""

from __future__ import annotations

import os
from pathlib import Path

from helpers import worlds
from helpers.errors import unknown
from helpers.models import families
from helpers.paper import config, probes
from helpers.paper.config import Task, identity
from helpers.worlds import World


def configured(w: World) -> World:
    """``w`` with the user's own tasks, the settings of ``[world]``, and CLIP's weights named.

    Without ``$STUDY_PAPER``, ``w``. Raises ``StudyError`` on settings that do not exist.
    """
    if not os.environ.get("STUDY_PAPER"):
        return w
    s = config.settings()
    tasks = tuple(dict.fromkeys((*w.tasks, *s.tasks)))
    clip = {"pretrained": s.clip}
    if Path(s.clip).is_dir():
        clip = {"model": "upstream", "pretrained": identity(s.clip)}
    w = worlds.replace(w, tasks=tasks, clip=clip)
    if s.checkpoints:
        w = worlds.replace(w, robustness={"checkpoints": s.checkpoints})
    w = worlds.replace(w, **s.world)
    families.checked(w.robustness.checkpoints)
    for task in w.tasks:
        if task not in tasks:
            raise unknown(f"task in [world] of {config.root() / config.FILE}", task, tasks)
    return w


def outside(w: World) -> dict[str, dict]:
    """Artifact -> weights, shards and settings that it is made of and that lie outside the store.

    Weights and shards are told apart by ``identity``: other weights give other keys.
    """
    s = config.settings()
    generators = (w.synthesis.generator, *w.analysis.generators, *w.scaling.generators)
    drawing = {
        "generators": {n: identity(s.generators[n]) for n in generators if n in s.generators},
        "drawn": s.drawn,
        "kept": s.kept,
    }
    probed = [name for _, _, name in w.robustness.checkpoints]
    parts = {
        "captions": {"language_model": identity(s.language_model)},
        "pool": {"shards": identity(str(s.laion))},
        "scaled": {"judge": config.placed(config.root(), s.judge, identity)},
        "robust": {
            "checkpoints": [config.checkpoint(w, name, identity) for name in probed],
            "sets": probes.present(s.benchmarks),
        },
        "benchmarks": {name: _facts(task) for name, task in s.tasks.items()},
    }
    for name in ("synthetic", "samples", "analysed", "arms", "paired", "prompted"):
        parts[name] = drawing
    if s.index:
        parts["embeddings"] = {"index": s.index}
    return parts


def _facts(task: Task) -> dict:
    classes = task.classes
    if isinstance(classes, str) and Path(classes).is_file():
        classes = Path(classes).read_text()
    return task.model_dump() | {"folder": identity(str(task.folder)), "classes": classes}
