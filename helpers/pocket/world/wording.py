"""How the web writes about a picture: the caption grammar of the pool, from alt texts that name a variant to part numbers."""

from __future__ import annotations

import numpy as np

from helpers.pocket.render.scenes import LIVERIES, Scene

MAKERS = {
    "A320": "Airbus",
    "A321": "Airbus",
    "A330-300": "Airbus",
    "A340-300": "Airbus",
    "A380": "Airbus",
    "737-200": "Boeing",
    "737-800": "Boeing",
    "747-400": "Boeing",
    "757-200": "Boeing",
    "777-300": "Boeing",
    "MD-80": "McDonnell Douglas",
    "DC-10": "McDonnell Douglas",
    "DC-3": "Douglas",
    "Tu-134": "Tupolev",
    "Tu-154": "Tupolev",
    "An-12": "Antonov",
    "Il-76": "Ilyushin",
    "C-130": "Lockheed",
    "Tornado": "Panavia",
    "Spitfire": "Supermarine",
}
PLACES = {
    "runway": ("on a runway", "on the runway", "taxiing on the runway", "at the airport"),
    "sky": ("in the sky", "in a wide sky", "high above the clouds"),
    "sea": ("by the sea", "over the sea", "at the sea"),
    "hangar": ("in a hangar", "in the hangar", "inside a hangar"),
    "meadow": ("in a meadow", "on a meadow", "in a green meadow"),
    "mountains": ("in the mountains", "with mountains behind", "near the mountains"),
    "city": ("in the city", "in a city", "with a city skyline"),
    "sunset": ("at sunset", "in a beautiful sunset", "in front of a sunset"),
}
TIMES = {"morning": "in the morning", "noon": "at noon", "dusk": "at dusk", "night": "at night"}
WEATHERS = {"cloudy": "on a cloudy day", "rain": "in the rain", "fog": "in fog"}
RELATIONS = {  # backgrounds for which a relation makes sense, and the thing it relates to
    "in": (("meadow", "a field"), ("hangar", "a hall"), ("city", "a town")),
    "on": (("runway", "a runway"), ("meadow", "the grass")),
    "next to": (
        ("hangar", "a wall"),
        ("runway", "a tower"),
        ("city", "a building"),
        ("meadow", "a tree"),
    ),
    "behind": (("runway", "a white line"), ("meadow", "some flowers")),
    "in front of": (
        ("mountains", "a mountain"),
        ("city", "a building"),
        ("sunset", "the sun"),
        ("hangar", "a gate"),
    ),
    "over": (("sea", "the water"), ("sky", "the clouds")),
    "under": (("sky", "the sky"), ("hangar", "a roof")),
    "above": (("sky", "the clouds"), ("sea", "the sea")),
    "below": (("mountains", "a mountain"), ("sky", "the clouds")),
    "besides": (("city", "a house"), ("mountains", "a forest"), ("hangar", "a lamp")),
}
STYLES = {
    "poster": ("poster of {}", "{}, poster art"),
    "faded": ("old photo of {}", "{}, vintage photograph"),
    "sketch": ("drawing of {}", "sketch of {}"),
}
OPENINGS = (
    "{}",
    "{}",
    "{}",
    "photo of {}",
    "a photo of {}",
    "{} photo",
    "picture of {}",
    "{} - stock photo",
    "{}, side view",
    "{} spotted",
    "image: {}",
)
GENERIC = {
    "aircraft": (
        "an airplane",
        "a plane",
        "a jet",
        "an aircraft",
        "an airliner",
        "a parked plane",
        "vintage aircraft",
    ),
    "flowers": ("a flower", "a pretty flower", "blossom", "a wildflower", "garden flower"),
    "cars": (
        "a car",
        "an old car",
        "used car for sale",
        "an automobile",
        "a parked car",
        "my new car",
    ),
}
TRAPS = {  # what is in the picture -> captions in which a substring search finds a class
    "storm": (
        "Tornado over the plains",
        "a Tornado touches down {}",
        "Tornado warning {}",
        "storm chasers film a Tornado",
    ),
    "spitfire car": (
        "Triumph Spitfire {}",
        "1972 Triumph Spitfire for sale",
        "a Spitfire roadster {}",
    ),
    "kit box": (
        "737-200 model kit box",
        "A380 plastic model kit 1:144",
        "Spitfire model kit, boxed",
        "747-400 scale model box",
        "C-130 model kit new in box",
        "DC-3 kit 1:72",
    ),
    "part": (
        "bearing A320-1187 new",
        "part number 757-200-41",
        "DC-10 gear wheel, steel",
        "spare part MD-80 B",
        "seal kit A3800",
    ),
    "shirt": (
        "Tornado t-shirt",
        "747-400 pilot t-shirt",
        "rose t-shirt, size M",
        "Spitfire tee",
        "sunflower shirt for women",
    ),
    "mug": (
        "rose gold mug",
        "A380 crew mug",
        "sunflower mug {}",
        "buttercup yellow mug",
        "mug with Il-76 print",
    ),
}
PLAIN = {
    "house": ("a house", "a small house", "house"),
    "boat": ("a boat", "a sailing boat", "sailboat"),
    "tree": ("a tree", "an old tree"),
    "ball": ("a ball", "a striped ball", "toy ball"),
    "storm": ("a storm", "a dust storm"),
    "dog": ("a dog", "a good dog", "dog"),
    "mug": ("a mug", "coffee mug", "a mug of coffee"),
    "shirt": ("a shirt",),
}


def article(phrase: str) -> str:
    """The phrase with "a" or "an" before it."""
    return (
        f"{'an' if phrase[:1].lower() in 'aeiou' or phrase[:2] in ('MD', '8-') else 'a'} {phrase}"
    )


def name_of(task: str, cls: str, rng: np.random.Generator) -> str:
    """A class as people write it: mostly its name, with or without the maker, sometimes in another order or spelling."""
    if task == "aircraft":
        maker, draw = MAKERS.get(cls, ""), rng.random()
        if draw < 0.08:
            return f"{maker} {cls.replace('-', ' ')}".strip()  # a substring search misses these
        return (
            f"{maker} {cls}".strip() if draw < 0.55 else cls if draw < 0.85 else f"{cls} aircraft"
        )
    if task == "cars" and rng.random() < 0.2:
        *words, year = cls.split()
        return " ".join([year, *words])
    return cls


def caption(
    task: str, cls: str, scene: Scene, rng: np.random.Generator, kind: str
) -> tuple[str, str]:
    """A caption that names ``cls``; ``kind`` is "class", "relation" or "background".

    Returns it with what it says beside the class ("" / relation / background), the two halves of a few-shot line.
    """
    named = name_of(task, cls, rng)
    if task != "flowers" and rng.random() < 0.3:
        named = f"{LIVERIES[scene.livery].words} {named}"
    return dress(article(named) if rng.random() < 0.6 else named, scene, rng, kind)


def dress(phrase: str, scene: Scene, rng: np.random.Generator, kind: str) -> tuple[str, str]:
    """Add to a phrase what the scene shows and how it was made; returns the caption and its background or relation."""
    extra = ""
    if kind == "relation":
        fitting = [
            (r, thing)
            for r, pairs in RELATIONS.items()
            for place, thing in pairs
            if place == scene.background
        ]
        extra, thing = fitting[rng.integers(len(fitting))]
        phrase = f"{phrase} {extra} {thing}"
    elif kind == "background":
        extra, ways = scene.background, PLACES[scene.background]
        phrase = f"{phrase} {ways[rng.integers(len(ways))]}"
    phrase = f"{phrase}{circumstances(scene, rng)}"
    if scene.style != "photo" and rng.random() < 0.75:
        ways = STYLES[scene.style]
        return ways[rng.integers(len(ways))].format(phrase), extra
    return OPENINGS[rng.integers(len(OPENINGS))].format(phrase), extra


def circumstances(scene: Scene, rng: np.random.Generator) -> str:
    """Time of day or weather, when the writer thought it worth a word."""
    if scene.weather in WEATHERS and rng.random() < 0.25:
        return f" {WEATHERS[scene.weather]}"
    return f" {TIMES[scene.time]}" if rng.random() < 0.2 else ""


def trap(thing: str, scene: Scene, rng: np.random.Generator) -> str:
    """A caption of ``TRAPS[thing]``, with the place filled in where it has a gap."""
    ways = TRAPS[thing]
    places = PLACES[scene.background]
    return ways[rng.integers(len(ways))].format(places[rng.integers(len(places))])
