"""Run the study headlessly: ``python -m helpers.run WORLD [NN ...]``. Executes notebooks, keeps copies, times, gallery."""

from __future__ import annotations

import argparse
import ast
import html
import json
import logging
import os
import re
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from helpers import gpu, ranks, ray_engine, store, worlds
from helpers.worlds import StudyError, unknown

TOP = store.PACKAGE.parent
NOTEBOOKS = TOP / "notebooks"


def notebooks() -> dict[str, Path]:
    """Number -> path of every notebook, in order."""
    return {p.name[:2]: p for p in sorted(NOTEBOOKS.glob("[0-9][0-9]_*.ipynb"))}


def chosen(names: Sequence[str]) -> list[Path]:
    """The notebooks of these numbers or names, all without any. Raises ``StudyError`` on an unknown one."""
    known = notebooks()
    for name in names:
        if name not in known and name.removesuffix(".ipynb") not in {p.stem for p in known.values()}:
            raise unknown("notebook", name, [*known, *(p.stem for p in known.values())])
    return [p for number, p in known.items() if not names or number in names or p.stem in {n.removesuffix(".ipynb") for n in names}]


def title(path: Path) -> str:
    """The question a notebook asks: its first heading."""
    cells = json.loads(path.read_text())["cells"]
    text = "".join(cells[0]["source"]).splitlines()[0]
    return re.sub(r"^#\s*\d+\s*-\s*", "", text)


def _parameters(paths: Sequence[Path], given: Mapping[str, str]) -> dict[Path, dict]:
    """For each notebook the given parameters that it has, with the types of its defaults.

    Raises ``StudyError`` on a name that none of the notebooks has, or a value of another type.
    """
    import papermill

    declared = {path: papermill.inspect_notebook(str(path)) for path in paths}
    every = {name for names in declared.values() for name in names}
    for name in given:
        if name not in every:
            raise unknown("parameter", name, sorted(every))
    return {path: {n: _typed(n, text, names[n]["default"]) for n, text in given.items() if n in names}
            for path, names in declared.items()}


def _typed(name: str, text, default: str):
    default = ast.literal_eval(default)
    return text if isinstance(default, str) or not isinstance(text, str) else _literal(name, text, default)


def _literal(name: str, text: str, default):
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError):
        value = text
    if default is not None and not isinstance(value, type(default)) and not (isinstance(default, float) and isinstance(value, int)):
        raise StudyError(f"parameter {name} was given {text!r}; it wants a {type(default).__name__}, like {default!r}.")
    return value


def execute(world: str, names: Sequence[str] = (), parameters: Mapping[str, object] | None = None,
            seed: int | None = None) -> list[tuple[str, float]]:
    """Execute notebooks in a world; returns their names and seconds.

    Executed copies and HTML pages go to ``.runs/<world>/``, times to ``figures/<world>/00_timing.csv``, and
    ``figures/README.md`` is written anew. Raises ``StudyError`` with the message of the notebook that failed.
    """
    worlds.get(world)
    paths = chosen(names)
    given = {"world": world, **({} if seed is None else {"seed": seed}), **(parameters or {})}
    done = []
    for path, values in _parameters(paths, given).items():
        start = time.monotonic()
        _execute(path, store.root() / world / path.name, values)
        done.append((path.stem, time.monotonic() - start))
        print(f"{path.stem}: {done[-1][1]:.0f} s", flush=True)
        _record(world, done)
        write_gallery()
    return done


def _execute(path: Path, copy: Path, values: Mapping[str, object]) -> None:
    import papermill
    from papermill.exceptions import PapermillExecutionError
    from traitlets.config import Config

    copy.parent.mkdir(parents=True, exist_ok=True)
    os.environ.update(STUDY_HEADLESS="1", PYTHONPATH=os.pathsep.join([str(TOP), os.environ.get("PYTHONPATH", "")]))
    os.environ.setdefault("PYTHONWARNINGS", "ignore:resource_tracker")
    _quiet_libraries()
    try:
        papermill.execute_notebook(str(path), str(copy), dict(values), kernel_name=_kernel(), cwd=str(TOP), progress_bar=False,
                                   log_output=True, request_save_on_cell_execute=False,
                                   extra_arguments=["--IPKernelApp.log_level=50"],
                                   config=Config(KernelManager={"shutdown_wait_time": _seconds_to_stop()}))
    except PapermillExecutionError as e:
        if e.ename in ("StudyError", "MissingArtifact"):
            raise StudyError(f"{path.stem}: {e.evalue}") from None
        raise
    finally:
        _html(copy)


def _seconds_to_stop() -> float:
    """A kernel with a Ray has much to stop; another has nothing, but would wait for a helper of multiprocessing that ignores it."""
    return 30.0 if gpu.ray_address() else 1.0


def _quiet_libraries() -> None:
    """Of what papermill logs keep only what cells print, one line each."""
    log = logging.getLogger("papermill")
    log.handlers, log.propagate = [_Printed()], False
    log.setLevel(logging.INFO)
    logging.getLogger("traitlets").setLevel(logging.ERROR)


class _Printed(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage().strip()
        if re.match(r"^(?!\d\d_)[\w. ]+: .*\d", text) and not text.startswith(("Input Notebook", "Output Notebook")):
            print("\n".join(f"   {line}" for line in text.splitlines()), flush=True)


def _kernel() -> str:
    """A kernel of this interpreter, whatever other kernels are installed under the name python3."""
    from ipykernel.kernelspec import install
    from jupyter_client.kernelspec import KernelSpecManager

    found = KernelSpecManager().get_all_specs().get("python3")
    if found and os.path.realpath(found["spec"]["argv"][0]) in (os.path.realpath(sys.executable), "python"):
        return "python3"
    install(kernel_name="study", prefix=sys.prefix, display_name="Study")
    return "study"


def _html(copy: Path) -> None:
    if not copy.exists():
        return
    from nbconvert import HTMLExporter

    page, _ = HTMLExporter(template_name="classic").from_filename(str(copy))
    store.write(copy.with_suffix(".html"), page.encode())


def _figures() -> Path:
    return Path(os.environ.get("STUDY_FIGURES") or TOP / "figures")


def _record(world: str, done: Sequence[tuple[str, float]]) -> None:
    """Merge the times of this run into ``00_timing.csv``."""
    import pandas as pd

    path = _figures() / world / "00_timing.csv"
    times = dict(zip(*pd.read_csv(path)[["notebook", "seconds"]].to_numpy().T, strict=True)) if path.exists() else {}
    times |= {name: round(seconds, 1) for name, seconds in done}
    store.write(path, pd.DataFrame(sorted(times.items()), columns=["notebook", "seconds"]).to_csv(index=False).encode())


def write_gallery() -> Path:
    """Write ``figures/README.md``: every figure of every world with its alt text, by number."""
    from PIL import Image

    lines = ["# Figures", "", "Written by `python -m helpers.run`; every figure names its world, seed and device."]
    for world in (n for n in worlds.WORLDS if (_figures() / n).is_dir()):
        lines += ["", f"## {world}"]
        for png in sorted((_figures() / world).glob("*.png")):
            alt = Image.open(png).text.get("Description", "")
            lines += ["", f"### {png.stem}", "", f'<img src="{world}/{png.name}" alt="{html.escape(alt)}" width="800">', "", alt]
    return store.write(_figures() / "README.md", ("\n".join(lines) + "\n").encode())


def listing(world: str) -> str:
    """Number, question and last measured time of every notebook in a world."""
    import pandas as pd

    path = _figures() / world / "00_timing.csv"
    times = dict(zip(*pd.read_csv(path)[["notebook", "seconds"]].to_numpy().T, strict=True)) if path.exists() else {}
    rows = [(p.stem, f"{times[p.stem]:.0f} s" if p.stem in times else "not measured", title(p)) for p in notebooks().values()]
    return "\n".join(f"{name:24s} {cost:>13s}  {question}" for name, cost, question in rows)


def report(w: worlds.World, names: Sequence[str] = ()) -> tuple[str, list[str], bool]:
    """What a world needs, what of it is here, what its notebooks cost; the notebooks meant; and whether they can start."""
    needs, costs = worlds.backend(w).check(w)
    lacking = {number: [n for n in needs if not n.found and number in n.notebooks.split()] for number in notebooks()}
    meant = [p.name[:2] for p in chosen(names)]
    lines = [f"{'found' if n.found else 'MISSING':8s}{n.what:28s}for {n.notebooks:26s}{n.where}" + ("" if n.found else f"\n        {n.get}")
             for n in needs if set(meant) & set(n.notebooks.split())]
    lines += [f"cost    {number}: {costs[number]}" for number in meant if number in costs]
    ready = " ".join(number for number in notebooks() if not lacking[number])
    lines.append(f"can start: python -m helpers.run {w.name} {ready}" if ready else "nothing can start yet")
    return "\n".join(lines), meant, not any(lacking[number] for number in meant)


def _arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m helpers.run", description="Run the notebooks of the study headlessly.",
                                     epilog="Example: python -m helpers.run pocket 03 04 -p seed=1")
    parser.add_argument("world", nargs="?", help=f"one of {', '.join(worlds.WORLDS)}")
    parser.add_argument("notebooks", nargs="*", help="numbers or names, such as 03; all without any")
    parser.add_argument("-p", action="append", default=[], metavar="name=value", help="set a notebook parameter")
    parser.add_argument("--seed", type=int, help="every random draw descends from this; default 0")
    parser.add_argument("--ray", default=gpu.ray_address(), metavar="ADDRESS|local",
                        help="spread shards over a Ray cluster (HOST:PORT, or auto) or a Ray on this machine (local); "
                             "needs pip install ray, and the store on a file system that all machines see; same results")
    parser.add_argument("--ranks", default=os.environ.get("STUDY_RANKS") or "1", metavar="N",
                        help="train every model of notebooks 04 and 05 on N GPUs together, each with its part of every batch; by "
                             "default every run has one GPU, which is faster as long as there are more runs than GPUs")
    parser.add_argument("--check", action="store_true", help="what the notebooks need, what of it is here, and what they cost")
    parser.add_argument("--list", action="store_true", help="what each notebook asks and costs")
    made = parser.parse_args(arguments)
    if not made.world:
        parser.print_help()
        raise SystemExit(2)
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status: 0, 1 when a notebook failed, 2 on bad input."""
    options = _arguments(arguments)
    try:
        worlds.get(options.world)
        chosen(options.notebooks)
        pairs = dict(_pair(p) for p in options.p)
        if options.list:
            print(listing(options.world))
            return 0
        _parameters(chosen(options.notebooks), pairs)
        table, meant, complete = report(worlds.get(options.world), options.notebooks)
        if options.check or not complete:
            print(table, file=sys.stdout if complete else sys.stderr)
        if not complete:
            raise StudyError("not everything that these notebooks need is here, so nothing was started. Get what is MISSING above, look "
                             f"again with: python -m helpers.run {options.world} --check   and start with the same command as now.")
        if options.check:
            return 0
        if options.ray:
            ray_engine.check(options.ray)
        os.environ.update(STUDY_RAY=options.ray, STUDY_RANKS=options.ranks)  # kernels inherit it
        if options.ranks != "1":
            ranks.asked()
    except StudyError as e:
        print(f"error: {e}", file=sys.stderr)
        return 2
    try:
        done = execute(options.world, meant, pairs, options.seed)
    except StudyError as e:
        print(f"error: {e}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped; what was finished is kept, the same command goes on from there", file=sys.stderr)
        return 130
    print(f"{len(done)} notebooks in {sum(s for _, s in done):.0f} s; figures in {_figures() / options.world}, "
          f"executed copies in {store.root() / options.world}")
    return 0


def _pair(text: str) -> tuple[str, str]:
    if "=" not in text:
        raise StudyError(f"-p was given {text!r}; write name=value, such as -p seed=1.")
    name, value = text.split("=", 1)
    return name, value


if __name__ == "__main__":
    raise SystemExit(main())
