"""Notebook 06: how the loss falls with the number of images, per source, prompt, guidance and generator.

After *Scaling Laws of Synthetic Images for Model Training ... for Now* (arXiv 2312.04567). The classifier is a two-layer
network, trained from scratch on the frozen image tower of the study's CLIP: a whole tower from scratch stays at chance with
this many images and minutes.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from helpers import worlds
from helpers.data import tables
from helpers.data.subsets import nested_subset
from helpers.engine import randomness, store
from helpers.errors import StudyError
from helpers.measure import fits, inference
from helpers.measure.metrics import frechet
from helpers.models import heads
from helpers.study import arms
from helpers.study.arms import Arm
from helpers.worlds import World

RUN = ["source", "prompt", "guidance", "n", "seed", "loss", "top1", "eval_set"]
FIT = ["source", "prompt", "guidance", "eval_set", "k", "k_low", "k_high", "n_min", "n_max"]
CLASS_FLOOR = 1e-4  # nats: a class whose loss is lower is learned; its logarithm would be noise
PUBLISHED = (
    ("real", 0.528, 0.239, 0.207),
    ("Stable Diffusion, CLIP templates", 0.195, 0.253, 0.308),
    ("Stable Diffusion, captions", 0.245, 0.161, 0.179),
    ("Muse, captions", 0.237, 0.252, 0.226),
    ("Imagen, captions", 0.265, 0.152, 0.189),
)


def make(w: World) -> store.Artifact:
    """Train and measure every arm at every size: ``runs.parquet``, ``few_real.parquet``, ``metrics.parquet``.

    Needs the arms (``arms.make``). ``runs`` has a row per arm, n, seed, evaluation set and class; ``metrics`` per arm and class.
    """
    store.load("arms", w)
    return store.make("scaled", w, lambda path: _build(path, w))


def _build(path: Path, w: World) -> None:
    made = store.load("arms", w).path
    runs = store.fill(
        path,
        {f"runs/{name}.parquet": (w, made, name) for name in arms.arms(w)},
        run,
        "arms trained at all sizes",
    )
    few = store.fill(
        path,
        {
            f"few_real/{added}.parquet": (w, made, added)
            for added in (0, most(w, made, "synthetic"))
        },
        few_real,
        "few-real arms trained",
    )
    seen = store.fill(
        path,
        {f"metrics/{name}.parquet": (w, made, name) for name in arms.sets(w)},
        metrics,
        "arms judged",
    )
    for name, files in (("runs", runs), ("few_real", few), ("metrics", seen)):
        store.write(
            path / f"{name}.parquet",
            pd.concat([store.read_table(f) for f in files], ignore_index=True),
        )


def most(w: World, made: Path, name: str) -> int:
    """The largest size of an arm: what was drawn for it, or the last doubling that its source can fill."""
    return sizes(w, made, name)[-1]


def sizes(w: World, made: Path, name: str) -> list[int]:
    """The sizes an arm is trained at: the common ones, and further doublings for the sources that offer more."""
    common, further = (
        w.scaling.sizes,
        [w.scaling.sizes[-1] * 2 ** (i + 1) for i in range(w.scaling.beyond)],
    )
    parts = ["retrieved", "synthetic"] if name == "mixed" else [name]
    offered = min(len(arms.images_of(w, made, part)) for part in parts) * len(parts)
    kept = [
        n
        for n in (*common, *further)
        if n <= offered and (n <= common[-1] or name not in arms.drawn(w))
    ]
    if not kept:
        raise StudyError(
            f"{name} offers {offered} images, fewer than the smallest size {common[0]}; lower scaling sizes."
        )
    return kept


def subset(w: World, made: Path, name: str, n: int, seed: int) -> np.ndarray:
    """Positions of ``n`` images of a set, classes balanced; the set for n lies inside the one for 2 n of the same seed."""
    labels = arms.images_of(w, made, name).labels
    return nested_subset(labels, n, randomness.rng(w, "scaling", "subset", name, seed))


def _data(w: World, made: Path, names: list[str]) -> tuple[np.ndarray, np.ndarray]:
    return (
        np.concatenate([arms.embedding(made, name) for name in names], axis=1),
        np.concatenate([arms.images_of(w, made, name).labels for name in names]),
    )


def run(w: World, made: Path, name: str) -> pd.DataFrame:
    """One arm at all its sizes and seeds, trained as one ensemble: ``arm, n, seed, eval_set, class, images, loss, top1``.

    ``loss`` is the mean cross-entropy in nats over the ``images`` of a class, ``top1`` their accuracy (0..1).
    """
    members, subsets = [], []
    parts = ["retrieved", "synthetic"] if name == "mixed" else [name]
    offset = len(arms.images_of(w, made, parts[0]).labels)
    for n in sizes(w, made, name):
        for seed in range(w.scaling.seeds):
            share = [n - n // 2, n // 2] if name == "mixed" else [n]
            chosen = [
                subset(w, made, part, m, seed) + i * offset
                for i, (part, m) in enumerate(zip(parts, share, strict=True))
            ]
            subsets.append(np.concatenate(chosen))
            members.append({"arm": name, "n": n, "seed": seed})
    return measured(w, made, parts, members, subsets)


def few_real(w: World, made: Path, added: int) -> pd.DataFrame:
    """Growing numbers of real images of the task, with ``added`` drawn ones at all of them; columns of ``run`` and ``added``."""
    offset, members, subsets = len(arms.images_of(w, made, "train").labels), [], []
    for n in [*([0] if added else []), *sizes(w, made, "train")]:
        for seed in range(w.scaling.seeds):
            extra = subset(w, made, "synthetic", added, seed) + offset
            subsets.append(np.concatenate([subset(w, made, "train", n, seed), extra]))
            members.append({"arm": "few real", "n": n, "seed": seed, "added": added})
    return measured(w, made, ["train", "synthetic"], members, subsets)


def measured(
    w: World, made: Path, parts: list[str], members: list[dict], subsets: list[np.ndarray]
) -> pd.DataFrame:
    """Train one head per subset of the images of ``parts`` and evaluate it class by class on every evaluation set."""
    names = tables.benchmark(w, arms.task(w)).classes
    features, labels = _data(w, made, parts)
    seeds = [
        randomness.entropy(w.seed, "head", m["seed"]) for m in members
    ]  # the same start at every size and in every arm
    trained, measured_sets = (
        heads.train(features, labels, subsets, seeds, len(names), w.scaling),
        [],
    )
    for eval_set, split in arms.evaluation_sets(w).items():
        loss, top1 = heads.evaluate(
            trained, arms.embedding(made, eval_set)[0], split.labels, len(names)
        )
        images = np.bincount(split.labels, minlength=len(names))
        measured_sets += [
            pd.DataFrame(
                {
                    **member,
                    "eval_set": eval_set,
                    "class": names,
                    "images": images,
                    "loss": loss[i],
                    "top1": top1[i],
                }
            )
            for i, member in enumerate(members)
        ]
    return pd.concat(measured_sets, ignore_index=True)


def metrics(w: World, made: Path, name: str) -> pd.DataFrame:
    """What a judge trained on other renderings makes of an arm's images: one row per class, the same number of images per arm.

    ``recognizability``: F1 of the class asked for; ``diversity``: standard deviation of the features, root mean square over
    dimensions; ``distance``: mean pairwise distance of unit features, in place of LPIPS; ``frechet``: to validation images (torchmetrics).
    """
    from sklearn.metrics import f1_score

    b, backend, n = (
        tables.benchmark(w, arms.task(w)),
        worlds.backend(w),
        min(w.scaling.sizes[-1], most(w, made, name)),
    )
    split = arms.images_of(w, made, name)
    split = split.take(subset(w, made, name, n, 0))
    images = np.asarray(split.images)
    seen, features = backend.judge(w, images)["variant"], backend.judge_features(w, images)
    truth = np.array(b.classes, object)[split.labels]
    f1 = f1_score(truth, seen.to_numpy(), labels=list(b.classes), average=None, zero_division=0)
    groups = [features[split.labels == label] for label in range(len(b.classes))]
    return pd.DataFrame(
        {
            "arm": name,
            "class": b.classes,
            "images": [len(g) for g in groups],
            "recognizability": f1,
            "diversity": [spread(g) for g in groups],
            "distance": [pairwise(g) for g in groups],
            "frechet": frechet(backend.judge_features(w, b.val.images[: max(n, 2)]), features),
        }
    )


def spread(features: np.ndarray) -> float:
    """Root mean square over dimensions of the features' standard deviation; nan for fewer than two images."""
    return float(np.sqrt(features.var(0, ddof=1).mean())) if len(features) > 1 else float("nan")


def pairwise(features: np.ndarray) -> float:
    """Mean Euclidean distance between two different images' unit features; nan for fewer than two images."""
    import torch
    from torchmetrics.functional.pairwise import pairwise_euclidean_distance

    if len(features) < 2:
        return float("nan")
    unit = torch.nn.functional.normalize(torch.from_numpy(features).double(), dim=1)
    return float(pairwise_euclidean_distance(unit).sum() / (len(unit) * (len(unit) - 1)))


def tidy(w: World, runs: pd.DataFrame) -> pd.DataFrame:
    """The runs without their classes, as the figures show them: columns ``RUN`` and ``arm``; loss and top-1 over all images."""
    keys = [c for c in ("arm", "n", "seed", "added", "eval_set") if c in runs]
    weighted = runs.assign(loss=runs["loss"] * runs["images"], top1=runs["top1"] * runs["images"])
    table = weighted.groupby(keys, as_index=False, sort=False)[["loss", "top1", "images"]].sum()
    table[["loss", "top1"]] = table[["loss", "top1"]].div(table["images"], axis=0)
    return described(w, table.drop(columns="images")).sort_values(keys, ignore_index=True)


def described(w: World, table: pd.DataFrame) -> pd.DataFrame:
    """``table`` with what is known of its arms: ``source, prompt, guidance``."""
    known = {**arms.arms(w), "few real": Arm("few real", "train")}
    facts = {
        c: [getattr(known[a], c) for a in table["arm"]] for c in ("source", "prompt", "guidance")
    }
    return table.assign(**facts)


def declared(w: World) -> tuple[int, int]:
    """The range of sizes that all exponents are fitted on: from one image per class to the largest size that every arm has."""
    return max(len(tables.benchmark(w, arms.task(w)).classes), w.scaling.sizes[0]), w.scaling.sizes[
        -1
    ]


def fit(w: World, results: pd.DataFrame, low: int, high: int) -> pd.DataFrame:
    """Power laws of every arm and evaluation set of ``tidy``: columns ``FIT``, ``arm``, ``b``, ``floor``, ``evidence``.

    ``evidence`` above 0 prefers the saturating form, whose asymptote is ``floor``; nan with too few sizes to tell.
    """
    rows = []
    for (arm, eval_set), part in results.groupby(["arm", "eval_set"], sort=False):
        law = fits.power_law(
            part["n"],
            part["loss"],
            part["seed"],
            low,
            high,
            randomness.rng(w, "scaling", "bootstrap", arm, eval_set),
        )
        bent = fits.saturating(part["n"], part["loss"], low, high) if law.points > 3 else None
        rows.append(
            {
                "arm": arm,
                "eval_set": eval_set,
                **{c: getattr(law, c) for c in ("k", "k_low", "k_high", "n_min", "n_max", "b")},
                "floor": bent.floor if bent else np.nan,
                "evidence": bent.evidence if bent else np.nan,
            }
        )
    return described(w, pd.DataFrame(rows))


def intervention(w: World, made: store.Artifact) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The rare-class intervention class by class, and what thinning changed.

    First table: a row per ``pool`` and ``class``, with ``thinned, pairs, retrieved, recognizability, hit``, and of classifiers trained on
    the pool's drawings ``loss`` and ``top1`` at the largest size and ``k``. Second: ``quantity, difference, low, high``, thinned minus
    not thinned, paired by class, with the 95 % interval over the thinned classes.
    """

    runs, classes = made.table("runs.parquet"), made.table("classes.parquet")
    n = np.sort(runs["n"].unique())
    last = (
        runs[runs["n"] == n[-1]]
        .groupby(["arm", "class"])["loss"]
        .mean()
        .rename("loss")
        .reset_index()
    )
    laws = pd.concat(
        [per_class(runs, arm, n[0], n[-1]).assign(arm=arm) for arm in runs["arm"].unique()]
    )
    table = classes.merge(
        laws.merge(last), left_on=["pool", "class"], right_on=["arm", "class"]
    ).drop(columns="arm")
    rows = []
    for column in ("retrieved", "recognizability", "hit", "loss", "top1", "k"):
        wide = table[table.groupby("class")["thinned"].transform("any")].pivot(
            index="class", columns="thinned", values=column
        )
        rows.append((column, *inference.interval(wide[True] - wide[False])))
    return table, pd.DataFrame(rows, columns=["quantity", "difference", "low", "high"])


def beside(table: pd.DataFrame, others: pd.DataFrame, family: str) -> pd.DataFrame:
    """``table`` with the published points of a family below, marked: source "published real", "published synthetic" or "published mixed".

    They have the same columns: one seed, on ImageNet's validation images; what the publication does not say stays empty.
    """
    rows = others[others["family"] == family].assign(
        source=lambda t: "published " + t["training"], seed=0, eval_set="ImageNet validation"
    )
    return (
        pd.concat([table, rows.reindex(columns=table.columns)], ignore_index=True)
        if len(rows)
        else table
    )


def published() -> pd.DataFrame:
    """Exponents of the paper, per training set and evaluation set: measured in the pixels of its teaser figure, to 0.002.

    Whole networks, ImageNet classes, other sizes: only their order can be set beside exponents of the miniature.
    """
    return pd.DataFrame(
        PUBLISHED, columns=["training set", "ImageNet validation", "ImageNet-Sketch", "ImageNet-R"]
    )


def per_class(runs: pd.DataFrame, arm: str, low: int, high: int) -> pd.DataFrame:
    """k of every class on the test set for one arm and range of sizes: ``class, k, top1``; top-1 is that of the largest size."""
    part = runs[(runs["arm"] == arm) & (runs["eval_set"] == "test") & runs["n"].between(low, high)]
    rows = []
    for name, mine in part.groupby("class", sort=False):
        logs = np.log(mine["loss"].clip(lower=CLASS_FLOOR)).groupby(mine["n"]).mean()
        rows.append(
            {
                "class": name,
                "k": -float(np.polyfit(np.log(logs.index), logs, 1)[0]),
                "top1": float(mine.loc[mine["n"] == mine["n"].max(), "top1"].mean()),
            }
        )
    return pd.DataFrame(rows)
