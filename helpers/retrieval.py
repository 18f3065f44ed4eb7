"""Notebook 03: real pairs from the generator's own pool - text scan, semantic search, filters, decontamination.

[P] sections 3 and C. What a rule finds is kept once per class, also where a pair names two; the rules on text are in ``rules``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from helpers import clip, gpu, pools, provenance, rules, scan, store, worlds
from helpers.pools import Benchmark, Pool
from helpers.worlds import World, unknown

RULES = (*rules.RULES, "semantic")
FILTERS = ("top", "domain")
SHARD = 2_000


def embed_shard(w: World, kind: str, task: str, start: int, stop: int) -> np.ndarray:
    """Unit CLIP embeddings of pool images, pool captions, or a benchmark split's images, float32 (n, d)."""
    made = clip.load(w)
    if kind == "text":
        return clip.embed_texts(made, list(worlds.backend(w).open_pool(w).captions()["TEXT"].iloc[start:stop]))
    if kind == "img":
        return clip.embed_images(made, worlds.backend(w).open_pool(w).fetch(np.arange(start, stop)))
    return clip.embed_images(made, getattr(worlds.backend(w).benchmark(w, task), kind).images)


def embed(w: World) -> store.Artifact:
    """Embed the pool, and index it with clip-retrieval: ``img_emb/``, ``text_emb/``, ``metadata/``, ``image.index``, ``text.index``."""
    return store.make("embeddings", w, lambda path: _embed(path, w))


def _embed(path: Path, w: World) -> None:
    pool = worlds.backend(w).open_pool(w)
    jobs = {f"{kind}_emb/{kind}_emb_{i}.npy": (w, kind, "", start, min(start + SHARD, len(pool)))
            for kind in ("img", "text") for i, start in enumerate(range(0, len(pool), SHARD))}
    jobs |= {f"val_{task}.npy": (w, "val", task, 0, 0) for task in w.tasks}
    store.fill(path, jobs, embed_shard, "shards embedded")
    table = pool.captions()
    for i, start in enumerate(range(0, len(pool), SHARD)):
        rows = table.iloc[start : start + SHARD]
        store.write(path / "metadata" / f"metadata_{i}.parquet", rows.rename(columns={"TEXT": "caption", "URL": "url"}))
    index(path, *w.retrieval.index)


def index(path: Path, key: str, param: str) -> None:
    """Build both indices in clip-retrieval's layout with autofaiss, as ``clip-retrieval index`` does.

    ``key`` is a faiss factory string, ``param`` its search setting. Both are given, as autofaiss would choose by the clock,
    another index on every run; each is built on one core, so that its bytes repeat.
    """
    missing = [(path, kind, name, key, param) for kind, name in (("img", "image"), ("text", "text"))
               if not (path / f"{name}.index").exists()]
    for _ in store.progress(gpu.starmap(_index, missing), "indices built", len(missing)):
        pass


def _index(path: Path, kind: str, name: str, key: str, param: str) -> None:
    import contextlib
    import io
    import logging

    from autofaiss import build_index

    vectors = np.concatenate([np.load(f) for f in _numbered(path / f"{kind}_emb")])
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        build_index(embeddings=vectors, index_path=str(path / f"{name}.index.tmp"), metric_type="ip", index_key=key,
                    index_param=param, index_infos_path=str(path / f"{name}_infos.tmp"), max_index_memory_usage="1G",
                    current_memory_available="2G", nb_cores=1, verbose=logging.ERROR)
    (path / f"{name}.index.tmp").rename(path / f"{name}.index")


def _numbered(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.npy"), key=lambda p: int(p.stem.rsplit("_", 1)[1]))


def embeddings(artifact: store.Artifact, kind: str) -> np.ndarray:
    """All pool embeddings of a kind, "img" or "text", in the pool's order."""
    return np.concatenate([np.load(f) for f in _numbered(artifact.path / f"{kind}_emb")])


def nearest(path: Path, queries: np.ndarray, k: int) -> np.ndarray:
    """Pool positions of the ``k`` nearest pairs of each query, through an index written by ``index``: (queries, k)."""
    import faiss

    return faiss.read_index(str(path)).search(np.ascontiguousarray(queries, np.float32), k)[1]


def search(w: World, artifact: store.Artifact, bench: Benchmark) -> pd.DataFrame:
    """Semantic retrieval: per class and template the top-k by image united with the top-k by caption ([P] section 3)."""
    texts = [t for name in bench.classes for t in bench.texts(name)]
    label, k = np.repeat(np.arange(len(bench.classes)), len(bench.templates)), dict(w.retrieval.k_of).get(bench.task, w.retrieval.k)
    rows = worlds.backend(w).neighbours(w, texts, k)
    if rows is None:
        queries = clip.embed_texts(clip.load(w), texts)
        rows = np.concatenate([nearest(artifact.path / f"{name}.index", queries, k) for name in ("image", "text")], axis=1)
    found = [pd.DataFrame({"row": each, "label": i}) for i, each in zip(label, rows, strict=True)]
    table = pd.concat(found).query("row >= 0").drop_duplicates().sort_values(["row", "label"], ignore_index=True)
    return table.assign(**{"class": np.array(bench.classes, object)[table["label"]]})


def recall(artifact: store.Artifact, queries: np.ndarray, k: int) -> float:
    """Share of the exact ``k`` nearest images that the image index returns, 0..1."""
    exact = np.argsort(-queries @ embeddings(artifact, "img").T, axis=1)[:, :k]
    near = nearest(artifact.path / "image.index", queries, k)
    return float(np.mean([len(set(a) & set(b)) / k for a, b in zip(exact, near, strict=True)]))


def domain_threshold(w: World, artifact: store.Artifact, bench: Benchmark) -> float:
    """Threshold on the similarity to the one domain text ([W]): what all but a small share of validation images reach."""
    text = clip.embed_texts(clip.load(w), [bench.domain])[0]
    return float(np.quantile(artifact.array(f"val_{bench.task}.npy") @ text, w.retrieval.domain_quantile))


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
        table = candidates(w, artifact, pool, bench)
        file = store.write(path / f"{task}.npy", pools.Lazy(pool, rows=table["row"]))
        images = np.load(file, mmap_mode="r")
        limits = thresholds(w, artifact, bench)
        table = judged(w, artifact, bench, table, images, limits)
        for rule in w.retrieval.rules:
            for name in w.retrieval.filters:
                table[f"why:{rule}+{name}"] = why = dropped(w, table, rule, name)
                table[f"keep:{rule}+{name}"] = why == "kept"
                funnels.append(funnel(table, task, rule, name, len(pool)))
        store.write(path / f"{task}.parquet", table)
        tasks[task] = described(w, bench, limits, table, pd.concat(funnels[-len(w.retrieval.rules) * len(w.retrieval.filters) :]))
    store.write(path / "funnel.parquet", pd.concat(funnels, ignore_index=True))
    provenance.card(path, {"artifact": "retrieved", "code": provenance.code_version("retrieved", w),
                           "pool": provenance.pool_version(pool), "retrieval": dataclasses.asdict(w.retrieval),
                           "clip": dataclasses.asdict(w.clip), "tasks": tasks})


def described(w: World, bench: Benchmark, limits: Mapping[str, float], table: pd.DataFrame, steps: pd.DataFrame) -> dict:
    """What the card says of one task: spellings, queries, thresholds, rows after each step, and pairs kept per class."""
    text_rules = [rule for rule in w.retrieval.rules if rule != "semantic"]
    keeps, looked_for = [c for c in table if c.startswith("keep:")], {rule: _looked_for(bench, rule) for rule in text_rules}
    return {
        "domain text": bench.domain, "templates": list(bench.templates), "held out": list(w.retrieval.decontaminate),
        "thresholds": {**{k: round(v, 6) for k, v in limits.items()}, "share kept per class": w.clip.top_share},
        "spellings": [{"class": c, **{rule: " | ".join(looked_for[rule][i]) for rule in text_rules}}
                      for i, c in enumerate(bench.classes)],
        "rows after each step": steps.pivot(index="variant", columns="step", values="rows")[steps["step"].unique()].reset_index()
        .to_dict("records"),
        "kept per class": [{"class": c, **{k.removeprefix("keep:"): int(table.loc[table["class"] == c, k].sum()) for k in keeps}}
                           for c in bench.classes],
    }


def _terms(bench: Benchmark, rule: str) -> Mapping[str, rules.Terms] | None:
    return rules.TERMS.get(bench.task) if rule == "tokens" else None  # [C]'s class maps belong to its full-text search


def _looked_for(bench: Benchmark, rule: str) -> list[list[str]]:
    """For each class its keys or patterns in a text rule."""
    forms = rules.plan(bench.classes, rule, _terms(bench, rule)).forms
    return [[t for f in forms if f.label == i for t in ((f.pattern,) if f.pattern else f.keys)] for i in range(len(bench.classes))]


def candidates(w: World, artifact: store.Artifact, pool: Pool, bench: Benchmark) -> pd.DataFrame:
    """Every (pair, class) that any rule finds, with one bool column per rule. Raises ``StudyError`` on an unknown rule."""
    parts = []
    for rule in w.retrieval.rules:
        if rule not in RULES:
            raise unknown("retrieval rule", rule, RULES)
        found = search(w, artifact, bench) if rule == "semantic" else scan.find(pool.shards, bench.classes, rule, _terms(bench, rule))
        parts.append(found[["row", "label", "class"]].assign(**{rule: True}))
    table = pd.concat(parts).groupby(["row", "label", "class"], as_index=False)[list(w.retrieval.rules)].any()
    captions = pool.captions().iloc[table["row"]].reset_index(drop=True)
    return table.assign(caption=captions["TEXT"], id=captions["SAMPLE_ID"], nsfw=captions["NSFW"])


def thresholds(w: World, artifact: store.Artifact, bench: Benchmark) -> dict[str, float]:
    """``domain``: similarity to the domain text that is asked for; ``copy``: similarity above which two images are copies."""
    return {"domain": domain_threshold(w, artifact, bench), "copy": pools.copy_threshold(bench, w.retrieval.copy_quantile)}


def judged(w: World, artifact: store.Artifact, bench: Benchmark, table: pd.DataFrame, images: np.ndarray,
           limits: Mapping[str, float]) -> pd.DataFrame:
    """The candidates with what the filters need: similarity to label and domain, in the domain or not, copy or not."""
    vectors = embeddings(artifact, "img")[table["row"]]
    text = clip.embed_texts(clip.load(w), [bench.domain])[0]
    score = clip.label_scores(clip.load(w), vectors, table["label"].to_numpy(), bench.classes, bench.templates,
                              w.clip.aggregate)
    held_out = np.concatenate([getattr(bench, split).images for split in w.retrieval.decontaminate])
    return table.assign(score=score, domain_score=vectors @ text, in_domain=vectors @ text >= limits["domain"],
                        copy=pools.copies(images, held_out) > limits["copy"])


def dropped(w: World, table: pd.DataFrame, rule: str, name: str) -> np.ndarray:
    """Why each candidate is dropped in a variant, or "kept": not matched, NSFW, CLIP filter, cap, near-duplicate, in [P]'s order."""
    if name not in FILTERS:
        raise unknown("filter", name, FILTERS)
    why = np.where(table[rule], "kept", "not matched").astype(object)
    why[(why == "kept") & (table["nsfw"] == "NSFW")] = "NSFW"  # UNSURE stays [C]
    left = why == "kept"
    passed = table["in_domain"].to_numpy().copy()
    if name == "top":
        passed[left] = pools.top_share(table["score"][left].to_numpy(), table["label"][left].to_numpy(), w.clip.top_share)
    why[left & ~passed] = "CLIP filter"
    left = why == "kept"
    rank = table["score"][left].groupby(table["label"][left]).rank(ascending=False, method="first")
    why[np.flatnonzero(left)[(rank > w.retrieval.class_cap).to_numpy()]] = "cap"
    why[(why == "kept") & table["copy"]] = "near-duplicate"
    return why


def funnel(table: pd.DataFrame, task: str, rule: str, name: str, pool: int) -> pd.DataFrame:
    """Rows left after each step of a variant: columns ``step, rows, task, variant``."""
    why = table[f"why:{rule}+{name}"].value_counts()
    left, rows = int((table[rule]).sum()), [("pool", pool)]
    rows.append(("matched", left))
    for step in ("NSFW", "CLIP filter", "cap", "near-duplicate"):
        left -= int(why.get(step, 0))
        rows.append((f"after {step}", left))
    return pd.DataFrame(rows, columns=["step", "rows"]).assign(task=task, variant=f"{rule}+{name}")


def missing_classes(table: pd.DataFrame, classes: Sequence[str], keep: str) -> list[str]:
    """Classes without any kept row; the study goes on without them."""
    return [name for name in classes if not table.loc[table["class"] == name, keep].any()]


def precision(table: pd.DataFrame, truth: pd.DataFrame, task: str, variants: Mapping[str, str]) -> pd.DataFrame:
    """Share of rightly labelled rows per variant, before and after filtering; for evaluation only."""
    right = ((truth["kind"] == task).to_numpy() & True)[table["row"]] & (truth["cls"].to_numpy()[table["row"]] == table["class"])
    rows = []
    for keep, rule in variants.items():
        for stage, mask in (("matched", table[rule]), ("kept", table[keep])):
            rows.append((task, keep.removeprefix("keep:"), stage, int(mask.sum()), float(right[mask].mean()) if mask.any() else np.nan))
    return pd.DataFrame(rows, columns=["task", "variant", "stage", "rows", "precision"])
