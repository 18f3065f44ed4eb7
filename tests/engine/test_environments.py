"""Environments that people have: whose folders, whose settings, what runs beside.

Two runs start at once in a clone with a strange path and everything around them is in the way; then
plain papermill and a kernel from elsewhere. What needs no run is tried on the functions themselves.
"""

import errno
import fcntl
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import loky.backend.context
import nbformat
import numpy as np
import pandas as pd
import pytest
from jupyter_client.manager import start_new_kernel
from nbconvert.filters import markdown2html
from packaging.requirements import Requirement
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from helpers import pages, run, worlds
from helpers.engine import artifacts, gpu, manifest, places, progress, report, store
from helpers.errors import StudyError
from helpers.study import embeddings

W = worlds.get("smoke")
SHADOW = "raise RuntimeError('this is not the helpers of the study')\n"
ALT = "A line that rises evenly from zero to one, drawn to see where a figure is kept."
CELL = f"""
import matplotlib.pyplot as plt
import helpers
from helpers import worlds
from helpers.engine import figures, gpu, places, store

gpu.cores = lambda: 1  # no other processes
w = worlds.get(world, seed=seed)
print("here:", helpers.__file__, places.root(), places.figures_root())
store.make("captions", w, lambda folder: store.write(folder / "a.json", {{"seed": seed}}))
fig, ax = plt.subplots()
ax.plot([0, 1])
figures.save(fig, "00_line", None, {ALT!r}, w)
"""


def finding():
    """The first lines of the notebooks' imports, which put the study on the path."""
    cells = json.loads((places.TOP / "notebooks" / "00_upstream.ipynb").read_text())["cells"]
    imports = [c for c in cells if c["cell_type"] == "code"][1]
    return "".join(imports["source"][:6])


def git(folder, *arguments):
    about = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
    command = ["git", *about, *arguments]
    done = subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True)
    return done.stdout


@pytest.fixture(scope="module")
def clone(tmp_path_factory):
    """A committed clone without weights whose only notebook is tiny; shadows lie beside it."""
    top = tmp_path_factory.mktemp("beside") / "My Study [v2] {b} é 🙂 a::b" / "clone"
    leave_out = shutil.ignore_patterns("weights", "__pycache__")
    shutil.copytree(places.PACKAGE, top / "helpers", ignore=leave_out)
    shutil.copy(places.TOP / ".gitignore", top)
    for folder in ("notebooks", "figures"):
        (top / folder).mkdir()
    (top.parent / "helpers.py").write_text(SHADOW)
    cells = [
        nbformat.v4.new_markdown_cell("# 00 - Tiny: does it run?"),
        nbformat.v4.new_code_cell("world = 'smoke'\nseed = 0", metadata={"tags": ["parameters"]}),
        nbformat.v4.new_code_cell(finding() + CELL),
    ]
    spec = {"name": "python3", "display_name": "Python 3", "language": "python"}
    book = nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": spec})
    nbformat.write(book, top / "notebooks" / "00_tiny.ipynb")
    (top / "figures" / "README.md").write_text("# As committed\n")
    git(top, "init", "-q")
    git(top, "add", "-A")
    git(top, "commit", "-qm", "all")
    return top


@pytest.fixture(scope="module")
def hostile(tmp_path_factory):
    """Variables of an environment in which everything is set that could disturb a run."""
    folder = tmp_path_factory.mktemp("hostile")
    kernel = folder / "jupyter" / "kernels" / "python3"
    kernel.mkdir(parents=True)
    broken = {"argv": ["/nowhere/python"], "display_name": "Python 3", "language": "python"}
    (kernel / "kernel.json").write_text(json.dumps(broken))
    (folder / "matplotlibrc").write_text("text.usetex: True\nsavefig.dpi: 7\n")
    long = folder / ("long" * 20)
    long.mkdir()
    return os.environ | {
        "JUPYTER_PATH": str(folder / "jupyter"),
        "MATPLOTLIBRC": str(folder),
        "MPLBACKEND": "module://backend_of_an_ide",
        "TMPDIR": str(long),
        "STUDY_RUNS": "some runs",
        "STUDY_FIGURES": "figures",
    }


def kernel_specs():
    """Whatever Jupyter has been told in this Python environment, with the time of its change."""
    folder = Path(sys.prefix) / "share" / "jupyter"
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*")}


@pytest.fixture(scope="module")
def ran(clone, hostile):
    """Two runs at once: what each printed; and the kernel specs of the environment before."""
    before = kernel_specs()
    command = [sys.executable, "-m", "helpers.run", "smoke"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    both = [subprocess.Popen(command, cwd=clone, env=hostile, **pipes) for _ in range(2)]
    told = [process.communicate(timeout=300) for process in both]
    assert [process.returncode for process in both] == [0, 0], told
    return [out for out, _ in told], before


def printed(copy):
    """What the cells of an executed copy printed."""
    cells = json.loads(copy.read_text(encoding="utf-8"))["cells"]
    outputs = [output for cell in cells for output in cell.get("outputs", [])]
    return "".join("".join(output.get("text", "")) for output in outputs)


def test_a_run_works_wherever_the_clone_is_and_with_its_own_kernel(clone, ran):
    words = printed(clone / "some runs" / "smoke" / "00_tiny.ipynb")
    assert f"here: {clone}/helpers/__init__.py {clone}/some runs {clone}/figures" in words
    for out in ran[0]:
        assert out.splitlines()[-1] == (
            f"1 notebooks in {re.findall(r'in (.*?) s;', out)[-1]} s; figures in "
            f"{clone}/figures/smoke, executed copies in {clone}/some runs/smoke"
        )


def test_two_runs_at_once_lose_nothing(clone, ran):
    made = [re.search(r"captions: (made|found) captions-", out) for out in ran[0]]
    assert all(made)
    top = clone / "some runs" / "smoke"
    assert {p.name for p in top.iterdir()} == {"00_tiny.ipynb", "00_tiny.html", "store"}
    assert "00_tiny," in (clone / "figures" / "smoke" / "00_timing.csv").read_text()
    assert "A line that rises" in (top / "00_tiny.html").read_text(encoding="utf-8")


def test_a_run_writes_nothing_to_the_python_environment(ran):
    assert kernel_specs() == ran[1]


def test_figures_take_nothing_from_the_users_settings(clone, ran):
    picture = Image.open(clone / "figures" / "smoke" / "00_line.png")
    assert picture.text["Description"] == ALT
    assert picture.size[0] > 500  # 7 dots per inch would give 40


def test_smoke_leaves_the_clone_clean(clone, ran):
    assert git(clone, "status", "--porcelain", "--", ".", ":!some runs") == ""
    assert (clone / "figures" / "README.md").read_text() == "# As committed\n"


def test_papermill_works_from_any_folder_and_another_seed_has_its_own(tmp_path, clone, ran):
    elsewhere = tmp_path / "else where"
    (elsewhere / "helpers").mkdir(parents=True)
    (elsewhere / "helpers" / "__init__.py").write_text(SHADOW)
    link = tmp_path / "link"  # papermill takes braces in a path for parameters
    link.symlink_to(clone)
    command = [sys.executable, "-m", "papermill", link / "notebooks" / "00_tiny.ipynb", "out.ipynb"]
    shown = {p: p.read_bytes() for p in clone.glob("figures/smoke/00_line.png")}
    done = subprocess.run(
        [*command, "-p", "world", "smoke", "-p", "seed", "3"],
        cwd=elsewhere,
        capture_output=True,
        text=True,
        env=os.environ | {"STUDY_RUNS": "some runs", "STUDY_FIGURES": ""},
    )
    assert done.returncode == 0, done.stderr[-2_000:]
    assert f"here: {clone}/helpers/__init__.py {clone}/some runs {clone}/figures" in printed(
        elsewhere / "out.ipynb"
    )
    assert (clone / "figures" / "smoke" / "seed-3" / "00_line.png").exists()
    assert all(p.read_bytes() == content for p, content in shown.items())
    assert git(clone, "status", "--porcelain", "--", ".", ":!some runs") == ""


def test_a_kernel_with_another_working_folder_finds_the_study(clone, monkeypatch):
    """As when JupyterLab was started in the clone, and its kernels work where shadows lie."""
    monkeypatch.chdir(places.TOP)
    manager, client = start_new_kernel(kernel_name="python3", cwd=str(clone.parent))
    told = []

    def keep(message):
        told.append(message["content"].get("text", message["content"].get("evalue", "")))

    try:
        code = f"{finding()}\nimport helpers; print(helpers.__file__)"
        client.execute_interactive(code, timeout=60, output_hook=keep)
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
    assert "".join(told) == f"{places.PACKAGE / '__init__.py'}\n"


def test_relative_folders_have_one_anchor(tmp_path, monkeypatch):
    monkeypatch.setenv("STUDY_RUNS", "runs")
    monkeypatch.setenv("STUDY_FIGURES", "../figures")
    for cwd in (tmp_path, places.TOP):
        monkeypatch.chdir(cwd)
        assert places.root() == places.TOP / "runs"
        assert places.figures_root() == places.TOP / "../figures"
    monkeypatch.setenv("STUDY_RUNS", str(tmp_path))
    assert places.root() == tmp_path


def made_in(folder, monkeypatch, capsys):
    """What is printed while an artifact is made in a store of its own."""
    monkeypatch.setenv("STUDY_RUNS", str(folder))
    store.make("captions", W, lambda path: store.write(path / "a.json", {}))
    return capsys.readouterr().out


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.ENOSYS])
def test_a_file_system_without_locks_is_warned_of(tmp_path, monkeypatch, capsys, code):
    def refuse(*_):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl, "flock", refuse)
    words = made_in(tmp_path, monkeypatch, capsys)
    assert f"({os.strerror(code)}): let no other run" in words
    assert "captions: made" in words


def test_waiting_for_another_process_is_said_and_not_counted(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("STUDY_RUNS", str(tmp_path))
    holding, seconds = threading.Event(), 1.6

    def hold():
        with store.alone(store.folder("captions", W)):
            holding.set()
            time.sleep(seconds)

    thread = threading.Thread(target=hold)
    thread.start()
    holding.wait()
    words = made_in(tmp_path, monkeypatch, capsys)
    thread.join()
    assert "waiting: another process works on" in words
    assert "in 0 s" in words


@pytest.mark.parametrize(
    "error, words",
    [
        (PermissionError(errno.EACCES, "Permission denied", "/else/where"), "^/else/where: Permis"),
        (OSError(errno.EROFS, "Read-only file system"), "/dev/shm"),
    ],
)
def test_what_refuses_within_a_build_is_named(tmp_path, monkeypatch, error, words):
    def build(_):
        raise error

    monkeypatch.setenv("STUDY_RUNS", str(tmp_path))
    with pytest.raises(StudyError, match=words) as caught:
        store.make("captions", W, build)
    assert "STUDY_RUNS" not in str(caught.value)


SOCKET = """
import tempfile
from multiprocessing import util
from helpers.engine import workers

workers._forkserver()
print(len(util.get_temp_dir()), tempfile.gettempdir())
"""


def test_a_long_folder_for_temporary_files_holds_no_sockets(hostile):
    command = [sys.executable, "-c", SOCKET]
    done = subprocess.run(command, cwd=places.TOP, env=hostile, capture_output=True, text=True)
    length, usual = done.stdout.split(maxsplit=1)
    assert int(length) < 40
    assert usual.strip() == hostile["TMPDIR"]


def test_nothing_is_wanted_on_a_full_disk_when_everything_is_made(tmp_path, monkeypatch):
    monkeypatch.setenv("STUDY_RUNS", str(tmp_path))
    monkeypatch.setattr(store, "free", lambda path: 10**9)
    for found in (False, True):
        monkeypatch.setattr(store, "finished", lambda *_, found=found, **__: found)
        needs, _ = worlds.backend(W).check(W)
        assert [need.found for need in needs if need.what == "disk"] == [found]


def test_what_is_left_over_is_listed_and_removed_on_request(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("STUDY_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("STUDY_FIGURES", str(tmp_path / "figures"))
    top = tmp_path / "runs" / "smoke"
    swept = worlds.replace(W, synthesis={"guidance": 5.0})
    kept = [store.folder("captions", W), store.folder("captions", worlds.get("smoke", seed=7))]
    kept += [store.folder("samples", swept, of="0123456789ab"), store.unfinished("finetuned", W, 1)]
    kept += [
        top / "00_upstream.html",
        top / "store" / "notes",
        tmp_path / "figures" / "smoke" / "a",
    ]
    old = "0000" if artifacts.edition("captions", W) != "0000" else "0001"
    left = [top / "store" / f"captions-{old}00000000", top / "store" / f"gone-{old}00000000"]
    left += [top / "unfinished" / f"finetuned-{old}00000000-0123456789abcdef.pt"]
    left += [top / "00_upstream.html.77.tmp", tmp_path / "figures" / "smoke" / "a.png.77.tmp"]
    for path in (*kept, *left):
        store.write(path / "b" if path.parent.name == "store" else path, b"1234")
    assert run.main(["smoke", "--clean"]) == 0
    words = capsys.readouterr().out
    assert words.splitlines()[-1].startswith(
        "5 left over, 0.00 GB; to remove it: python -m helpers"
    )
    assert {line.split("  ")[-1] for line in words.splitlines()[:-1]} == {str(p) for p in left}
    assert all(path.exists() for path in (*kept, *left))
    assert run.main(["smoke", "--clean", "--yes"]) == 0
    assert [path for path in (*kept, *left) if path.exists()] == kept
    assert run.main(["smoke", "--clean"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "0 left over, 0.00 GB"


def test_another_python_is_stopped_by_the_first_requirement():
    lines = (places.TOP / "requirements.txt").read_text(encoding="utf-8").splitlines()
    first = Requirement(next(line for line in lines if line and not line.startswith("#")))
    stopped = [
        version
        for version in ("3.10", "3.11", "3.12", "3.13", "3.14")
        if first.marker.evaluate({"python_version": version})
    ]
    assert stopped == ["3.10", "3.13", "3.14"]
    assert first.url.startswith("file:///") and not Path(first.url[7:]).exists()


def listing(**settings):
    command = [sys.executable, "-m", "helpers.run", "pocket", "--list"]
    return subprocess.Popen(command, cwd=places.TOP, stderr=subprocess.PIPE, text=True, **settings)


def test_the_command_may_be_begun_from_a_folder_above(clone):
    """By the path of its file or of its module; shadows that lie there are not taken."""
    for command in ([str(clone / "helpers" / "run.py")], ["-m", f"{clone.name}.helpers.run"]):
        done = subprocess.run(
            [sys.executable, *command, "smoke", "--list"],
            cwd=clone.parent,
            capture_output=True,
            text=True,
        )
        assert (done.returncode, done.stderr) == (0, "")
        assert "00" in done.stdout


def caught(pid):
    """Whether a process has something to do on Ctrl-C, as far as /proc knows."""
    status = Path(f"/proc/{pid}/status").read_text()
    return bool(int(re.search(r"^SigCgt:\s*(\w+)", status, re.M)[1], 16) >> signal.SIGINT - 1 & 1)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="looks at /proc")
def test_a_reader_that_leaves_a_closed_output_and_ctrl_c_are_borne_quietly():
    reader, end = os.pipe()
    leaving = listing(stdout=end)
    closed = listing(preexec_fn=lambda: os.close(1))
    stopped = listing(stdout=subprocess.DEVNULL)
    os.close(end)
    os.close(reader)
    while caught(stopped.pid) is not True:  # Python begins
        time.sleep(0.005)
    while caught(stopped.pid):  # until the first lines of the module
        time.sleep(0.005)
    stopped.send_signal(signal.SIGINT)
    told = [process.communicate(timeout=60)[1] for process in (leaving, closed, stopped)]
    assert told == ["", "", ""]
    assert closed.returncode == 0
    assert leaving.returncode == -signal.SIGPIPE
    assert stopped.returncode == -signal.SIGINT


def test_containers_have_what_they_are_given(tmp_path, monkeypatch):
    monkeypatch.setattr(gpu, "device", lambda: "cpu")
    monkeypatch.setattr(loky.backend.context, "_cpu_count_cgroup", lambda _: 1)
    assert gpu.cores() == 1
    for text, given in (("123456789\n", 123456789), ("max\n", None)):
        (tmp_path / "memory.max").write_text(text)
        monkeypatch.setattr(gpu, "CONTAINER", (str(tmp_path / "memory.max"), "/nowhere"))
        assert gpu.memory() == (given or os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))


def test_an_index_is_built_whatever_its_folder_is_called(tmp_path):
    vectors = np.random.default_rng(0).normal(size=(60, 8)).astype(np.float32)
    built = set()
    for name in ("plain", "My [v2] a::b é"):
        store.write(tmp_path / name / "0.npy", vectors)
        built.add(embeddings.build_index(tmp_path / name))
    assert len(built) == 1


KEYS = """
from helpers import worlds
from helpers.engine import artifacts
print([artifacts.key(name, worlds.get("smoke")) for name in artifacts.ARTIFACTS])
"""


def test_keys_do_not_depend_on_the_locale():
    other = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONHASHSEED": "5"}
    command = [sys.executable, "-c", KEYS]
    done = subprocess.run(
        command, cwd=places.TOP, env=os.environ | other, check=True, capture_output=True, text=True
    )
    assert done.stdout.strip() == str([artifacts.key(name, W) for name in artifacts.ARTIFACTS])


HTML = "<script>alert(1)</script> [here](javascript:alert) | b\nc"


def test_quoted_captions_are_neither_html_nor_links(tmp_path, monkeypatch):
    shown = report.table(pd.DataFrame({"caption": [HTML], "n": [3]})).data
    assert len(shown.splitlines()) == 3
    for text in (shown, report.text(HTML).data, report.bullets([HTML]).data):
        page = markdown2html(text)
        assert "<script" not in page
        assert "<a " not in page
        assert "&lt;script&gt;alert(1)" in page
    monkeypatch.setenv("STUDY_FIGURES", str(tmp_path))
    about = store.write(tmp_path / "smoke" / "00_a.png", b"")
    info = PngInfo()
    info.add_text("Description", HTML.replace("\n", " "))
    Image.new("RGB", (2, 2)).save(about, pnginfo=info)
    page = markdown2html(pages.write_contents().read_text(encoding="utf-8"))
    assert "<script" not in page
    assert re.findall(r'<a (?!class="anchor-link")[^>]*', page) == ['<a href="smoke/00_a.png"']


def test_a_nested_or_endless_list_of_files_is_one_line(tmp_path, monkeypatch):
    for text in ("[" * 100_000, '{"a": [1, "' + "x" * 1_000 + '"]}'):
        monkeypatch.setattr(manifest, "LARGEST", 200_000 if text[0] == "[" else 100)
        (tmp_path / manifest.NAME).write_text(text)
        with pytest.raises(StudyError, match="is not the list of files"):
            manifest.verify(tmp_path)


def test_a_line_for_the_runner_is_short_enough_for_its_pipe(tmp_path, monkeypatch):
    """Nobody reads: a line that is larger than the pipe neither waits nor fails."""
    os.mkfifo(tmp_path / "pipe")
    end = os.open(tmp_path / "pipe", os.O_RDWR)
    monkeypatch.setenv("STUDY_PIPE", str(tmp_path / "pipe"))
    progress.tell("x" * 10**6)
    os.close(end)
