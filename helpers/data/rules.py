"""What it means that a caption names a class: the text rules, and what ``scan`` looks for.

``substring`` ([P]): the caption contains the name. ``word``: with no letter or digit beside it, any
separator for any other ("F-16A/B" is "f 16a_b"). ``tokens`` ([C]'s full-text search): the name's
tokens anywhere, consecutive if it has "-" or "/". ASCII letters match in either case, others as
written, in lower, upper and title case, as NFC and NFD; "rose" is not in "rosé".
"""

import functools
import itertools
import math
import re
import unicodedata
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from helpers.errors import StudyError, unknown

RULES = ("substring", "word", "tokens")
SEPARATORS = " -_/\u2013"  # one stands for any other in ``word``; the last is the en dash
SEPARATOR = f"[{re.escape(SEPARATORS)}]"


class Terms(NamedTuple):
    """Other names of a class, and what must stand beside them; read by ``word`` and ``tokens``."""

    synonyms: tuple[str, ...] = ()
    cowords: tuple[str, ...] = ()  # at least one of them, as a word, anywhere in the caption
    any_order: bool = False  # ``tokens``: a name with "-" or "/" is no phrase


ClassTerms = Mapping[str, Terms]  # of classes, or "*" for all others
TERMS: dict[str, ClassTerms] = {  # of tasks; after [C]'s class maps
    "flowers": {
        "rose": Terms(cowords=("flower",)),
        "lotus": Terms(cowords=("flower",)),
        "colt's foot": Terms(("coltsfoot",)),
    },
    "cars": {"*": Terms(any_order=True)},
    "dtd": {"*": Terms(cowords=("texture", "pattern", "thing", "object"))},
}


class Form(NamedTuple):
    """One way to name a class: with a key, or a pattern that ``search`` finds beside a key."""

    label: int
    keys: tuple[str, ...]  # every match contains one of them, ASCII letters in either case
    pattern: str | None = None
    needs: tuple[str, ...] = ()  # patterns that ``search`` must find as well


class Plan(NamedTuple):
    """A rule applied to class names: what to look for. ``plan`` makes it once, for every shard."""

    rule: str
    classes: tuple[str, ...]
    forms: tuple[Form, ...]
    keys: tuple[str, ...]  # of all forms, each once


def plan(classes: Sequence[str], rule: str, terms: ClassTerms | None = None) -> Plan:
    """Apply ``rule``, with ``TERMS[task]``, to names; ``StudyError`` if either is not valid."""
    if rule not in RULES:
        raise unknown("text rule", rule, RULES)
    if not classes:
        raise StudyError("a scan needs at least one class name; none was given.")
    terms = terms or {}
    forms = []
    for label, name in enumerate(classes):
        if not name.strip():
            raise StudyError(f"class {label} of {len(classes)} has an empty name. Name it.")
        if rule == "substring":
            forms.append(Form(label, _spellings(name)))
            continue
        about = terms.get(name, terms.get("*", Terms()))
        needs = ("|".join(map(_any_spelling, about.cowords)),) if about.cowords else ()
        for called in (name, *about.synonyms):
            if rule == "word":
                forms.append(_word_form(label, called, needs))
            else:
                forms.append(_tokens_form(label, called, needs, about.any_order))
    keys = dict.fromkeys(key for form in forms for key in form.keys)
    return Plan(rule, tuple(classes), tuple(forms), tuple(keys))


def _word_form(label: int, name: str, needs: tuple[str, ...]) -> Form:
    """A name whose separators stand for any other, or several in a row for any run of them."""
    parts = [part for part in re.split(f"{SEPARATOR}+", name) if part] or [name]
    if re.search(SEPARATOR * 2, name):
        # runs are endlessly many, so that the key is one part, and the pattern finds the rest
        pattern = f"{SEPARATOR}+".join(map(_any_spelling, parts))
        return Form(label, _spellings(max(parts, key=len)), pattern, needs)
    # keys are the longest two neighbours in all spellings, with every separator between them
    neighbours: list[tuple[str, ...]] = [*itertools.pairwise(parts)] or [tuple(parts)]
    longest = max(neighbours, key=lambda pair: len("".join(pair)))
    spelt = list(itertools.product(*map(_spellings, longest)))
    keys = tuple(dict.fromkeys(between.join(pair) for pair in spelt for between in SEPARATORS))
    if len(parts) <= 2 and not needs:
        return Form(label, keys)
    return Form(label, keys, SEPARATOR.join(map(_any_spelling, parts)), needs)


def _tokens_form(label: int, name: str, needs: tuple[str, ...], any_order: bool) -> Form:
    """A name's tokens, found by the rarest: a phrase if it has "-" or "/", else in any order."""
    tokens = ["".join(run) for in_word, run in itertools.groupby(name, wordy) if in_word]
    if not tokens:
        raise StudyError(f"class name {name!r} has no letter or digit; rename it or take 'word'.")
    # the rarest is what stands least often at a given place of an English caption, roughly
    often = {token: math.prod(0.05 if c.isalpha() else 0.006 for c in token) for token in tokens}
    rarest = min(often, key=often.__getitem__)
    keys = _spellings(rarest)
    if not any_order and re.search("[-/]", name):
        return Form(label, keys, r"([\W_]+)".join(map(_any_spelling, tokens)), needs)
    others = tuple(_any_spelling(token) for token in dict.fromkeys(tokens) if token != rarest)
    needs += others
    return Form(label, keys, _any_spelling(rarest), needs) if needs else Form(label, keys)


def _spellings(text: str) -> tuple[str, ...]:
    """Cases and normal forms of a text; ASCII letters in lower case, as they match in either."""
    cases = (text, text.lower(), text.upper(), text.title())
    forms = [unicodedata.normalize(form, case) for case in cases for form in ("NFC", "NFD")]
    return tuple(dict.fromkeys(form.encode().lower().decode() for form in forms))


def _any_spelling(text: str) -> str:
    return f"(?ai:{'|'.join(map(re.escape, _spellings(text)))})"


def search(pattern: str, text: str) -> tuple[int, int] | None:
    """Where a pattern first matches with nothing wordy beside it or in its gaps: (start, stop)."""
    match = _compiled(pattern).search(text)
    while match:
        start, stop = match.span()
        around = text[start - 1 : start] + text[stop : stop + 1] + "".join(match.groups())
        if not any(map(wordy, around)):
            return start, stop
        match = _compiled(pattern).search(text, start + 1)
    return None


def wordy(character: str) -> bool:
    """Whether a character belongs to a word: letters, numbers and combining marks."""
    return unicodedata.category(character)[0] in "LNM"


_compiled = functools.cache(re.compile)
