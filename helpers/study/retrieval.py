"""Notebook 03: real pairs from the generator's own pool - text scan, semantic search, filters, decontamination.

[P] sections 3 and C. What a rule finds is kept once per class, also where a pair names two; the rules on text are in ``rules``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from helpers import worlds
from helpers.data import cards, copies, rules, scan, tables
from helpers.data.shards import Lazy
from helpers.data.subsets import top_share
from helpers.data.tables import Benchmark, Pool
from helpers.engine import store
from helpers.errors import unknown
from helpers.models import clip
from helpers.study.embeddings import SHARD, embeddings, search
from helpers.worlds import World

RULES = (*rules.RULES, "semantic")
FILTERS = ("top", "domain")


def domain_threshold(w: World, artifact: store.Artifact, bench: Benchmark) -> float:
    """Threshold on the similarity to the one domain text ([W]): what all but a small share of validation images reach."""
    text = clip.embed_texts(clip.load(w), [bench.domain])[0]
    return float(
        np.quantile(artifact.array(f"val_{bench.task}.npy") @ text, w.retrieval.domain_quantile)
    )


def make(w: World) -> store.Artifact:
    """Retrieve, filter, cap and decontaminate for every task; the artifact holds the union of all variants' candidates.

    Per task: ``{task}.npy`` images and ``{task}.parquet`` with ``label, class, caption, id, row, score, domain_score, copy``,
    and per variant ``keep:rule+filter`` (bool) and ``why:rule+filter`` (the step that dropped it); ``funnel.parquet``; and a
    card (``card.json``, ``README.md``) that says how all this came about.
    """
    return store.make("retrieved", w, lambda path: _build(path, w))


def _build(path: Path, w: World) -> None:
    artifact, pool = store.load("embeddings", w), worlds.backend(w).open_pool(w)
    funnels, tasks = [], {}
    for task in w.tasks:
        bench = worlds.backend(w).benchmark(w, task)
        limits = thresholds(w, artifact, bench)
        table, descriptors = judged(
            path, w, bench, candidates(w, artifact, pool, bench), pool, limits
        )
        for rule in w.retrieval.rules:
            for name in w.retrieval.filters:
                table[f"why:{rule}+{name}"] = why = dropped(
                    w, table, rule, name, descriptors, limits["copy"]
                )
                table[f"keep:{rule}+{name}"] = why == "kept"
                funnels.append(funnel(w, table, task, rule, name, len(pool)))
        store.write(path / f"{task}.parquet", table)
        tasks[task] = described(
            w,
            bench,
            limits,
            table,
            pd.concat(funnels[-len(w.retrieval.rules) * len(w.retrieval.filters) :]),
        )
    store.write(path / "funnel.parquet", pd.concat(funnels, ignore_index=True))
    cards.card(
        path,
        {
            "artifact": "retrieved",
            "code": cards.code_version("retrieved", w),
            "pool": cards.pool_version(pool),
            "retrieval": dataclasses.asdict(w.retrieval),
            "clip": dataclasses.asdict(w.clip),
            "tasks": tasks,
        },
    )


def described(
    w: World,
    bench: Benchmark,
    limits: Mapping[str, float],
    table: pd.DataFrame,
    steps: pd.DataFrame,
) -> dict:
    """What the card says of one task: spellings, queries, thresholds, rows after each step, and pairs kept per class."""
    text_rules = [rule for rule in w.retrieval.rules if rule != "semantic"]
    keeps, looked_for = (
        [c for c in table if c.startswith("keep:")],
        {rule: _looked_for(bench, rule) for rule in text_rules},
    )
    return {
        "domain text": bench.domain,
        "templates": list(bench.templates),
        "held out": list(w.retrieval.decontaminate),
        "thresholds": {
            **{k: round(v, 6) for k, v in limits.items()},
            "share kept per class": w.clip.top_share,
        },
        "spellings": [
            {"class": c, **{rule: " | ".join(looked_for[rule][i]) for rule in text_rules}}
            for i, c in enumerate(bench.classes)
        ],
        "rows after each step": steps.pivot(index="variant", columns="step", values="rows")[
            steps["step"].unique()
        ]
        .reset_index()
        .to_dict("records"),
        "kept per class": [
            {
                "class": c,
                **{
                    k.removeprefix("keep:"): int(table.loc[table["class"] == c, k].sum())
                    for k in keeps
                },
            }
            for c in bench.classes
        ],
    }


def _terms(bench: Benchmark, rule: str) -> Mapping[str, rules.Terms] | None:
    return (
        rules.TERMS.get(bench.task) if rule == "tokens" else None
    )  # [C]'s class maps belong to its full-text search


def _looked_for(bench: Benchmark, rule: str) -> list[list[str]]:
    """For each class its keys or patterns in a text rule."""
    forms = rules.plan(bench.classes, rule, _terms(bench, rule)).forms
    return [
        [t for f in forms if f.label == i for t in ((f.pattern,) if f.pattern else f.keys)]
        for i in range(len(bench.classes))
    ]


def candidates(w: World, artifact: store.Artifact, pool: Pool, bench: Benchmark) -> pd.DataFrame:
    """Every (pair, class) that any rule finds, with one bool column per rule. Raises ``StudyError`` on an unknown rule."""
    parts = []
    for rule in w.retrieval.rules:
        if rule not in RULES:
            raise unknown("retrieval rule", rule, RULES)
        found = (
            search(w, artifact, bench)
            if rule == "semantic"
            else scan.find(pool.shards, bench.classes, rule, _terms(bench, rule))
        )
        parts.append(found[["row", "label", "class"]].assign(**{rule: True}))
    table = (
        pd.concat(parts)
        .groupby(["row", "label", "class"], as_index=False)[list(w.retrieval.rules)]
        .any()
    )
    captions = pool.captions(table["row"])
    return table.assign(caption=captions["TEXT"], id=captions["SAMPLE_ID"], nsfw=captions["NSFW"])


def thresholds(w: World, artifact: store.Artifact, bench: Benchmark) -> dict[str, float]:
    """``domain``: similarity to the domain text that is asked for; ``copy``: similarity above which two images are copies."""
    return {
        "domain": domain_threshold(w, artifact, bench),
        "copy": copies.threshold(bench, w.retrieval.copy_quantile),
    }


def judged(
    path: Path,
    w: World,
    bench: Benchmark,
    table: pd.DataFrame,
    pool: Pool,
    limits: Mapping[str, float],
) -> tuple[pd.DataFrame, Lazy]:
    """The candidates with what the filters need, and their copy descriptors.

    Adds ``score, domain_score`` (similarity to label and domain), ``in_domain`` and ``copy``. Images go to ``{task}.npy``, what
    is known of them to ``parts/``, ``SHARD`` candidates at a time; more are never in memory.
    """
    images, parts = path / f"{bench.task}.npy", range(0, max(len(table), 1), SHARD)
    if not images.exists():
        store.write(images, Lazy(pool, rows=table["row"]))
    held_out = np.concatenate(
        [copies.descriptor(getattr(bench, split).images) for split in w.retrieval.decontaminate]
    )
    held_out = store.write(path / "parts" / f"{bench.task}-held-out.npy", held_out)
    seen = store.fill(
        path,
        {f"parts/{bench.task}-{i:09d}.npy": (images, i) for i in parts},
        describe_shard,
        "shards described",
    )
    jobs = {
        f"parts/{file.stem}.parquet": (
            w,
            table[["row", "label"]].iloc[i : i + SHARD],
            file,
            held_out,
            bench.classes,
            bench.templates,
            bench.domain,
        )
        for i, file in zip(parts, seen, strict=True)
    }
    known = pd.concat(
        map(store.read_table, store.fill(path, jobs, judge_shard, "shards judged")),
        ignore_index=True,
    )
    table = table.assign(
        score=known["score"],
        domain_score=known["domain_score"],
        copy=known["similarity"] > limits["copy"],
        in_domain=known["domain_score"] >= limits["domain"],
    )
    return table, tables.on_disk(seen)


def describe_shard(images: Path, start: int) -> np.ndarray:
    """The copy descriptors of ``SHARD`` images of a file, from ``start`` on."""
    return copies.descriptor(np.load(images, mmap_mode="r")[start : start + SHARD])


def judge_shard(
    w: World,
    table: pd.DataFrame,
    descriptors: Path,
    held_out: Path,
    classes: tuple[str, ...],
    templates: tuple[str, ...],
    domain: str,
) -> pd.DataFrame:
    """Of some candidates (``row, label``) ``score``, ``domain_score``, and ``similarity`` to the nearest held-out picture."""
    made, vectors = clip.load(w), embeddings(store.load("embeddings", w), "img", table["row"])
    return pd.DataFrame(
        {
            "score": clip.label_scores(made, vectors, table["label"], classes, templates),
            "domain_score": np.einsum("nd,d->n", vectors, clip.embed_texts(made, [domain])[0]),
            "similarity": copies.nearest(np.load(descriptors), np.load(held_out)),
        }
    )


def steps(w: World) -> tuple[str, ...]:
    """What drops candidates, in [P]'s order; ``duplicate`` is not one of [P]'s steps."""
    return (
        "NSFW",
        "CLIP filter",
        "cap",
        "near-duplicate",
        *(("duplicate",) if w.retrieval.deduplicate else ()),
    )


def dropped(
    w: World,
    table: pd.DataFrame,
    rule: str,
    name: str,
    descriptors: np.ndarray | Lazy | None = None,
    limit: float = 1.0,
) -> np.ndarray:
    """Why each candidate is dropped in a variant: "not matched" or one of ``steps``; or "kept".

    ``near-duplicate`` is that of a held-out image. ``duplicate`` is that of another pair of the class which stays: the
    best-scoring one, of equals the one with the lower id. For it ``descriptors`` (of the table's rows) and ``limit`` are needed.
    """
    if name not in FILTERS:
        raise unknown("filter", name, FILTERS)
    why = np.where(table[rule], "kept", "not matched").astype(object)
    why[(why == "kept") & (table["nsfw"] == "NSFW")] = "NSFW"  # UNSURE stays [C]
    left = why == "kept"
    passed = table["in_domain"].to_numpy().copy()
    if name == "top":
        passed[left] = top_share(
            table["score"][left].to_numpy(), table["label"][left].to_numpy(), w.clip.top_share
        )
    why[left & ~passed] = "CLIP filter"
    left = why == "kept"
    rank = table["score"][left].groupby(table["label"][left]).rank(ascending=False, method="first")
    why[np.flatnonzero(left)[(rank > w.retrieval.class_cap).to_numpy()]] = "cap"
    why[(why == "kept") & table["copy"]] = "near-duplicate"
    if w.retrieval.deduplicate:
        ranked = table.reset_index(drop=True)[why == "kept"].sort_values(
            ["score", "id"], ascending=[False, True], kind="stable"
        )
        for _, rows in ranked.groupby("label").groups.items():
            why[rows[copies.duplicates(descriptors[rows], limit)]] = "duplicate"
    return why


def funnel(
    w: World, table: pd.DataFrame, task: str, rule: str, name: str, pool: int
) -> pd.DataFrame:
    """Rows left after each step of a variant: columns ``step, rows, task, variant``."""
    why = table[f"why:{rule}+{name}"].value_counts()
    left, rows = int((table[rule]).sum()), [("pool", pool)]
    rows.append(("matched", left))
    for step in steps(w):
        left -= int(why.get(step, 0))
        rows.append((f"after {step}", left))
    return pd.DataFrame(rows, columns=["step", "rows"]).assign(task=task, variant=f"{rule}+{name}")


def missing_classes(table: pd.DataFrame, classes: Sequence[str], keep: str) -> list[str]:
    """Classes without any kept row; the study goes on without them."""
    return [name for name in classes if not table.loc[table["class"] == name, keep].any()]


def precision(
    table: pd.DataFrame, truth: pd.DataFrame, task: str, variants: Mapping[str, str]
) -> pd.DataFrame:
    """Share of rightly labelled rows per variant, before and after filtering; for evaluation only."""
    right = ((truth["kind"] == task).to_numpy() & True)[table["row"]] & (
        truth["cls"].to_numpy()[table["row"]] == table["class"]
    )
    rows = []
    for keep, rule in variants.items():
        for stage, mask in (("matched", table[rule]), ("kept", table[keep])):
            rows.append(
                (
                    task,
                    keep.removeprefix("keep:"),
                    stage,
                    int(mask.sum()),
                    float(right[mask].mean()) if mask.any() else np.nan,
                )
            )
    return pd.DataFrame(rows, columns=["task", "variant", "stage", "rows", "precision"])
