"""All notebooks on the smoke world, through the runner: figures, tables, cached and killed runs."""

import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import time

import pandas as pd
import pytest
from PIL import Image

from helpers import run
from helpers.engine import catalogue
from tests.terminal import in_terminal, left_on_screen

ARM = ["source", "prompt", "guidance"]
COLUMNS = {
    "04_accuracy_vs_size": ["task", "source", "n", "seed", "metric", "accuracy"],
    "05_detail_fidelity": ["task", "source", "class", "attribute", "images", "correct"],
    "05_sdedit": ["strength", "seed", "metric", "accuracy", "task"],
    "05_mixing": ["synthetic_n", "retrieved_n", "seed", "metric", "accuracy", "equal", "task"],
    "06_loss_vs_size": [*ARM, "n", "seed", "loss", "top1", "eval_set", "calibrated"],
    "06_fits": [*ARM, "eval_set", "k", "k_low", "k_high", "n_min", "n_max", "measure", "range"],
    "06_language_supervision": ["source", "n", "seed", "loss", "top1", "shifted", "calibrated"],
    "07_prompts": ["family", "source", "n", "seed", "probe", "value"],
    "07_probes": ["family", "source", "seed", "probe", "setting", "value"],
    "00_timing": ["notebook", "seconds"],
}
PROBES = {
    "accuracy", "background", "calibration", "context", "corruption", "corruption_3d", "fgsm",
    "ood", "pgd", "renditions",
}  # fmt: skip


def declared(path):
    """The figures that a notebook's table announces."""
    text = "".join(json.loads(path.read_text())["cells"][1]["source"])
    row = next(line for line in text.splitlines() if "**Figures**" in line)
    return [part.strip("` ") for part in row.split("|")[2].split(",")]


def table(top, name):
    return pd.read_csv(top / "figures" / "smoke" / f"{name}.csv")


def test_all_notebooks_ran(smoke):
    assert list(smoke[1]) == [p.stem for p in catalogue.notebooks().values()]
    assert len(smoke[1]) >= 6
    for name in smoke[1]:
        assert (smoke[0] / "runs" / "smoke" / f"{name}.html").stat().st_size > 10_000


@pytest.mark.parametrize("number", ["00", "01", "02", "03", "04", "05", "06", "07"])
def test_declared_figures_exist_with_alt_text(smoke, number):
    for name in declared(catalogue.notebooks()[number]):
        png = smoke[0] / "figures" / "smoke" / f"{name}.png"
        assert 60 <= len(Image.open(png).text["Description"]) <= 300, name
        assert name in (smoke[0] / "figures" / "README.md").read_text()


@pytest.mark.parametrize("name", COLUMNS)
def test_contract_columns(smoke, name):
    made = table(smoke[0], name)
    assert list(made) == COLUMNS[name]
    assert len(made)
    assert not made.isna().any().any()


def test_funnel_never_grows(smoke):
    funnel = table(smoke[0], "03_funnel")
    assert {"step", "rows"} <= set(funnel)
    # after the pool: a pair that matches several classes counts once for each
    after = funnel[funnel["step"] != "pool"]
    for _, part in after.groupby(["task", "variant"]):
        assert part["rows"].is_monotonic_decreasing


def test_accuracies_are_complete(smoke):
    made = table(smoke[0], "04_accuracy_vs_size")
    assert set(made["source"]) == {"clip", "retrieved", "synthetic"}
    assert set(made["metric"]) == {"zero_shot", "linear_probe"}
    assert made["accuracy"].between(0, 1).all()
    assert (made.loc[made["source"] == "clip", "n"] == 0).all()
    sizes = made[made["source"] == "retrieved"].groupby("task")["n"].nunique()
    assert (sizes >= 3).all()
    assert set(sizes.index) == {"aircraft", "flowers", "cars"}
    trained = made[made["n"] > 0].groupby(["task", "source", "n", "metric"])
    assert (trained["seed"].nunique() == 2).all()


def test_details_are_counted_for_all_sources(smoke):
    made = table(smoke[0], "05_detail_fidelity")
    assert set(made["source"]) == {"ground_truth", "retrieved", "synthetic"}
    assert "axles" in set(made["attribute"])
    assert (made["correct"] <= made["images"]).all()
    assert made["images"].min() > 0


def test_scaling_is_complete_and_fitted_on_declared_ranges(smoke):
    made = table(smoke[0], "06_loss_vs_size")
    keys = [*ARM, "eval_set"]
    assert {"train", "retrieved", "mixed", "synthetic"} <= set(made["source"])
    assert len(set(made["eval_set"])) == 3
    assert {1.0, 7.5} <= set(made["guidance"])
    assert (made["loss"] > 0).all()
    assert made["top1"].between(0, 1).all()
    assert not made.duplicated([*keys, "n", "seed"]).any()
    assert (made.groupby([*keys, "n"])["seed"].nunique() == 3).all()
    laws = table(smoke[0], "06_fits")
    assert len(laws) == len(made[keys].drop_duplicates()) * 2 * 2  # two measures, two ranges
    assert (laws.groupby("range")[["n_min", "n_max"]].nunique() == 1).all().all()
    assert set(laws["measure"]) == {"error", "calibrated"}
    known = laws.dropna(subset=["k_low"])
    assert len(known) > 0.9 * len(laws)
    assert known["k"].between(known["k_low"], known["k_high"]).all()
    claims = table(smoke[0], "06_claims")
    assert {f"SL{i:02d}" for i in range(1, 13)} == set(claims["id"])
    assert (made["calibrated"] > 0).all()


def test_every_family_meets_every_source_under_every_probe(smoke):
    made = table(smoke[0], "07_probes")
    model = ["family", "source", "seed"]
    assert made.groupby(["family", "source"])["seed"].nunique().tolist() == [2] * 9
    probes = made[made["probe"].isin(PROBES)].groupby(model)["probe"].nunique()
    assert (probes == len(PROBES)).all()
    corruptions = made[made["probe"] == "corruption"].groupby(model)["setting"].nunique()
    assert (corruptions == 25).all()
    shares = made["probe"].isin(["fgsm", "pgd", "context", "corruption_3d"])
    assert made.loc[shares, "value"].between(0, 1).all()


def test_prompts_and_pairs_are_compared_at_equal_sizes(smoke):
    prompts = table(smoke[0], "07_prompts")
    assert set(prompts["source"]) == {"class names", "templates", "language model"}
    assert prompts["n"].nunique() == 2
    assert (prompts.groupby(["source", "n", "probe"])["seed"].nunique() == 2).all()
    assert {"shape", "pgd", "corruption"} <= set(prompts["probe"])
    seeds = table(smoke[0], "06_language_supervision").groupby(["source", "n"])["seed"].nunique()
    assert (seeds == 2).all()
    assert len(seeds) == 9


def test_the_intervention_is_made_on_request(smoke):
    made = table(smoke[0], "06_intervention")
    assert made.groupby("pool")["thinned"].sum().tolist() == [3, 3]
    assert (made.groupby("class")["thinned"].sum() <= 1).all()
    rare = made[made.groupby("class")["thinned"].transform("any")]
    pairs = rare.pivot(index="class", columns="thinned", values="pairs")
    assert (pairs[True] <= 8).all()
    assert (pairs[False] > pairs[True]).all()
    assert made["recognizability"].between(0, 1).all()


def digests(folder):
    """The hashes of all arrays, tars and tables below a folder, by their places."""
    return {
        str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in sorted(folder.rglob("*"))
        if p.is_file() and p.suffix in (".npy", ".tar", ".parquet") and "manifest" not in p.name
    }


def test_a_second_run_is_cached_and_equal(smoke, capfd):
    before = {p: p.read_bytes() for p in (smoke[0] / "figures" / "smoke").glob("0[1-5]_*.csv")}
    run.execute("smoke", ["01", "03"])
    printed = capfd.readouterr().out
    assert "captions: found" in printed
    assert "retrieved: found" in printed
    assert ": made" not in printed
    assert all(p.read_bytes() == content for p, content in before.items())


SHOWN = [  # on a terminal when a run is over
    r"   [\w -]+: \d+ in [\d.]+ s",
    r"   \w+: (found|made) .*",
    r"01_caption_generation: \d+ s",
    r"1 notebooks in \d+ s; figures in .*",
]


def without(smoke, folder, *names):
    """A store in ``folder`` that has all artifacts of the smoke run but those of these names."""
    again = folder / "smoke" / "store"
    again.mkdir(parents=True)
    for made in (smoke[0] / "runs" / "smoke" / "store").iterdir():
        if not made.name.startswith(names):
            (again / made.name).symlink_to(made)
    return again


def test_a_terminal_shows_what_is_running_and_no_prints_of_cells(smoke, tmp_path):
    without(smoke, tmp_path, "captions")
    folders = {"STUDY_RUNS": str(tmp_path), "STUDY_FIGURES": str(tmp_path / "figures")}
    written = in_terminal([sys.executable, "-m", "helpers.run", "smoke", "01"], **folders)
    assert re.search(r"\r\x1b\[K   01 caption generation · [^\r\n]+: 0 of \d+", written)
    lines = left_on_screen(written)
    assert not [line for line in lines if not any(re.fullmatch(shown, line) for shown in SHOWN)]
    assert [line for line in lines if line.startswith("   captions: made ")]
    copy = json.loads((tmp_path / "smoke" / "01_caption_generation.ipynb").read_text())
    outputs = [output for cell in copy["cells"] for output in cell.get("outputs", [])]
    assert "captioned: " in "".join("".join(output.get("text", "")) for output in outputs)


RETRIEVE = """
from helpers import worlds
from helpers.study import embeddings, retrieval

w = worlds.get("smoke")
embeddings.make(w)
retrieval.make(w)
"""


def test_a_killed_run_goes_on_to_the_same_bytes(smoke, tmp_path):
    """Retrieval from scratch beside the finished upstream models, killed on the way and resumed."""
    store = smoke[0] / "runs" / "smoke" / "store"
    again = without(smoke, tmp_path, "embeddings", "retrieved")
    environment = {
        **os.environ,
        "STUDY_RUNS": str(tmp_path),
        "STUDY_FIGURES": str(tmp_path / "figures"),
    }
    command = [sys.executable, "-c", RETRIEVE]
    process = subprocess.Popen(
        command, env=environment, start_new_session=True, stdout=subprocess.DEVNULL
    )
    until = time.monotonic() + 60
    while not list(again.glob("embeddings-*/*/*.npy")) and time.monotonic() < until:
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL)
    for name in ("embeddings", "retrieved"):
        first, second = (digests(next(s.glob(f"{name}-*"))) for s in (store, again))
        assert first
        assert first == second
