"""The runner and its errors: unknown world, notebook, parameter, task, class; listing; gallery; one line with the way out."""

import numpy as np
import pandas as pd
import pytest

from helpers import figures, pools, run, store, worlds
from helpers.worlds import StudyError


def status(capsys, *arguments):
    code = run.main(list(arguments))
    return code, capsys.readouterr().err.strip()


@pytest.mark.parametrize("arguments, words", [
    (["pokcet"], "Did you mean 'pocket'"),
    (["pocket", "09"], "unknown notebook '09'"),
    (["pocket", "03_retreival"], "Did you mean '03_retrieval'"),
    (["pocket", "03", "-p", "wrold=paper"], "Did you mean 'world'"),
    (["pocket", "03", "-p", "seed"], "name=value"),
    (["pocket", "03", "-p", "seed=many"], "wants a int"),
])
def test_bad_input_is_one_line_with_the_way_out(capsys, arguments, words):
    code, message = status(capsys, *arguments)
    assert code == 2 and words in message and len(message.splitlines()) == 1


def test_list_names_every_notebook(capsys):
    assert run.main(["pocket", "--list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(run.notebooks()) and all(line.endswith("?") for line in lines)


def test_parameters_take_the_types_of_their_defaults():
    path = run.notebooks()["00"]
    other = run.notebooks()["01"]
    made = run._parameters([path, other], {"seed": "3", "retrain": "True", "world": "smoke"})
    assert made == {path: {"seed": 3, "retrain": True, "world": "smoke"}, other: {"seed": 3, "world": "smoke"}}


def test_a_failing_notebook_prints_its_message(capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("STUDY_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("STUDY_FIGURES", str(tmp_path / "figures"))
    code, message = status(capsys, "smoke", "02")
    assert code == 1 and "python -m helpers.run smoke 01" in message and len(message.splitlines()) == 1
    assert (tmp_path / "runs" / "smoke" / "02_image_synthesis.html").exists()


@pytest.mark.parametrize("changes, words", [
    ({"task": 1}, "setting of world"), ({"finetune": {"epoch": 3}}, "Did you mean 'epochs'"), ({"tasks": ("boats",)}, "aircraft"),
])
def test_unknown_settings(changes, words):
    with pytest.raises(StudyError, match=words):
        worlds.get("pocket", **changes)


def test_unknown_class_and_task():
    from helpers.pocket.render import subject

    with pytest.raises(StudyError, match="Did you mean 'A32"):
        subject("aircraft", "A32O")
    with pytest.raises(StudyError, match="unknown task"):
        subject("ships", "A320")


def test_paper_world_says_what_it_needs(monkeypatch):
    monkeypatch.delenv("STUDY_PAPER", raising=False)
    w = worlds.get("paper")
    with pytest.raises(StudyError, match="STUDY_PAPER"):
        worlds.backend(w).benchmark(w, "aircraft")
    with pytest.raises(StudyError, match="rendered worlds"):
        worlds.backend(w).intervention(w)


def test_randomness_depends_on_names_only():
    w = worlds.get("smoke")
    assert worlds.rng(w, "a", 1).random() == worlds.rng(w, "a", 1).random() != worlds.rng(w, "a", 2).random()
    assert worlds.entropy("ab", "c") != worlds.entropy("a", "bc")


def test_broken_image_and_half_written_shard(tmp_path):
    images = np.random.default_rng(0).integers(0, 255, (3, 8, 8, 3), dtype=np.uint8)
    rows = [{"caption": f"number {i}", "label": i} for i in range(3)]
    tar = tmp_path / "a.tar"
    tar.write_bytes(pools.tar_bytes(images, rows))
    again, facts = pools.read_tar(tar)
    assert np.array_equal(again, images) and facts == rows
    folder = pools.to_image_folder([tar], ["x", "y/z", "w"], tmp_path / "folder")
    assert sorted(p.name for p in folder.iterdir()) == ["w", "x", "y_z"]
    for broken in (tar.read_bytes()[:700], tar.read_bytes().replace(b"IHDR", b"IHDX", 1)):
        tar.write_bytes(broken)
        with pytest.raises(StudyError, match=r"a\.tar"):
            pools.read_tar(tar)


def test_only_wanted_members_are_decoded(tmp_path):
    images = np.random.default_rng(0).integers(0, 255, (5, 8, 8, 3), dtype=np.uint8)
    tar = pools.tar_bytes(images, [{"caption": f"number {i}", "label": i} for i in range(5)])
    (tmp_path / "0.tar").write_bytes(tar.replace(b"IHDR", b"IHDX", 1))  # the first image is broken
    (tmp_path / "1.tar").write_bytes(tar)
    shards = tuple(store.write(tmp_path / f"{i}.parquet", pd.DataFrame({"TEXT": range(5)})) for i in range(2))
    pool = pools.Pool(shards, pools.fetch_tar, (5, 5))
    rows = [9, 3, 6, 3, 1]
    assert np.array_equal(pool.fetch(rows), images[np.array(rows) % 5]) and pool.fetch([]).shape[0] == 0
    with pytest.raises(StudyError, match=r"0\.tar.*broken image"):
        pool.fetch([4, 0])
    (tmp_path / "1.tar").write_bytes(pools.tar_bytes(images[:4], [{"caption": ""}] * 4))  # another file of the same name
    with pytest.raises(StudyError, match="lists 5 rows.* 4 images"):
        pool.fetch([5])


def test_figures_need_alt_text_and_keep_it(tmp_path, monkeypatch):
    import matplotlib.pyplot as plt
    from PIL import Image

    monkeypatch.setenv("STUDY_FIGURES", str(tmp_path))
    w, alt = worlds.get("smoke"), "A line from zero to one, rising evenly, drawn for a test of how alt text is kept."
    with pytest.raises(StudyError, match="60 to 300"):
        figures.save(plt.figure(), "00_x", None, "short", w)
    fig, ax = plt.subplots()
    ax.plot([0, 1])
    shown = figures.save(fig, "00_x", None, alt, w)._repr_mimebundle_()
    assert alt in shown["text/html"] and Image.open(tmp_path / "smoke" / "00_x.png").text["Description"] == alt
    assert alt in run.write_gallery().read_text()


def test_intervals():
    mean, low, high = figures.interval([1.0, 2.0, 3.0])
    assert mean == 2 and high - mean == pytest.approx(4.302653 / 3**0.5, rel=1e-5) and mean - low == pytest.approx(high - mean)
    assert figures.share_interval(8, 10) == pytest.approx((0.4902, 0.9433), abs=1e-3)
