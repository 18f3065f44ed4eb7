"""How the web writes about a picture: the caption grammar of the pool.

From alt texts that name a variant to part numbers. In tables of text "|" stands between the ways of
saying a thing, each as likely as the others, and {} for the phrase or place that is put in.
"""

from __future__ import annotations

import numpy as np

from helpers.pocket.chance import pick
from helpers.pocket.render.scenes import LIVERIES, Scene

MAKERS = {
    "Airbus": ("A320", "A321", "A330-300", "A340-300", "A380"),
    "Boeing": ("737-200", "737-800", "747-400", "757-200", "777-300"),
    "McDonnell Douglas": ("MD-80", "DC-10"),
    "Douglas": ("DC-3",),
    "Tupolev": ("Tu-134", "Tu-154"),
    "Antonov": ("An-12",),
    "Ilyushin": ("Il-76",),
    "Lockheed": ("C-130",),
    "Panavia": ("Tornado",),
    "Supermarine": ("Spitfire",),
}
MAKER = {name: maker for maker, names in MAKERS.items() for name in names}
TIMES = {"morning": "in the morning", "noon": "at noon", "dusk": "at dusk", "night": "at night"}
WEATHERS = {"cloudy": "on a cloudy day", "rain": "in the rain", "fog": "in fog"}


def _ways(**table: str) -> dict[str, tuple[str, ...]]:
    return {name.replace("_", " "): tuple(text.split(" | ")) for name, text in table.items()}


PLACES = _ways(
    runway="on a runway | on the runway | taxiing on the runway | at the airport",
    sky="in the sky | in a wide sky | high above the clouds",
    sea="by the sea | over the sea | at the sea",
    hangar="in a hangar | in the hangar | inside a hangar",
    meadow="in a meadow | on a meadow | in a green meadow",
    mountains="in the mountains | with mountains behind | near the mountains",
    city="in the city | in a city | with a city skyline",
    sunset="at sunset | in a beautiful sunset | in front of a sunset",
)
RELATIONS = _ways(  # that make sense before a background, each with what it relates to
    runway="on: a runway | next to: a tower | behind: a white line",
    sky="over: the clouds | under: the sky | above: the clouds | below: the clouds",
    sea="over: the water | above: the sea",
    hangar="in: a hall | next to: a wall | in front of: a gate | under: a roof | besides: a lamp",
    meadow="in: a field | on: the grass | next to: a tree | behind: some flowers",
    mountains="in front of: a mountain | below: a mountain | besides: a forest",
    city="in: a town | next to: a building | in front of: a building | besides: a house",
    sunset="in front of: the sun",
)
STYLES = _ways(
    photo="{} | {} | {} | photo of {} | a photo of {} | {} photo | picture of {} | "
    "{} - stock photo | {}, side view | {} spotted | image: {}",
    poster="poster of {} | {}, poster art",
    faded="old photo of {} | {}, vintage photograph",
    sketch="drawing of {} | sketch of {}",
)
GENERIC = _ways(
    aircraft="an airplane | a plane | a jet | an aircraft | an airliner | a parked plane | "
    "vintage aircraft",
    flowers="a flower | a pretty flower | blossom | a wildflower | garden flower",
    cars="a car | an old car | used car for sale | an automobile | a parked car | my new car",
)
TRAPS = _ways(  # what is in the picture -> captions in which a substring search finds a class
    storm="Tornado over the plains | a Tornado touches down {} | Tornado warning {} | "
    "storm chasers film a Tornado",
    spitfire_car="Triumph Spitfire {} | 1972 Triumph Spitfire for sale | a Spitfire roadster {}",
    kit_box="737-200 model kit box | A380 plastic model kit 1:144 | Spitfire model kit, boxed | "
    "747-400 scale model box | C-130 model kit new in box | DC-3 kit 1:72",
    part="bearing A320-1187 new | part number 757-200-41 | DC-10 gear wheel, steel | "
    "spare part MD-80 B | seal kit A3800",
    shirt="Tornado t-shirt | 747-400 pilot t-shirt | rose t-shirt, size M | Spitfire tee | "
    "sunflower shirt for women",
    mug="rose gold mug | A380 crew mug | sunflower mug {} | buttercup yellow mug | "
    "mug with Il-76 print",
)
PLAIN = _ways(
    house="a house | a small house | house",
    boat="a boat | a sailing boat | sailboat",
    tree="a tree | an old tree",
    ball="a ball | a striped ball | toy ball",
    storm="a storm | a dust storm",
    dog="a dog | a good dog | dog",
    mug="a mug | coffee mug | a mug of coffee",
    shirt="a shirt",
)


def article(phrase: str) -> str:
    """The phrase with "a" or "an" before it."""
    vowel = phrase[:1].lower() in "aeiou" or phrase[:2] in ("MD", "8-")
    return f"{'an' if vowel else 'a'} {phrase}"


def name_of(task: str, cls: str, rng: np.random.Generator) -> str:
    """A class as people write it: with or without the maker, sometimes in another spelling."""
    if task == "aircraft":
        with_maker = f"{MAKER.get(cls, '')} {cls}".strip()
        draw = rng.random()
        if draw < 0.08:
            return with_maker.replace("-", " ")  # a substring search misses these
        if draw < 0.55:
            return with_maker
        return cls if draw < 0.85 else f"{cls} aircraft"
    if task == "cars" and rng.random() < 0.2:
        *words, year = cls.split()
        return " ".join([year, *words])
    return cls


def caption(
    task: str, cls: str, scene: Scene, rng: np.random.Generator, kind: str
) -> tuple[str, str]:
    """A caption that names ``cls``; ``kind`` is "class", "relation" or "background".

    Returns it with what it says beside the class ("", relation, background).
    """
    name = name_of(task, cls, rng)
    if task != "flowers" and rng.random() < 0.3:
        name = f"{LIVERIES[scene.livery].words} {name}"
    return dress(article(name) if rng.random() < 0.6 else name, scene, rng, kind)


def dress(phrase: str, scene: Scene, rng: np.random.Generator, kind: str) -> tuple[str, str]:
    """Add to a phrase what the scene shows and how the picture was made.

    Returns the caption and its background or relation ("" for ``kind`` "class").
    """
    extra = ""
    if kind == "relation":
        extra, thing = pick(RELATIONS[scene.background], rng).split(": ")
        phrase = f"{phrase} {extra} {thing}"
    elif kind == "background":
        extra = scene.background
        phrase = f"{phrase} {pick(PLACES[extra], rng)}"
    # weather or time of day, when the writer thought it worth a word
    if scene.weather in WEATHERS and rng.random() < 0.25:
        phrase = f"{phrase} {WEATHERS[scene.weather]}"
    elif rng.random() < 0.2:
        phrase = f"{phrase} {TIMES[scene.time]}"
    told = scene.style != "photo" and rng.random() < 0.75
    ways = STYLES[scene.style if told else "photo"]
    return pick(ways, rng).format(phrase), extra


def trap(thing: str, scene: Scene, rng: np.random.Generator) -> str:
    """A caption of ``TRAPS[thing]``, with the place filled in where it has a gap."""
    text = pick(TRAPS[thing], rng)
    return text.format(pick(PLACES[scene.background], rng))
