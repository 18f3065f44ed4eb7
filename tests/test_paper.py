"""The paper world on tiny artifacts in the published formats: all notebooks without edits, benchmarks, and what is missing."""

import contextlib
import hashlib
import json
import os
import re
import shutil

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from scipy.io import savemat

from helpers import run, worlds
from helpers.data.shards import tar_bytes
from helpers.engine import artifacts
from helpers.errors import StudyError
from helpers.models import clip
from helpers.paper import benchmarks, config
from tests import tiny
from tests.test_notebooks import COLUMNS

SETTINGS = """
language_model = "weights/llama"
clip = "weights/clip"
drawn = 64
kept = 32
judge = "weights/judge"
checkpoints = [
    ["supervised", "retrieved", "timm/weights/resnet"],
    ["supervised", "synthetic", "timm/test_resnet/weights/clone/model.safetensors"],
    ["language-supervised", "retrieved", "open_clip/weights/judge"],
    ["language-supervised", "synthetic", "open_clip/weights/clip"],
]
[generators]
"1.1" = "weights/generator"
"1.5" = "weights/generator"
[tasks.flora]
folder = "flora"
noun = "plant"
[world]
image_size = 32
tasks = ["aircraft", "flora"]
captions = { per_class = 16, max_new_tokens = 12, temperature = 3.0, top_p = 1.0 }
synthesis = { steps = 2, shard = 8, batch = 8 }
clip = { top_share = 0.5 }
retrieval = { k = 10 }
finetune = { sizes = [4, 8], seeds = 2, lrs = [1e-3, 1e-4], batch = 8, epochs = 1, warmup = 0.1, evaluations = 1 }
analysis = { size = 6, generators = ["1.1", "1.5"], strengths = [0.5], mix_synthetic = [0, 4] }
[world.scaling]
sizes = [2, 4, 8, 16]
beyond = 0
guidances = [1.0, 7.5]
prompts = ["class names", "alt text"]
generators = ["1.1", "1.5"]
seeds = 2
steps = 5
batch = 4
hidden = 8
pairs = [4, 8]
[world.robustness]
image_size = 32
context = 32
steps = 2
batch = 4
seeds = 2
probe_images = 6
validation = 6
attacked = 4
epsilons = [1, 4]
pgd_steps = 2
"""
AIRCRAFT, FLORA = ("A320", "F-16/A"), ("rose", "tree")


def picture(label: int, i: int, side: int = 40) -> np.ndarray:
    """A class is a colour and a stripe; images differ by noise."""
    rng = np.random.default_rng([label, i])
    image = np.full((side, side, 3), 40 + 50 * (label % 4), np.uint8)
    image[:: 2 + label % 3, :, label % 3] = 250
    return np.clip(image + rng.integers(-30, 30, image.shape), 0, 255).astype(np.uint8)


def jpeg(path, label: int, i: int) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture(label, i)).resize((56, 40)).save(path, quality=95)
    return path.name


def fgvc_aircraft(folder, per_class: int = 12) -> None:
    data = folder / "fgvc-aircraft-2013b" / "data"
    data.mkdir(parents=True)
    (data / "variants.txt").write_text("\n".join(AIRCRAFT) + "\n")
    for s, split in enumerate(("train", "val", "test")):
        names = [
            (jpeg(data / "images" / f"{s}{label}{i:05d}.jpg", label, 100 * s + i)[:-4], name)
            for label, name in enumerate(AIRCRAFT)
            for i in range(per_class)
        ]
        (data / f"images_variant_{split}.txt").write_text(
            "".join(f"{i} {name}\n" for i, name in names)
        )


def folders(
    folder, splits=("train", "test"), classes=FLORA, per_class: int = 15, first: int = 2
) -> None:
    for s, split in enumerate(splits):
        for label, name in enumerate(classes):
            for i in range(per_class):
                jpeg(folder / split / name / f"{i}.jpg", first + label, 100 * s + i)


def laion(folder, rows: int = 120, shard: int = 40) -> None:
    """Shards as helpers/paper/download/laion.py leaves them: LAION's columns beside a tar of images, one row per image."""
    folder.mkdir(parents=True)
    names = [*AIRCRAFT, *FLORA]
    for start in range(0, rows, shard):
        labels = np.arange(start, start + shard) % 5
        texts = [
            f"a photo of a {names[k]}, number {i}" if k < 4 else f"something else {i}"
            for i, k in enumerate(labels, start)
        ]
        images = np.stack([picture(k, 1_000 + i, 32) for i, k in enumerate(labels, start)])
        (folder / f"{start // shard:05d}.tar").write_bytes(
            tar_bytes(images, [{"caption": t} for t in texts])
        )
        pd.DataFrame(
            {
                "SAMPLE_ID": np.arange(start, start + shard),
                "url": [f"http://example.org/{i}" for i in range(start, start + shard)],
                "TEXT": texts,
                "NSFW": "UNLIKELY",
                "similarity": 0.3,
            }
        ).to_parquet(folder / f"{start // shard:05d}.parquet")


@pytest.fixture(scope="session")
def published(tmp_path_factory):
    """A ``$STUDY_PAPER`` with tiny weights, two tasks and a pool."""
    top = tmp_path_factory.mktemp("paper")
    for name in ("clip", "judge", "generator"):
        getattr(tiny, name)(top / "weights" / name)
    tiny.classifier(top / "weights" / "resnet")
    tiny.classifier(top / "weights" / "clone", seed=1)
    tiny.language_model(top / "weights" / "llama")
    tiny.probe_folders(top / "benchmarks")
    fgvc_aircraft(top / "benchmarks")
    folders(top / "flora")
    laion(top / "laion")
    (top / "paper.toml").write_text(SETTINGS)
    return top


@pytest.fixture
def paper(published, monkeypatch):
    monkeypatch.setenv("STUDY_PAPER", str(published))
    return worlds.get("paper")


@contextlib.contextmanager
def one_core():
    """On one core the jobs run in the kernels: no worker processes that import everything a second time for seconds of work."""
    every = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set()
    if every:
        os.sched_setaffinity(0, {min(every)})
    try:
        yield
    finally:
        if every:
            os.sched_setaffinity(0, every)


@pytest.fixture(scope="session")
def study(published, tmp_path_factory):
    """All notebooks in the paper world, by the command line of the real thing."""
    top = tmp_path_factory.mktemp("study")
    before = dict(os.environ)
    os.environ |= {
        "STUDY_PAPER": str(published),
        "STUDY_RUNS": str(top / "runs"),
        "STUDY_FIGURES": str(top / "figures"),
    }
    try:
        with one_core():
            assert run.main(["paper"]) == 0
    finally:
        for name in ("STUDY_PAPER", "STUDY_RUNS", "STUDY_FIGURES"):
            os.environ.pop(name, None)
        os.environ |= {k: v for k, v in before.items() if k.startswith("STUDY_")}
    return top


def test_all_notebooks_run_and_say_what_they_leave_out(study):
    figures = study / "figures" / "paper"
    assert len(pd.read_csv(figures / "00_timing.csv")) == 8
    for name in (
        "00_pool",
        "01_coverage",
        "02_clip_filter",
        "03_funnel",
        "04_accuracy_vs_size",
        "05_sdedit",
        "05_ablations",
        "06_arms",
        "06_shifted_sets",
        "06_recognizability_diversity",
        "06_per_class",
        "06_few_real",
        "07_probe_sets",
        "07_corruption_kinds",
        "07_ood",
        "07_attacks",
        "07_severity",
        "07_cues",
        "07_claims",
    ):
        assert (figures / f"{name}.png").exists() and (figures / f"{name}.csv").exists(), name
    for name in (
        "03_precision",
        "05_detail_fidelity",
        "06_intervention",
        "07_mixing",
        "07_prompts",
    ):
        assert not (figures / f"{name}.png").exists(), name
    for number in ("00_upstream", "03_retrieval", "05_analysis", "07_robustness"):
        cells = json.loads((study / "runs" / "paper" / f"{number}.ipynb").read_text())["cells"]
        printed = [
            line
            for c in cells
            for o in c.get("outputs", ())
            for line in "".join(o.get("text", "")).splitlines()
        ]
        assert any(
            line.startswith("left out: ") and "rendered worlds" in line for line in printed
        ), number


def test_results_are_complete(study):
    made = pd.read_csv(study / "figures" / "paper" / "04_accuracy_vs_size.csv")
    assert set(made["task"]) == {"aircraft", "flora"} and set(made["source"]) == {
        "clip",
        "retrieved",
        "synthetic",
    }
    assert (
        made["accuracy"].between(0, 1).all()
        and (made[made["n"] > 0].groupby(["task", "source", "n", "metric"]).size() == 2).all()
    )
    arms = pd.read_csv(study / "figures" / "paper" / "05_ablations.csv")["arm"].unique()
    assert {
        "captions-1.1",
        "captions-1.5",
        "alt-text",
        "templates",
        "retrieved",
        "decontaminated",
    } == set(arms)


@pytest.mark.parametrize(
    "name", [n for n in COLUMNS if n[:2] in ("06", "07") and n != "07_prompts"]
)
def test_tables_have_the_columns_of_every_world(study, name):
    made = pd.read_csv(study / "figures" / "paper" / f"{name}.csv")
    own = made[~made["source"].str.startswith("published")].drop(
        columns="shifted", errors="ignore"
    )  # sets this world does not have
    assert list(made) == COLUMNS[name] and len(own) and not own.isna().any().any()


def test_published_points_stand_beside_our_own_and_are_marked(study):
    for name, sources, first in (
        ("06_loss_vs_size", {"published synthetic"}, 10**6),
        (
            "06_language_supervision",
            {f"published {s}" for s in ("real", "synthetic", "mixed")},
            64 * 10**6,
        ),
    ):
        made = pd.read_csv(study / "figures" / "paper" / f"{name}.csv")
        theirs = made["source"].str.startswith("published")
        assert (
            set(made.loc[theirs, "source"]) == sources
            and theirs.sum() == 12
            and made.loc[theirs, "n"].min() == first
        )
        assert (
            "published points on ImageNet"
            in Image.open(study / "figures" / "paper" / f"{name}.png").text["Description"]
        )
        assert not theirs[: len(made) - 12].any() and {"retrieved", "synthetic", "mixed"} <= set(
            made.loc[~theirs, "source"]
        )
        if "eval_set" in made:
            assert set(made.loc[theirs, "eval_set"]) == {"ImageNet validation"} and set(
                made.loc[~theirs, "eval_set"]
            ) == {"test"}


def test_finished_checkpoints_go_through_all_probes_that_are_there(study):
    made, claims = (
        pd.read_csv(study / "figures" / "paper" / f"{name}.csv")
        for name in ("07_probes", "07_claims")
    )
    assert set(zip(made["family"], made["source"], made["seed"], strict=True)) == {
        (family, source, 0)
        for family in ("supervised", "language-supervised")
        for source in ("retrieved", "synthetic")
    }
    settings = made.groupby("probe")["setting"].agg(set)
    assert len(settings["corruption"]) == 25 and {
        s.split("-")[0] for s in settings["corruption_3d"]
    } == {"near_focus", "fog_3d"}
    assert {s.split("-")[0] for s in settings["ood"]} == {"far"} and settings["context"] == {
        "P0",
        "P1",
        "P2",
    }  # there is no sun
    assert {"renditions", "natural_adversarial", "shape", "background", "fgsm", "pgd"} <= set(
        settings.index
    )
    assert len(claims) == 10 and set(claims["holds"]) == {"one pair decides nothing"}
    by_model = made[(made["probe"] == "calibration") & (made["setting"] == "nll")]["value"]
    assert by_model.nunique() == 4  # each has weights of its own


def test_no_picture_is_described_as_one_of_the_miniature(study):
    false = re.compile("render|miniature|pocket|A321|[Ss]torm|wheels on|sketch|unseen")
    for png in sorted((study / "figures" / "paper").glob("*.png")):
        alt = Image.open(png).text["Description"]
        assert 60 <= len(alt) <= 300 and not false.search(alt), (png.stem, alt)


def test_weights_are_part_of_an_artifacts_name(published, paper, tmp_path, monkeypatch):
    """Other weights give another artifact; the same weights elsewhere the same one."""
    names = {
        n: artifacts.key(n, paper)
        for n in ("captions", "synthetic", "embeddings", "retrieved", "scaled", "robust")
    }
    shutil.copytree(published, tmp_path / "moved")
    monkeypatch.setenv("STUDY_PAPER", str(tmp_path / "moved"))
    assert {n: artifacts.key(n, worlds.get("paper")) for n in names} == names

    def changed_by(change) -> list[str]:
        before = {n: artifacts.key(n, worlds.get("paper")) for n in names}
        change(tmp_path / "moved")
        config._listing.cache_clear()
        after = {n: artifacts.key(n, worlds.get("paper")) for n in names}
        return [n for n in names if after[n] != before[n]]

    for change, made_anew in (
        (
            lambda top: (top / "weights/llama/more.json").write_text("x"),
            ["captions", "synthetic", "scaled", "robust"],
        ),
        (
            lambda top: (top / "weights/judge/more.json").write_text("x"),
            ["scaled", "robust"],
        ),  # it is probed, too
        (lambda top: (top / "weights/clone/model.safetensors").write_text("x"), ["robust"]),
        (lambda top: (top / "benchmarks/sun").mkdir(), ["robust"]),
    ):
        assert changed_by(change) == made_anew


@pytest.mark.parametrize(
    "text, words",
    [
        ('langage_model = "x"', "Did you mean 'language_model'"),
        ("drawn = 'large'", "it wants int"),
        ("x =", "wants TOML"),
        ("[tasks.birds]\nnoun = 'bird'", "folder is missing"),
        ("[world]\nfinetune = { epoch = 1 }", "Did you mean 'epochs'"),
        ("[world]\ntasks = ['aircaft']", "Did you mean 'aircraft'"),
        ("judge = 3", "judge was given 3; it wants str"),
        ("checkpoints = ['timm/resnet50']", "wants a tuple of tuples"),
        (
            "checkpoints = [['superwised', 'synthetic', 'timm/resnet50']]",
            "Did you mean 'supervised'",
        ),
        (
            "[world.robustness]\ncheckpoints = [['supervised', 'real', 'timm/resnet50']]",
            "unknown source of checkpoint 'timm/resnet50' 'real'",
        ),
    ],
)
def test_a_wrong_setting_is_one_line_with_the_way_out(tmp_path, monkeypatch, text, words):
    monkeypatch.setenv("STUDY_PAPER", str(tmp_path))
    (tmp_path / "paper.toml").write_text(text)
    with pytest.raises(StudyError, match=words):
        worlds.get("paper")


@pytest.mark.parametrize(
    "change, missing",
    [
        (("weights/llama", "weights/lama"), "language model"),
        (("drawn = 64", 'benchmarks = "elsewhere"'), "benchmark aircraft"),
        (("drawn = 64", 'index = "elsewhere"'), "index"),
        (("drawn = 64", 'laion = "elsewhere"'), "pool"),
        (("weights/clip", "laion2b_s34b_b88k"), "CLIP"),
        (('folder = "flora"', 'folder = "fauna"'), "benchmark flora"),
    ],
)
def test_nothing_starts_while_something_is_missing(
    published, tmp_path, monkeypatch, capsys, change, missing
):
    for part in ("weights", "benchmarks", "flora", "laion"):
        (tmp_path / part).symlink_to(published / part)
    assert change[0] in SETTINGS
    (tmp_path / "paper.toml").write_text(SETTINGS.replace(*change))
    monkeypatch.setenv("STUDY_PAPER", str(tmp_path))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("STUDY_RUNS", str(tmp_path / "runs"))
    assert run.main(["paper", "00", "01", "02", "03", "04", "05"]) == 2
    printed = capsys.readouterr().err
    assert (
        re.findall(r"^MISSING (.+?)  ", printed, re.M) == [missing]
        and not (tmp_path / "runs").exists()
    )
    assert "--check" in printed and "start" in printed.splitlines()[-2]


@pytest.mark.parametrize(
    "change, missing, words",
    [
        (
            ("weights/judge", "ViT-L-14/openai", 1),
            "CLIP that judges",
            (
                "looked for ViT-L-14/openai",
                "open_clip.create_model('ViT-L-14', 'openai')",
                "as judge in paper.toml",
            ),
        ),
        (
            ("timm/weights/resnet", "timm/resnet50.a1_in1k"),
            "probed checkpoint",
            (
                "timm.create_model('resnet50.a1_in1k', pretrained=True)",
                "as checkpoints in paper.toml",
            ),
        ),
        (
            ("clone/model.safetensors", "clone/gone.safetensors"),
            "probed checkpoint",
            ("weights/clone/gone.safetensors, supervised on synthetic",),
        ),
        (
            ("open_clip/weights/clip", "open_clip/weights/llama"),
            "probed checkpoint",
            ("open_clip_model.safetensors is missing",),
        ),
        (
            ("timm/weights/resnet", "timm/weights/clip"),
            "probed checkpoint",
            ("it has model.safetensors and config.json",),
        ),
        (
            ("timm/weights/resnet", "timm/resnett50"),
            "probed checkpoint",
            ("timm knows no model 'resnett50'",),
        ),
        (
            ("open_clip/weights/clip", "openclip/weights/clip"),
            "probed checkpoint",
            ("valid: 'timm/NAME'",),
        ),
        (
            ("clone/model.safetensors", "pickle.pth"),
            "probed checkpoint",
            ("pickle.pth is a pickle", "save_file"),
        ),
    ],
)
def test_judge_and_checkpoints_are_looked_for_before_anything_starts(
    published, tmp_path, monkeypatch, capsys, change, missing, words
):
    for part in ("benchmarks", "flora", "laion"):
        (tmp_path / part).symlink_to(published / part)
    (tmp_path / "weights").mkdir()
    for part in (published / "weights").iterdir():
        (tmp_path / "weights" / part.name).symlink_to(part)
    (tmp_path / "weights" / "pickle.pth").write_bytes(b"nobody opens this")
    assert change[0] in SETTINGS
    (tmp_path / "paper.toml").write_text(SETTINGS.replace(*change))
    for name, place in (("STUDY_PAPER", ""), ("HF_HUB_CACHE", "cache"), ("STUDY_RUNS", "runs")):
        monkeypatch.setenv(name, str(tmp_path / place))
    assert run.main(["paper"]) == 2
    printed = capsys.readouterr().err
    assert re.findall(r"^MISSING (.+?)  ", printed, re.M) == [missing] and all(
        word in printed for word in words
    ), printed


def test_check_names_cost_and_what_to_start(published, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("STUDY_PAPER", str(published))
    monkeypatch.setenv("STUDY_FIGURES", str(tmp_path))
    assert run.main(["paper", "--check"]) == 0
    printed = capsys.readouterr().out
    assert "MISSING" not in printed and "not measured: python -m tests.bench synthesis" in printed
    assert re.search(
        r"found +CLIP that judges +for 06 .*weights/judge/open_clip_model.safetensors", printed
    )
    assert (
        re.search(r"found +probe sets +for 07 +45 of 51 in .*; without sun ", printed)
        and "cost    07: " in printed
    )
    assert printed.count("probed checkpoint") == 4
    assert printed.rstrip().endswith(
        "can start: python -m helpers.run paper 00 01 02 03 04 05 06 07"
    )
    (tmp_path / "paper").mkdir()
    (tmp_path / "paper" / "00_throughput.csv").write_text(
        "bench,per_second,device\nsynthesis,0.5,a GPU\n"
    )
    run.main(["paper", "--check"])
    assert "device-hours (64 x synthesis at 0.5 a second on a GPU)" in capsys.readouterr().out


def test_a_missing_folder_says_so(monkeypatch, capsys):
    monkeypatch.delenv("STUDY_PAPER", raising=False)
    assert run.main(["paper", "01"]) == 2 and "$STUDY_PAPER" in capsys.readouterr().err


def stanford_cars(folder) -> None:
    names, kinds = np.array(["Audi S5", "BMW M3"], object), [("fname", "O"), ("class", "O")]
    for split, where in (
        ("train", "devkit/cars_train_annos.mat"),
        ("test", "cars_test_annos_withlabels.mat"),
    ):
        rows = [
            (jpeg(folder / "stanford_cars" / f"cars_{split}" / f"{i:05d}.jpg", i % 2, i), i % 2 + 1)
            for i in range(20)
        ]
        (folder / "stanford_cars" / "devkit").mkdir(parents=True, exist_ok=True)
        savemat(folder / "stanford_cars" / where, {"annotations": np.array(rows, dtype=kinds)})
    savemat(folder / "stanford_cars" / "devkit" / "cars_meta.mat", {"class_names": names})


def flowers_102(folder, monkeypatch) -> None:
    from torchvision.datasets import Flowers102

    top = folder / "flowers-102"
    for i in range(1, 103 * 3):
        jpeg(top / "jpg" / f"image_{i:05d}.jpg", i % 102, i)
    savemat(top / "imagelabels.mat", {"labels": np.arange(1, 103 * 3) % 102 + 1})
    savemat(
        top / "setid.mat",
        {name: np.arange(1, 103) + 102 * k for k, name in enumerate(("trnid", "valid", "tstid"))},
    )
    sums = {
        kind: (file, hashlib.md5((top / file).read_bytes()).hexdigest())
        for kind, file in (("label", "imagelabels.mat"), ("setid", "setid.mat"))
    }
    monkeypatch.setattr(
        Flowers102, "_file_dict", {**Flowers102._file_dict, **sums}
    )  # our lists are other than the published ones


def textures(folder) -> None:
    data = folder / "dtd" / "dtd"
    (data / "labels").mkdir(parents=True)
    for s, split in enumerate(("train", "val", "test")):
        rows = [
            f"{name}/{jpeg(data / 'images' / name / f'{name}_{s}{i}.jpg', k, 10 * s + i)}"
            for k, name in enumerate(("banded", "lacy"))
            for i in range(3)
        ]
        (data / "labels" / f"{split}1.txt").write_text("\n".join(rows) + "\n")


def test_benchmarks_have_their_published_splits(paper, tmp_path, monkeypatch):
    textures(tmp_path / "benchmarks")
    flowers_102(tmp_path / "benchmarks", monkeypatch)
    stanford_cars(tmp_path / "benchmarks")
    (tmp_path / "paper.toml").write_text("[world]\nimage_size = 24")
    monkeypatch.setenv("STUDY_PAPER", str(tmp_path))
    w = worlds.get("paper")
    made = {task: worlds.backend(w).benchmark(w, task) for task in ("dtd", "flowers", "cars")}
    assert [tuple(len(getattr(b, s)) for s in ("train", "val", "test")) for b in made.values()] == [
        (6, 6, 6),
        (102, 102, 102),
        (16, 4, 20),
    ]
    assert [len(b.templates) for b in made.values()] == [8, 1, 8] and made["cars"].classes == (
        "Audi S5",
        "BMW M3",
    )
    cars = made["cars"]
    kept = {f for s in (cars.train, cars.val) for f in s.images.sources[0].files}
    assert len(kept) == 20 and made["flowers"].train.images[:3].shape == (3, 24, 24, 3)
    for bench in made.values():  # what is decoded belongs to the label beside it
        for i in (0, len(bench.test) - 1):
            label = int(bench.test.labels[i])
            assert (
                bench.test.facts["class"][i] == bench.classes[label]
                and bench.test.images[i].dtype == np.uint8
            )


def test_imagenet_has_a_thousand_names_and_folders(tmp_path, monkeypatch):

    names, templates = clip.imagenet()
    assert (
        len(set(names)) == len(names) == 1_000
        and len(templates) == 80
        and all("{}" in t for t in templates)
    )
    assert (names[134], names[517], names[638], names[639]) == (
        "crane bird",
        "construction crane",
        "tights",
        "one-piece bathing suit",
    )
    assert (names[657], names[744], names[836], names[837]) == (
        "missile",
        "projectile",
        "sunglass",
        "sunglasses",
    )
    top = tmp_path / "benchmarks" / "imagenet"
    for i in range(1_000):
        for split in ("train", "val"):
            (top / split / f"n{i:08d}").mkdir(parents=True)
            (top / split / f"n{i:08d}" / "a.JPEG").touch()
    jpeg(top / "val" / "n00000007" / "a.JPEG", 7, 0)
    (tmp_path / "paper.toml").write_text("")
    monkeypatch.setenv("STUDY_PAPER", str(tmp_path))
    w = worlds.get("paper")
    bench = worlds.backend(w).benchmark(
        w, "imagenet"
    )  # nothing is decoded: most of these files are empty
    assert (len(bench.train), len(bench.val), len(bench.test)) == (800, 200, 1_000)
    assert bench.test.images[7].shape == (224, 224, 3) and bench.test.facts["class"][7] == names[7]
    with pytest.raises(StudyError, match=r"cannot read the image .*n00000008"):
        bench.test.images[7:9]
    shutil.rmtree(top / "train" / "n00000005")
    benchmarks._benchmark.cache_clear()
    with pytest.raises(StudyError, match="999 folders"):
        worlds.backend(w).benchmark(w, "imagenet")


def test_own_task_needs_folders_and_names_only(paper, published, tmp_path, monkeypatch):
    bench = worlds.backend(paper).benchmark(paper, "flora")
    assert (
        bench.classes == FLORA
        and (len(bench.train), len(bench.val), len(bench.test)) == (24, 6, 30)
        and bench.noun == "plant"
    )
    folders(tmp_path / "flora", ("train", "val", "test"), ("tree", "black_rose"), 2)
    (tmp_path / "flora" / "names.txt").write_text("tree\nblack/rose\n")
    text = (
        "[tasks.flora]\nfolder = 'flora'\nclasses = 'flora/names.txt'\n[world]\ntasks = ['flora']"
    )
    (tmp_path / "paper.toml").write_text(text)
    monkeypatch.setenv("STUDY_PAPER", str(tmp_path))
    w = worlds.get("paper")
    bench = worlds.backend(w).benchmark(w, "flora")
    assert (
        bench.classes == ("tree", "black/rose")
        and len(bench.val) == 4
        and list(bench.test.labels) == [0, 0, 1, 1]
    )
    folders(tmp_path / "flora", ("train",), ("tre",), 1)
    benchmarks._benchmark.cache_clear()
    with pytest.raises(StudyError, match="Did you mean 'tree'"):
        worlds.backend(w).benchmark(w, "flora")
