"""What it means that a caption names a class: the text rules, and what to look for so that ``scan`` finds it fast.

Three rules, as paper and code disagree: ``substring`` ([P]: the caption contains the name), ``word`` (the name with no letter
or digit beside it, any separator for any other: "F-16A/B" is "f 16a_b") and ``tokens`` (as [C]'s full-text search: the
name's tokens anywhere in the caption, consecutive if the name has "-" or "/"). Letters of ASCII match in either case, others
as written, in lower, upper and title case, composed (NFC) and decomposed (NFD). What compatibility equates (fullwidth "Ａ",
the Kelvin sign) stays different, accents count, and no match ends before a combining mark: "rose" is not in "rosé".
"""

from __future__ import annotations

import functools
import heapq
import itertools
import math
import re
import unicodedata
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from helpers.errors import StudyError, unknown

RULES = ("substring", "word", "tokens")
SEPARATORS = " -_/\u2013"  # one stands for any other in ``word``; the last is the en dash
FAST = 100  # patterns up to which polars' Aho-Corasick automaton is a DFA; beyond, a three times slower NFA


@dataclass(frozen=True)
class Terms:
    """What else a class is called, and what must stand beside its name; read by ``word`` and ``tokens``."""

    synonyms: tuple[str, ...] = ()
    cowords: tuple[str, ...] = ()  # at least one of them, as a word, anywhere in the caption
    any_order: bool = False  # ``tokens``: a name with "-" or "/" is no phrase


TERMS: dict[
    str, dict[str, Terms]
] = {  # task -> class, or "*" for all others; after [C]'s class maps
    "flowers": {
        "rose": Terms(cowords=("flower",)),
        "lotus": Terms(cowords=("flower",)),
        "colt's foot": Terms(("coltsfoot",)),
    },
    "cars": {"*": Terms(any_order=True)},
    "dtd": {"*": Terms(cowords=("texture", "pattern", "thing", "object"))},
}


@dataclass(frozen=True)
class Form:
    """One way to name a class. Without ``pattern`` a key is the match; with it, what ``search`` finds where a key is."""

    label: int
    keys: tuple[str, ...]  # every match contains one of them, ASCII letters in either case
    pattern: str | None = None
    needs: tuple[str, ...] = ()  # patterns that ``search`` must find as well


@dataclass(frozen=True)
class Plan:
    """A rule applied to class names: what to look for. Made once by ``plan``, used on every shard."""

    rule: str
    classes: tuple[str, ...]
    forms: tuple[Form, ...]
    keys: tuple[str, ...]  # of all forms, each once

    @functools.cached_property
    def pieces(self) -> tuple[str, ...]:
        """Prefilter for an engine that is slow with many keys: every key contains one; () where it would save nothing."""
        return pieces(self.keys)


def wordy(char: str) -> bool:
    """Whether a character belongs to a word: letters, numbers and combining marks."""
    return bool(char) and unicodedata.category(char)[0] in "LNM"


def search(pattern: str, text: str) -> tuple[int, int] | None:
    """Where a form's pattern first stands in a text with nothing wordy beside it, nor a mark in its gaps: (start, stop)."""
    match = _compiled(pattern).search(text)
    while match:
        start, stop = match.span()
        if not (
            wordy(text[start - 1 : start])
            or wordy(text[stop : stop + 1])
            or any(map(wordy, "".join(match.groups())))
        ):
            return start, stop
        match = _compiled(pattern).search(text, start + 1)
    return None


_compiled = functools.cache(re.compile)


def _ascii_lower(text: str) -> str:
    return text.encode().lower().decode()


def _spellings(text: str) -> tuple[str, ...]:
    """Cases and Unicode normal forms of a text; ASCII letters in lower case, as they match in either."""
    cased = dict.fromkeys((text, text.lower(), text.upper(), text.title()))
    return tuple(
        dict.fromkeys(
            _ascii_lower(unicodedata.normalize(n, t)) for t in cased for n in ("NFC", "NFD")
        )
    )


def _any_of(text: str) -> str:
    return f"(?ai:{'|'.join(map(re.escape, _spellings(text)))})"


def _word_form(label: int, name: str, needs: tuple[str, ...]) -> Form:
    one = f"[{re.escape(SEPARATORS)}]"
    parts = [p for p in re.split(f"{one}+", name) if p] or [name]
    if re.search(f"{one}{one}", name):  # as many spellings as there are runs of separators
        return Form(
            label, _spellings(max(parts, key=len)), f"{one}+".join(map(_any_of, parts)), needs
        )
    best = max(list(itertools.pairwise(parts)) or [parts], key=lambda pair: len("".join(pair)))
    keys = tuple(
        dict.fromkeys(
            s.join(p) for p in itertools.product(*map(_spellings, best)) for s in SEPARATORS
        )
    )
    whole = len(parts) <= 2 and not needs
    return Form(label, keys, None if whole else one.join(map(_any_of, parts)), needs)


def _tokens(text: str) -> list[str]:
    return ["".join(run) for token, run in itertools.groupby(text, wordy) if token]


def _token_form(label: int, name: str, needs: tuple[str, ...], any_order: bool) -> Form:
    tokens = _tokens(name)
    if not tokens:
        raise StudyError(
            f"class name {name!r} has no letter or digit; the rule 'tokens' cannot find it. Rename it or take 'word'."
        )
    rarest = min(tokens, key=_likely)
    if not any_order and re.search("[-/]", name):
        return Form(label, _spellings(rarest), r"([\W_]+)".join(map(_any_of, tokens)), needs)
    others = tuple(_any_of(t) for t in dict.fromkeys(tokens) if t != rarest)
    return Form(
        label, _spellings(rarest), _any_of(rarest) if needs or others else None, needs + others
    )


def plan(classes: Sequence[str], rule: str, terms: Mapping[str, Terms] | None = None) -> Plan:
    """What to look for: ``rule`` applied to the class names, with a task's ``terms`` (``TERMS[task]``; not for ``substring``).

    Raises ``StudyError`` on an unknown rule, an empty name, or a name without a token in ``tokens``.
    """
    if rule not in RULES:
        raise unknown("text rule", rule, RULES)
    if not classes:
        raise StudyError("a scan needs at least one class name; none was given.")
    forms = []
    for label, name in enumerate(classes):
        if not name.strip():
            raise StudyError(
                f"class {label} of {len(classes)} has an empty name, which every caption contains. Name it."
            )
        known = (terms or {}).get(name) or (terms or {}).get("*", Terms())
        needs = ("|".join(map(_any_of, known.cowords)),) if known.cowords else ()
        if rule == "substring":
            forms.append(Form(label, _spellings(name)))
        elif rule == "word":
            forms += [_word_form(label, n, needs) for n in (name, *known.synonyms)]
        else:
            forms += [
                _token_form(label, n, needs, known.any_order) for n in (name, *known.synonyms)
            ]
    keys = tuple(dict.fromkeys(k for form in forms for k in form.keys))
    return Plan(rule, tuple(classes), tuple(forms), keys)


def _likely(piece: str) -> float:
    """Roughly how often a piece stands at a given place of an English caption: rarer with digits and with its length."""
    return math.prod(0.16 if c == " " else 0.05 if c.isalpha() else 0.006 for c in piece)


def pieces(keys: Sequence[str]) -> tuple[str, ...]:
    """At most ``FAST`` pieces of keys such that every key contains one; () for as few keys already, or if it takes more.

    Greedy set cover, weighing what a piece costs against the captions that it lets through for nothing.
    """
    if not FAST < len(keys) <= 10 * FAST or min(map(len, keys)) < 3:
        return ()
    holds, picked, left = defaultdict(set), [], set(range(len(keys)))
    for i, key in enumerate(keys):
        for piece in (key[j : j + n] for n in (3, 4, 5) for j in range(len(key) - n + 1)):
            holds[piece].add(i)
    queue = [(-len(at) / (1 + 20_000 * _likely(p)), p) for p, at in holds.items()]
    heapq.heapify(queue)
    while left and len(picked) < FAST:
        was, piece = heapq.heappop(queue)
        now = -len(holds[piece] & left) / (1 + 20_000 * _likely(piece))
        if now > was:  # worth less than when it was queued, as others cover its keys by now
            heapq.heappush(queue, (now, piece))
        elif now < 0:
            picked.append(piece)
            left -= holds[piece]
    return () if left else tuple(picked)
