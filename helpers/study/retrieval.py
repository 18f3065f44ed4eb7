"""Notebook 03: real pairs from the generator's own pool - text scan, semantic search, filters.

[P] sections 3 and C. Each pair that a rule finds is kept once per class, also where it names two.
A variant is a rule and a filter; the rules on text are in helpers/data/rules.py.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from helpers import worlds
from helpers.data import copies, rules, scan, tables
from helpers.data.shards import Lazy
from helpers.data.subsets import top_share
from helpers.data.tables import Benchmark, Pool
from helpers.engine import store
from helpers.errors import unknown
from helpers.models import clip
from helpers.study.embeddings import INDEX, SHARD, embeddings, search
from helpers.worlds import World

RULES = (*rules.RULES, "semantic")
FILTERS = ("top", "domain")
STEPS = ("NSFW", "CLIP filter", "cap", "near-duplicate")  # what drops candidates, in [P]'s order
DOMAIN_QUANTILE = 0.02  # share of validation images that the filter "domain" refuses; [W] tau ~ 0.2
CLASS_CAP = 10_000  # pairs per class, M [P]


def make(w: World) -> store.Artifact:
    """Retrieve, filter, cap and decontaminate for every task; keeps the candidates of all variants.

    Per task: ``{task}.npy`` images and ``{task}.parquet`` with ``label, class, caption, id, row,
    score, domain_score, copy``, and per variant ``keep:rule+filter`` (bool) and ``why:rule+filter``
    ("kept", or what dropped the pair). ``funnel.parquet`` counts rows after each step, and a card
    (``card.json``, ``README.md``) says how all this came about.
    """
    return store.make("retrieved", w, lambda path: _build(path, w))


def _build(path: Path, w: World) -> None:
    artifact = store.load("embeddings", w)
    pool = worlds.backend(w).open_pool(w)
    funnels = []
    tasks = {}
    for task in w.tasks:
        bench = worlds.backend(w).benchmark(w, task)
        limits = thresholds(w, artifact, bench)
        table = candidates(w, artifact, pool, bench)
        table = describe(path, w, bench, pool, table, limits)
        funnel = filter_variants(w, table, task, len(pool))
        store.write(path / f"{task}.parquet", table)
        funnels.append(funnel)
        tasks[task] = task_facts(w, bench, limits, table, funnel)
    store.write(path / "funnel.parquet", pd.concat(funnels, ignore_index=True))
    constants = {"index": INDEX, "domain_quantile": DOMAIN_QUANTILE, "class_cap": CLASS_CAP}
    facts = {
        "artifact": "retrieved",
        "code": tables.code_version("retrieved", w),
        "pool": tables.pool_version(pool),
        "retrieval": {**dataclasses.asdict(w.retrieval), **constants},
        "clip": dataclasses.asdict(w.clip),
        "tasks": tasks,
    }
    tables.card(path, facts)


def thresholds(w: World, artifact: store.Artifact, bench: Benchmark) -> dict[str, float]:
    """The least similarity to the ``domain`` text, and that above which two images are a ``copy``.

    All but a small share of validation images reach the similarity to the domain text [W].
    """
    text = clip.embed_texts(clip.load(w), [bench.domain])[0]
    similarity = artifact.array(f"val_{bench.task}.npy") @ text
    domain = float(np.quantile(similarity, DOMAIN_QUANTILE))
    return {"domain": domain, "copy": copies.threshold(bench)}


def candidates(w: World, artifact: store.Artifact, pool: Pool, bench: Benchmark) -> pd.DataFrame:
    """Every pair and class that any rule finds, with a bool column per rule.

    Columns ``row, label, class, caption, id, nsfw``. Raises ``StudyError`` on an unknown rule.
    """
    names = list(w.retrieval.rules)
    pair = ["row", "label", "class"]
    parts = []
    for rule in names:
        if rule not in RULES:
            raise unknown("retrieval rule", rule, RULES)
        if rule == "semantic":
            found = search(w, artifact, bench)
        else:
            found = scan.find(pool.shards, rules.plan(bench.classes, rule, _terms(bench, rule)))
        parts.append(found[pair].assign(**{rule: True}))
    table = pd.concat(parts).groupby(pair, as_index=False)[names].any()
    columns = pool.captions(table["row"])
    return table.assign(caption=columns["TEXT"], id=columns["SAMPLE_ID"], nsfw=columns["NSFW"])


def _terms(bench: Benchmark, rule: str) -> Mapping[str, rules.Terms] | None:
    """[C]'s map from classes to search terms, which belongs to its full-text search."""
    return rules.TERMS.get(bench.task) if rule == "tokens" else None


def describe(
    path: Path, w: World, bench: Benchmark, pool: Pool, table: pd.DataFrame, limits: dict
) -> pd.DataFrame:
    """The candidates with what the filters need: ``score, domain_score, in_domain, copy``.

    Scores are CLIP's similarities to the texts of label and domain; ``copy`` marks near-copies of
    test images. Images go to ``{task}.npy``; no more than ``SHARD`` of them are in memory.
    """
    images = path / f"{bench.task}.npy"
    held_out = path / "parts" / f"{bench.task}-held-out.npy"
    if not images.exists():
        store.write(images, Lazy(pool, rows=table["row"]))
    store.write(held_out, copies.descriptor(bench.test.images))
    jobs = {}
    for start in range(0, max(len(table), 1), SHARD):
        part = table[["row", "label"]].iloc[start : start + SHARD]
        file = f"parts/{bench.task}-{start:09d}.parquet"
        jobs[file] = (w, bench.task, part, images, start, held_out)
    files = store.fill(path, jobs, describe_shard, "shards described")
    known = pd.concat([store.read_table(file) for file in files], ignore_index=True)
    return table.assign(
        score=known["score"],
        domain_score=known["domain_score"],
        copy=known["similarity"] > limits["copy"],
        in_domain=known["domain_score"] >= limits["domain"],
    )


def describe_shard(
    w: World, task: str, table: pd.DataFrame, images: Path, start: int, held_out: Path
) -> pd.DataFrame:
    """``score``, ``domain_score`` and ``similarity`` (to the nearest held-out image) of candidates.

    ``table`` has their ``row`` and ``label``; their images are those of the file from ``start`` on.
    """
    bench = tables.benchmark(w, task)
    model = clip.load(w)
    labels = table["label"].to_numpy()
    vectors = embeddings(store.load("embeddings", w), "img", table["row"].to_numpy())
    score = clip.label_scores(model, vectors, labels, bench.classes, bench.templates)
    domain_score = np.einsum("nd,d->n", vectors, clip.embed_texts(model, [bench.domain])[0])
    descriptors = copies.descriptor(np.load(images, mmap_mode="r")[start : start + len(table)])
    similarity = copies.nearest(descriptors, np.load(held_out))
    return pd.DataFrame({"score": score, "domain_score": domain_score, "similarity": similarity})


def filter_variants(w: World, table: pd.DataFrame, task: str, pool_size: int) -> pd.DataFrame:
    """Add ``why:variant`` and ``keep:variant`` to ``table``; the funnels of all variants."""
    funnels = []
    for rule in w.retrieval.rules:
        for name in w.retrieval.filters:
            why = drop_reasons(w, table, rule, name)
            table[f"why:{rule}+{name}"] = why
            table[f"keep:{rule}+{name}"] = why == "kept"
            funnels.append(funnel(why, pool_size).assign(task=task, variant=f"{rule}+{name}"))
    return pd.concat(funnels, ignore_index=True)


def drop_reasons(w: World, table: pd.DataFrame, rule: str, name: str) -> np.ndarray:
    """What drops each candidate of a rule and a filter: "not matched" or a step; or "kept".

    Each of ``STEPS`` sees what the earlier ones left. Raises ``StudyError`` on an unknown filter.
    """
    if name not in FILTERS:
        raise unknown("filter", name, FILTERS)

    def refused(rows: pd.DataFrame) -> np.ndarray:
        if name == "domain":
            return ~rows["in_domain"].to_numpy()
        return ~top_share(rows["score"].to_numpy(), rows["label"].to_numpy(), w.clip.top_share)

    def surplus(rows: pd.DataFrame) -> np.ndarray:
        rank = rows.groupby("label")["score"].rank(ascending=False, method="first")
        return (rank > CLASS_CAP).to_numpy()

    fails = (
        lambda rows: (rows["nsfw"] == "NSFW").to_numpy(),  # UNSURE stays [C]
        refused,
        surplus,
        lambda rows: rows["copy"].to_numpy(),
    )
    why = np.where(table[rule], "kept", "not matched").astype(object)
    for step, failing in zip(STEPS, fails, strict=True):
        left = np.flatnonzero(why == "kept")
        why[left[failing(table.iloc[left])]] = step
    return why


def funnel(why: np.ndarray, pool_size: int) -> pd.DataFrame:
    """Rows left after each step of a variant, ``step, rows``; ``why`` tells what drops its rows."""
    rows = [("pool", pool_size), ("matched", int((why != "not matched").sum()))]
    for step in STEPS:
        rows.append((f"after {step}", rows[-1][1] - int((why == step).sum())))
    return pd.DataFrame(rows, columns=["step", "rows"])


def task_facts(
    w: World, bench: Benchmark, limits: dict, table: pd.DataFrame, funnel: pd.DataFrame
) -> dict:
    """What the card says of a task: spellings, thresholds, rows left by each step and per class."""
    classes = pd.DataFrame({"class": bench.classes})
    spellings = {rule: _spellings(bench, rule) for rule in w.retrieval.rules if rule != "semantic"}
    rows = funnel.pivot(index="variant", columns="step", values="rows")[funnel["step"].unique()]
    keeps = {c: c.removeprefix("keep:") for c in map(str, table) if c.startswith("keep:")}
    kept = table.groupby("class")[list(keeps)].sum().rename(columns=keeps)
    kept = kept.reindex(classes["class"], fill_value=0).astype(int)
    rounded = {name: round(limit, 6) for name, limit in limits.items()}
    return {
        "domain text": bench.domain,
        "templates": list(bench.templates),
        "held out": ["test"],
        "thresholds": {**rounded, "share kept per class": w.clip.top_share},
        "spellings": classes.assign(**spellings).to_dict("records"),
        "rows after each step": rows.reset_index().to_dict("records"),
        "kept per class": kept.reset_index().to_dict("records"),
    }


def _spellings(bench: Benchmark, rule: str) -> list[str]:
    """The keys or patterns by which a text rule looks for each class, joined by "|"."""
    spellings: list[list[str]] = [[] for _ in bench.classes]
    for form in rules.plan(bench.classes, rule, _terms(bench, rule)).forms:
        spellings[form.label] += [form.pattern] if form.pattern else form.keys
    return [" | ".join(of_class) for of_class in spellings]


def precision(
    table: pd.DataFrame, truth: pd.DataFrame, task: str, variants: Mapping[str, str]
) -> pd.DataFrame:
    """Share of rightly labelled rows before and after filtering, per variant; for evaluation only.

    ``variants``: column ``keep:rule+filter`` -> rule. ``truth``: the task (``kind``) and class
    (``cls``) that each picture of the pool shows.
    """
    shown = truth[["kind", "cls"]].iloc[table["row"]].reset_index(drop=True)
    right = (shown["kind"] == task) & (shown["cls"] == table["class"])
    rows = []
    for keep, rule in variants.items():
        for stage, column in (("matched", rule), ("kept", keep)):
            of_stage = right[table[column]]
            rows.append((task, keep.removeprefix("keep:"), stage, len(of_stage), of_stage.mean()))
    return pd.DataFrame(rows, columns=["task", "variant", "stage", "rows", "precision"])
