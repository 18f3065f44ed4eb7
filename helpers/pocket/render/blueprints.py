"""Aircraft as blueprints: what can be counted or named in a picture of a real variant from a side.

Main gears follow FAA Order 5300.7, *Standard Naming Convention for Aircraft Landing Gear
Configurations*, which lists these types; engines, tails and wings follow the makers' airport
planning documents. Seen from the side a main leg shows one wheel per axle, so ``legs`` gives axles
leg by leg, front to back. The Il-76's two rows of four (2Q) show as two axles. Of the DC-10 the -10
is meant, without centre leg; the A320 and A321 have wing fences, too small to be seen, and count as
without winglets. An engine in the fin (DC-10, Tu-154) is seen, and counted, from a side.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np

from helpers.pocket.chance import pick, weighted

LEGS = ((1,), (2,), (3,), (2, 1), (2, 2), (2, 3))
# place -> share of the chimeras; "centre tail": one under the wing, one in the fin
ENGINE_PLACES = {"wing": 0.45, "tail": 0.2, "centre tail": 0.15, "nose": 0.1, "fuselage": 0.1}
GEARS = {"tricycle": 0.6, "tailwheel": 0.2, "fixed": 0.2}  # kind -> share of the chimeras
DETAILS = ("axles", "engines", "engine_place", "tail", "gear", "wing", "winglets")


@dataclass(frozen=True)
class Blueprint:
    """One variant; sizes in drawing units, 64 to the image side, in about true proportions."""

    name: str
    length: float
    diameter: float
    legs: tuple[int, ...]  # axles of each main leg seen from a side
    engines: int  # seen from a side
    engine_place: str  # one of ENGINE_PLACES
    tail: str = "conventional"  # or "T"
    gear: str = "tricycle"  # one of GEARS
    wing: str = "low"  # or "high"
    winglets: bool = False
    decks: float = 1  # 1.5: upper deck in front only
    propeller: bool = False
    sweep: float = 1.0  # 0: straight wing
    nose: str = "round"  # or "pointed"

    @property
    def axles(self) -> int:
        """Wheels of the main gear seen from a side."""
        return sum(self.legs)

    @property
    def attributes(self) -> dict[str, int | str | bool]:
        """The details that judges are asked for, by name."""
        return {detail: getattr(self, detail) for detail in DETAILS}


_ALL = (
    Blueprint("737-200", 40, 6.0, (1,), 1, "wing"),
    Blueprint("737-800", 46, 6.0, (1,), 1, "wing", winglets=True),
    Blueprint("A320", 45, 6.3, (1,), 1, "wing"),
    Blueprint("A321", 52, 6.0, (1,), 1, "wing"),
    Blueprint("757-200", 52, 6.0, (2,), 1, "wing"),
    Blueprint("MD-80", 51, 5.4, (1,), 1, "tail", tail="T"),
    Blueprint("Tu-134", 47, 5.4, (2,), 1, "tail", tail="T"),
    Blueprint("Tu-154", 51, 5.4, (3,), 2, "tail", tail="T"),
    Blueprint("Fokker 100", 46, 5.6, (1,), 1, "tail", tail="T"),
    Blueprint("A330-300", 52, 7.0, (2,), 1, "wing", winglets=True),
    Blueprint("A340-300", 52, 7.0, (2, 1), 2, "wing", winglets=True),
    Blueprint("777-300", 52, 7.0, (3,), 1, "wing"),
    Blueprint("DC-10", 51, 7.4, (2,), 2, "centre tail"),
    Blueprint("747-400", 52, 7.6, (2, 2), 2, "wing", winglets=True, decks=1.5),
    Blueprint("A380", 52, 10.0, (2, 3), 2, "wing", decks=2),
    Blueprint("ATR-72", 45, 5.6, (1,), 1, "wing", tail="T", wing="high", propeller=True, sweep=0),
    Blueprint("An-12", 45, 7.6, (2,), 2, "wing", wing="high", propeller=True, sweep=0),
    Blueprint("C-130", 43, 8.2, (2,), 2, "wing", wing="high", propeller=True, sweep=0),
    Blueprint("Il-76", 51, 8.0, (2,), 2, "wing", tail="T", wing="high"),
    Blueprint("BAE 146-200", 44, 6.4, (1,), 2, "wing", tail="T", wing="high", sweep=0.5),
    Blueprint("DC-3", 43, 6.6, (1,), 1, "wing", gear="tailwheel", propeller=True, sweep=0.5),
    Blueprint("Spitfire", 40, 5.6, (1,), 1, "nose", gear="tailwheel", propeller=True, sweep=0),
    Blueprint(
        "Cessna 172", 38, 6.4, (1,), 1, "nose", gear="fixed", wing="high", propeller=True, sweep=0
    ),
    Blueprint("Tornado", 46, 6.0, (1,), 1, "fuselage", wing="high", sweep=1.6, nose="pointed"),
)
AIRCRAFT: dict[str, Blueprint] = {b.name: b for b in _ALL}


def chimera(plane: Blueprint, rng: np.random.Generator) -> Blueprint:
    """The same silhouette with every countable detail drawn at random: nobody built it.

    A judge that learns from chimeras has to look at a detail; it cannot infer it from the type.
    """
    axles = int(rng.integers(1, 6))  # all counts equally often
    fitting = [legs for legs in LEGS if sum(legs) == axles]
    place = weighted(ENGINE_PLACES, rng)
    engines = {"wing": int(rng.integers(1, 3)), "tail": int(rng.integers(1, 3)), "centre tail": 2}
    return dataclasses.replace(
        plane,
        name=f"{plane.name} chimera",
        legs=pick(fitting, rng),
        engines=engines.get(place, 1),
        engine_place=place,
        tail="T" if rng.random() < 0.5 else "conventional",
        wing="high" if rng.random() < 0.4 else "low",
        gear=weighted(GEARS, rng),
        winglets=bool(rng.random() < 0.5),
        propeller=bool(rng.random() < 0.3) or place == "nose",
    )
