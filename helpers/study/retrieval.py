"""Notebook 03: real pairs from the generator's own pool - text scan, semantic search, filters.

[P] sections 3 and C. Each pair that a rule finds is kept once per class, also where it names two.
A variant is a rule and a filter.
"""

from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path

import numpy as np
import pandas as pd

from helpers import worlds
from helpers.data import copies, rules, scan, tables
from helpers.data.shards import Lazy
from helpers.data.subsets import top_share
from helpers.data.tables import Benchmark, Pool
from helpers.engine import artifacts, progress, store
from helpers.errors import unknown
from helpers.models import clip
from helpers.study.embeddings import INDEX, SHARD, embeddings, search
from helpers.worlds import World

RULES = (*rules.RULES, "semantic")
FILTERS = ("top", "domain")
STEPS = ("NSFW", "CLIP filter", "cap", "near-duplicate")  # what drops candidates, in [P]'s order
DOMAIN_QUANTILE = 0.02  # share of validation images that the filter "domain" refuses; [W] tau ~ 0.2
CLASS_CAP = 10_000  # pairs per class, M [P]


@store.builds("retrieved")
def make(path: Path, w: World) -> None:
    """Retrieve, filter, cap and decontaminate for every task; keeps the candidates of all variants.

    Images are in ``{task}.npy``; ``{task}.parquet`` has ``label, class, caption, id, row, score,
    domain_score, copy``, and per variant ``keep:rule+filter`` (bool) and ``why:rule+filter``
    ("kept", or what dropped it). ``funnel.parquet`` counts rows after each step;
    ``card.json`` and ``README.md`` sum up.
    """
    artifact = store.load("embeddings", w)
    pool = worlds.backend(w).open_pool(w)
    funnels, tasks = {}, {}
    for task in w.tasks:
        bench = tables.benchmark(w, task)
        limits = thresholds(w, artifact, bench)
        table = candidates(w, artifact, pool, bench)
        table = table.join(describe(path, w, bench, table))
        table["copy"] = table.pop("similarity") > limits["copy"]
        copied = f"{table['copy'].sum():,} of {len(table):,}"
        progress.say(f"{task}: {copied} candidates are near-copies")
        table["in_domain"] = table["domain_score"] >= limits["domain"]
        counts = []
        for rule, name in itertools.product(w.retrieval.rules, w.retrieval.filters):
            variant = f"{rule}+{name}"
            table[f"why:{variant}"] = why = drop_reasons(w, table, rule, name)
            table[f"keep:{variant}"] = why == "kept"
            counts.append(funnel(why, len(pool)).assign(task=task, variant=variant))
        store.write(path / f"{task}.parquet", table)
        funnels[task] = pd.concat(counts)
        tasks[task] = task_facts(w, bench, limits, table, funnels[task])
    store.write(path / "funnel.parquet", pd.concat(funnels.values(), ignore_index=True))
    constants = {"index": INDEX, "domain_quantile": DOMAIN_QUANTILE, "class_cap": CLASS_CAP}
    facts = {
        "artifact": "retrieved",
        "code": artifacts.edition("retrieved", w, digits=12),
        "pool": tables.pool_version(pool),
        "retrieval": {**dataclasses.asdict(w.retrieval), **constants},
        "clip": dataclasses.asdict(w.clip),
        "tasks": tasks,
    }
    tables.card(path, facts)


def thresholds(w: World, artifact: store.Artifact, bench: Benchmark) -> dict[str, float]:
    """The least similarity to the ``domain`` text [W], and that of a ``copy`` to an image."""
    text = clip.embed_texts(clip.load(w), [bench.domain])[0]
    similarity = artifact.array(f"val_{bench.task}.npy") @ text
    domain = float(np.quantile(similarity, DOMAIN_QUANTILE))
    return {"domain": domain, "copy": copies.threshold(bench)}


def candidates(w: World, artifact: store.Artifact, pool: Pool, bench: Benchmark) -> pd.DataFrame:
    """Every pair and class that any rule finds, with a bool column per rule.

    Columns ``row, label, class, caption, id, nsfw``. Raises ``StudyError`` on an unknown rule.
    """
    pair = ["row", "label", "class"]
    parts = []
    for rule in w.retrieval.rules:
        if rule not in RULES:
            raise unknown("retrieval rule", rule, RULES)
        if rule == "semantic":
            found = search(w, artifact, bench)
        else:
            found = scan.find(pool.shards, plan(bench, rule))
        parts.append(found[pair].assign(**{rule: True}))
    table = pd.concat(parts).groupby(pair, as_index=False)[list(w.retrieval.rules)].any()
    columns = pool.captions(table["row"])
    return table.assign(caption=columns["TEXT"], id=columns["SAMPLE_ID"], nsfw=columns["NSFW"])


def plan(bench: Benchmark, rule: str) -> rules.Plan:
    """What a text rule looks for; the published code has more terms for "tokens" [C]."""
    terms = rules.TERMS.get(bench.task) if rule == "tokens" else None
    return rules.plan(bench.classes, rule, terms)


def describe(path: Path, w: World, bench: Benchmark, table: pd.DataFrame) -> pd.DataFrame:
    """``score, domain_score, similarity`` of candidates; their images go to ``{task}.npy``."""
    if not (path / f"{bench.task}.npy").exists():
        images = Lazy(worlds.backend(w).open_pool(w), rows=table["row"])
        store.write(path / f"{bench.task}.npy", images)
    held_out = copies.descriptor(bench.test.images)
    store.write(path / "parts" / f"{bench.task}-held-out.npy", held_out)
    jobs = {}
    for start in range(0, max(len(table), 1), SHARD):
        part = table[["row", "label"]].iloc[start : start + SHARD]
        jobs[f"parts/{bench.task}-{start:09d}.parquet"] = (w, path, bench.task, part)
    files = store.fill(path, jobs, describe_shard, "shards described")
    return pd.concat(map(store.read_table, files), ignore_index=True)


def describe_shard(w: World, path: Path, task: str, table: pd.DataFrame) -> pd.DataFrame:
    """``score, domain_score``: similarities of candidates (``row, label``) to the texts of label
    and domain; ``similarity``: to the nearest held-out image."""
    bench = tables.benchmark(w, task)
    model = clip.load(w)
    vectors = embeddings(store.load("embeddings", w), "img", table["row"].to_numpy())
    labels = table["label"].to_numpy()
    score = clip.label_scores(model, vectors, labels, bench.classes, bench.templates)
    domain_score = np.einsum("nd,d->n", vectors, clip.embed_texts(model, [bench.domain])[0])
    images = np.load(path / f"{task}.npy", mmap_mode="r")[table.index.to_numpy()]
    held_out = np.load(path / "parts" / f"{task}-held-out.npy")
    similarity = copies.nearest(copies.descriptor(images), held_out)
    return pd.DataFrame({"score": score, "domain_score": domain_score, "similarity": similarity})


def drop_reasons(w: World, table: pd.DataFrame, rule: str, name: str) -> np.ndarray:
    """What drops each candidate of a rule and a filter: "not matched", one of ``STEPS``; or "kept".

    Raises ``StudyError`` on an unknown filter.
    """
    if name not in FILTERS:
        raise unknown("filter", name, FILTERS)
    why = np.where(table[rule], "kept", "not matched").astype(object)
    for step in STEPS:
        rows = np.flatnonzero(why == "kept")
        left = table.iloc[rows]
        score, label = left["score"], left["label"]
        if step == "NSFW":
            fails = left["nsfw"] == "NSFW"  # UNSURE stays [C]
        elif step == "cap":
            fails = score.groupby(label).rank(ascending=False, method="first") > CLASS_CAP
        elif step == "near-duplicate":
            fails = left["copy"]
        elif name == "domain":
            fails = ~left["in_domain"]
        else:
            fails = ~top_share(score.to_numpy(), label.to_numpy(), w.clip.top_share)
        why[rows[fails]] = step
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
    spellings = pd.DataFrame({"class": bench.classes})
    for rule in w.retrieval.rules:
        if rule != "semantic":
            forms = plan(bench, rule).forms
            words = [form.pattern or " | ".join(form.keys) for form in forms]
            spellings[rule] = pd.Series(words).groupby([f.label for f in forms]).agg(" | ".join)
    rows = funnel.pivot(index="variant", columns="step", values="rows")[funnel["step"].unique()]
    kept = table.filter(like="keep:").rename(columns=lambda c: c.removeprefix("keep:"))
    kept = kept.groupby(table["class"]).sum().reindex(spellings["class"], fill_value=0).astype(int)
    limits = {name: round(limit, 6) for name, limit in limits.items()}
    return {
        "domain text": bench.domain,
        "templates": list(bench.templates),
        "held out": ["test"],
        "thresholds": {**limits, "share kept per class": w.clip.top_share},
        "spellings": spellings.to_dict("records"),
        "rows after each step": rows.reset_index().to_dict("records"),
        "kept per class": kept.reset_index().to_dict("records"),
    }
