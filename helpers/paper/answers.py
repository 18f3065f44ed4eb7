"""What the published setting answers where the miniature knows something that nobody knows of photographs."""

from __future__ import annotations

from pathlib import Path

from helpers.data.tables import Split
from helpers.engine.store import Artifact
from helpers.errors import NotKnown, StudyError
from helpers.worlds import World

_RENDERED = "It is known in the rendered worlds only: python -m helpers.run pocket"


def prepare(w: World) -> None:
    """Nothing is trained: each published model is looked for where it is used."""


def shifted(w: World, task: str) -> dict[str, Split]:
    """No sets: nobody has sketched these classes, or dressed them in new textures."""
    return {}


def main_gear(w: World, name: str) -> tuple[float, float] | None:
    """None: nobody has measured where wheels stand in photographs."""
    return None


def intervention(w: World) -> Artifact:
    """Raises ``NotKnown``: nobody trains Stable Diffusion anew on a pool with a class thinned out."""
    raise NotKnown(
        f"world {w.name!r} cannot train its generator again on another pool. {_RENDERED} 06 -p intervention=True"
    )


def quality(w: World) -> dict:
    """Raises ``NotKnown``: the published models come with their own papers."""
    raise NotKnown(f"world {w.name!r} does not measure its upstream models. {_RENDERED} 00")


def retrain(w: World) -> Path:
    """Raises ``StudyError``: the published models are downloaded."""
    raise StudyError(
        f"world {w.name!r} cannot train its upstream models; retrain=True is for the rendered worlds."
    )
