"""Run the study headlessly: ``python -m helpers.run WORLD [NN ...]``. Executes notebooks, keeps copies, times, gallery."""

from __future__ import annotations

import argparse
import ast
import html
import logging
import os
import re
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from helpers import worlds
from helpers.engine import artifacts, gpu, kernel, places, ray, store
from helpers.engine.catalogue import chosen, listing, notebooks, row, times
from helpers.engine.places import TOP, figures_root
from helpers.errors import StudyError, unknown


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
    return {
        path: {n: _typed(n, text, names[n]["default"]) for n, text in given.items() if n in names}
        for path, names in declared.items()
    }


def _asked(world: str, seed: int | None, parameters: Mapping[str, object]) -> dict[str, object]:
    """World, seed and other parameters in one. Raises ``StudyError`` where a parameter says otherwise than the command does."""
    if parameters.get("world", world) != world:
        raise StudyError(
            f"-p world={parameters['world']} was given for world {world!r}; the world is the first argument: "
            f"python -m helpers.run {parameters['world']}"
        )
    if seed is not None and str(parameters.get("seed", seed)) != str(seed):
        raise StudyError(
            f"--seed {seed} and -p seed={parameters['seed']} contradict each other; give one of them."
        )
    return {"world": world, **({} if seed is None else {"seed": seed}), **parameters}


def _typed(name: str, text, default: str):
    default = ast.literal_eval(default)
    return (
        text
        if isinstance(default, str) or not isinstance(text, str)
        else _literal(name, text, default)
    )


def _literal(name: str, text: str, default):
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError):
        value = text
    if (
        default is not None
        and not isinstance(value, type(default))
        and not (isinstance(default, float) and isinstance(value, int))
    ):
        article = "an" if isinstance(default, int) and not isinstance(default, bool) else "a"
        raise StudyError(
            f"parameter {name} was given {text!r}; it wants {article} {type(default).__name__}, like {default!r}."
        )
    return value


def execute(
    world: str,
    names: Sequence[str] = (),
    parameters: Mapping[str, object] | None = None,
    seed: int | None = None,
) -> list[tuple[str, float]]:
    """Execute notebooks in a world; returns their names and seconds.

    Executed copies and HTML pages go to ``.runs/<world>/``, times to ``figures/<world>/00_timing.csv``, and
    ``figures/README.md`` is written anew. Raises ``StudyError`` with the message of the notebook that failed, and
    ``MissingArtifact`` at once when a notebook reads what neither was made nor is going to be.
    """
    worlds.get(world)
    paths, done = chosen(names), []
    os.environ.update(
        STUDY_HEADLESS="1", PYTHONPATH=os.pathsep.join([str(TOP), os.environ.get("PYTHONPATH", "")])
    )
    os.environ.setdefault("PYTHONWARNINGS", "ignore:resource_tracker")
    _quiet_libraries()
    values = _parameters(paths, _asked(world, seed, parameters or {}))
    _check_reads(world, values)
    with kernel.started(str(TOP)) as manager:
        for path in paths:
            start = time.monotonic()
            _execute(path, places.root() / world / path.name, values[path], manager)
            done.append((path.stem, time.monotonic() - start))
            print(f"{path.stem}: {done[-1][1]:.0f} s", flush=True)
            _record(world, done)
            write_gallery()
    return done


def _check_reads(world: str, values: Mapping[Path, Mapping]) -> None:
    """Raise ``MissingArtifact`` for the first artifact that a notebook says it reads, and that is not there when its turn comes."""
    coming = set()
    for path, given in values.items():
        for name in re.findall(r"`(\w+)`", row(path, "Reads")):
            if name in artifacts.ARTIFACTS and name not in coming:
                store.load(name, worlds.get(world, seed=given.get("seed", 0)))
        coming |= set(re.findall(r"`(\w+)`", row(path, "Writes")))


def _execute(path: Path, copy: Path, values: Mapping[str, object], manager) -> None:
    import papermill
    from nbclient.exceptions import DeadKernelError
    from papermill.exceptions import PapermillExecutionError

    failure = None
    try:
        kernel.empty(manager)
        with store.writing(copy):
            copy.parent.mkdir(parents=True, exist_ok=True)
            papermill.execute_notebook(
                str(path),
                str(copy),
                dict(values),
                kernel_name=manager.kernel_name,
                km=manager,
                progress_bar=False,
                log_output=True,
                request_save_on_cell_execute=False,
            )
    except PapermillExecutionError as e:
        failure = _explained(path, e)
    except DeadKernelError as e:
        failure = StudyError(
            f"{path.stem}: the kernel was killed, most likely for want of memory. What was finished is kept: run the same "
            "command again to go on."
        )
        failure.__cause__ = e
    _html(copy)
    if failure:
        raise failure


def _explained(path: Path, e) -> Exception:
    """A notebook's error as one line where it is a ``StudyError`` or a checkpoint that failed; any other with its traceback."""
    if e.ename in ("StudyError", "MissingArtifact", "NotKnown"):
        return StudyError(f"{path.stem}: {e.evalue}")
    if e.ename == "AssertionError" and re.search(r"^assert ", e.source, re.M):
        return StudyError(
            f"{path.stem}: a checkpoint failed: {' '.join(e.evalue.split()) or e.source.strip()}"
        )
    return e


def _quiet_libraries() -> None:
    """Of what papermill logs keep only what cells print, one line each."""
    log = logging.getLogger("papermill")
    log.handlers, log.propagate = [_Printed()], False
    log.setLevel(logging.INFO)
    logging.getLogger("traitlets").setLevel(logging.ERROR)


class _Printed(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage().strip()
        if re.match(r"^(?!\d\d_)[\w. ]+: .*\d", text) and not text.startswith(
            ("Input Notebook", "Output Notebook")
        ):
            print("\n".join(f"   {line}" for line in text.splitlines()), flush=True)


def _html(copy: Path) -> None:
    if not copy.exists():
        return
    from nbconvert import HTMLExporter

    page, _ = HTMLExporter(template_name="classic").from_filename(str(copy))
    store.write(copy.with_suffix(".html"), page.encode())


def _record(world: str, done: Sequence[tuple[str, float]]) -> None:
    """Merge the times of this run into ``00_timing.csv``."""
    import pandas as pd

    path = figures_root() / world / "00_timing.csv"
    merged = times(path) | {name: round(seconds, 1) for name, seconds in done}
    store.write(
        path,
        pd.DataFrame(sorted(merged.items()), columns=["notebook", "seconds"])
        .to_csv(index=False)
        .encode(),
    )


def write_gallery() -> Path:
    """Write ``figures/README.md``: every figure of every world with its alt text, by number."""
    from PIL import Image

    lines = [
        "# Figures",
        "",
        "Written by `python -m helpers.run`; every figure names its world, seed and device.",
    ]
    for world in (n for n in worlds.WORLDS if (figures_root() / n).is_dir()):
        lines += ["", f"## {world}"]
        for png in sorted((figures_root() / world).glob("*.png")):
            try:
                alt = Image.open(png).text.get("Description", "")
            except (OSError, AttributeError) as e:
                raise StudyError(
                    f"cannot read {png}: {e}. Delete it; notebook {png.name[:2]} draws it again."
                ) from e
            lines += [
                "",
                f"### {png.stem}",
                "",
                f'<img src="{world}/{png.name}" alt="{html.escape(alt)}" width="800">',
                "",
                alt,
            ]
    return store.write(figures_root() / "README.md", ("\n".join(lines) + "\n").encode())


def report(w: worlds.World, names: Sequence[str] = ()) -> tuple[str, list[str], bool]:
    """What a world needs, what of it is here, what its notebooks cost; the notebooks meant; and whether they can start."""
    needs, costs = worlds.backend(w).check(w)
    lacking = {
        number: [n for n in needs if not n.found and number in n.notebooks.split()]
        for number in notebooks()
    }
    meant = [p.name[:2] for p in chosen(names)]
    lines = [
        f"{'found' if n.found else 'MISSING':8s}{n.what:28s}for {n.notebooks:26s}{n.where}"
        + ("" if n.found else f"\n        {n.get}")
        for n in needs
        if set(meant) & set(n.notebooks.split())
    ]
    lines += [f"cost    {number}: {costs[number]}" for number in meant if number in costs]
    ready = " ".join(number for number in notebooks() if not lacking[number])
    lines.append(
        f"can start: python -m helpers.run {w.name} {ready}" if ready else "nothing can start yet"
    )
    return "\n".join(lines), meant, not any(lacking[number] for number in meant)


def _arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m helpers.run",
        description="Run the notebooks of the study headlessly.",
        epilog="Example: python -m helpers.run pocket 03 04 -p seed=1",
    )
    parser.add_argument("world", nargs="?", help=f"one of {', '.join(worlds.WORLDS)}")
    parser.add_argument(
        "notebooks", nargs="*", help="numbers or names, such as 03; all without any"
    )
    parser.add_argument(
        "-p", action="append", default=[], metavar="name=value", help="set a notebook parameter"
    )
    parser.add_argument("--seed", type=int, help="every random draw descends from this; default 0")
    parser.add_argument(
        "--ray",
        default=gpu.ray_address(),
        metavar="ADDRESS|local",
        help="spread shards over a Ray cluster (HOST:PORT, or auto) or a Ray on this machine (local); "
        "needs pip install ray, and the store on a file system that all machines see; same results",
    )
    parser.add_argument(
        "--check",
        action="store_true",
        help="what the notebooks need, what of it is here, and what they cost",
    )
    parser.add_argument("--list", action="store_true", help="what each notebook asks and costs")
    made = parser.parse_intermixed_args(arguments)
    if made.list and (not made.world or made.world in notebooks()):
        made.notebooks[:0], made.world = [made.world] if made.world else [], artifacts.MEASURED
        print(f"world {made.world}; for another: python -m helpers.run WORLD --list")
    if not made.world:
        parser.print_help()
        raise SystemExit(2)
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status: 0, 1 when a notebook failed, 2 on bad input."""
    options = _arguments(arguments)
    try:
        worlds.get(options.world)
        paths, pairs = chosen(options.notebooks), dict(_pair(p) for p in options.p)
        if options.list:
            print(listing(options.world, options.notebooks))
            return 0
        values = _parameters(paths, _asked(options.world, options.seed, pairs))
        w = worlds.get(options.world, seed=values[paths[0]].get("seed", 0))
        meant = _ready(w, options.notebooks, options.check)
        if options.check:
            return 0
        if options.ray:
            ray.check(options.ray)
        _check_folders(places.root() / w.name, figures_root() / w.name)
        os.environ.update(STUDY_RAY=options.ray)  # kernels inherit it
    except StudyError as e:
        print(f"error: {e}", file=sys.stderr)
        return 2
    try:
        done = execute(options.world, meant, pairs, options.seed)
    except StudyError as e:
        print(f"error: {e}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(
            "stopped; what was finished is kept, the same command goes on from there",
            file=sys.stderr,
        )
        return 130
    print(
        f"{len(done)} notebooks in {sum(s for _, s in done):.0f} s; figures in {figures_root() / options.world}, "
        f"executed copies in {places.root() / options.world}"
    )
    return 0


def _ready(w: worlds.World, names: Sequence[str], check: bool) -> list[str]:
    """The numbers of the notebooks meant. Prints what they need on request, or if some of it is not here, which is a ``StudyError``."""
    table, meant, complete = report(w, names)
    if check or not complete:
        print(table, file=sys.stdout if check else sys.stderr)
    if not complete and check:
        raise StudyError(
            "not everything that these notebooks need is here; get what is MISSING above, then look again."
        )
    if not complete:
        raise StudyError(
            "not everything that these notebooks need is here, so nothing was started. Get what is MISSING above, look "
            f"again with: python -m helpers.run {w.name} --check   and start with the same command as now."
        )
    return meant


def _check_folders(*folders: Path) -> None:
    """Raise ``StudyError`` when nothing can be written to one of these folders, which are made."""
    for folder in folders:
        with store.writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=folder).close()


def _pair(text: str) -> tuple[str, str]:
    if "=" not in text:
        raise StudyError(f"-p was given {text!r}; write name=value, such as -p seed=1.")
    name, value = text.split("=", 1)
    return name, value


if __name__ == "__main__":
    raise SystemExit(main())
