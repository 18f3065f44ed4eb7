"""What the paper world is made of that lies outside the store: part of the keys of its artifacts."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from helpers.paper import probes
from helpers.paper.config import Config, Task, checkpoint, identity, settings
from helpers.worlds import World


def outside(w: World) -> dict[str, dict]:
    """Artifact -> what lies outside the store that it is made of: weights by name or by the files in their folder, shards."""

    s = settings()
    used = (w.synthesis.generator, *w.analysis.generators, *w.scaling.generators)
    drawing = {
        "generators": {n: identity(s.generators[n]) for n in used if n in s.generators},
        "drawn": s.drawn,
        "kept": s.kept,
    }
    engine = (
        {}
        if s.language_engine == Config.language_engine
        else {"language_engine": s.language_engine}
    )
    made = {
        "captions": {"language_model": identity(s.language_model), **engine},
        "pool": {"shards": identity(str(s.laion))},
        **dict.fromkeys(
            ("synthetic", "samples", "analysed", "arms", "paired", "prompted"), drawing
        ),
        "scaled": {"judge": identity(s.judge)},
        "robust": {
            "checkpoints": [identity(checkpoint(w, name)) for *_, name in w.robustness.checkpoints],
            "sets": probes.present(s.benchmarks),
        },
        "benchmarks": {n: _told(t) for n, t in s.tasks.items()},
    }
    return made | ({"embeddings": {"index": s.index}} if s.index else {})


def _told(task: Task) -> str:
    classes = (
        Path(task.classes).read_text()
        if isinstance(task.classes, str) and Path(task.classes).is_file()
        else task.classes
    )
    return repr(dataclasses.replace(task, folder=Path(identity(str(task.folder))), classes=classes))
