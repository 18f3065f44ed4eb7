"""Run the study headlessly: ``python -m helpers.run WORLD [NN ...]``."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

if __name__ == "__main__":  # no tracebacks: from Ctrl-C before main() begins, from a closed output
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    while (closed := os.open(os.devnull, os.O_RDWR)) < 3:
        os.set_inheritable(closed, True)
    package = Path(__file__).absolute().parent  # begun from any folder, by its path, too
    sys.path = [str(package.parent), *(p for p in sys.path if Path(p).absolute() != package)]

import argparse
import ast
import contextlib
import functools
import logging
import re
import shlex
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from helpers import clean, pages, worlds
from helpers.engine import artifacts, catalogue, kernel, notebooks, places, progress, ray, store
from helpers.errors import StudyError, folded, table, unknown, writing


def typed_parameters(
    paths: Sequence[Path], world: str, seed: int | None, given: Mapping[str, Any]
) -> dict[Path, dict[str, Any]]:
    """For each notebook the parameters that it has: world, seed and what was given, typed.

    Raises ``StudyError`` on a name that none of the notebooks has, a value of another type than the
    default's, and a world or seed that is given twice and differs.
    """
    import papermill

    if given.get("world", world) != world:
        raise StudyError(
            f"-p world={given['world']} was given for world {world!r}; the world is the first "
            f"argument: python -m helpers.run {given['world']}"
        )
    if seed is not None and str(given.get("seed", seed)) != str(seed):
        raise StudyError(f"--seed {seed} and -p seed={given['seed']} contradict; give one of them.")
    wanted = {"world": world, **({} if seed is None else {"seed": seed}), **given}
    declared = {p: papermill.inspect_notebook(str(p).translate(notebooks.BRACES)) for p in paths}
    every = {name for names in declared.values() for name in names}
    for name in wanted:
        if name not in every:
            raise unknown("parameter", name, sorted(every))
    return {
        path: {n: _typed(n, v, names[n]["default"]) for n, v in wanted.items() if n in names}
        for path, names in declared.items()
    }


def _typed(name: str, value: Any, default_source: str) -> Any:
    """A value from the command line, with the type that the notebook's default has."""
    from pydantic import TypeAdapter, ValidationError

    default = ast.literal_eval(default_source)
    if default is None or not isinstance(value, str):
        return value
    kind = type(default)
    try:
        return TypeAdapter(kind).validate_strings(value)
    except ValidationError as e:
        wanted = f"{'an' if kind is int else 'a'} {kind.__name__}, like {default!r}"
        raise StudyError(f"parameter {name} was given {value!r}; it wants {wanted}.") from e


def execute(
    world: str,
    names: Sequence[str] = (),
    parameters: Mapping[str, Any] | None = None,
    seed: int | None = None,
) -> dict[str, float]:
    """Execute notebooks in a world; returns the name of each and its seconds.

    Executed copies and HTML pages go to ``.runs/<world>/`` (another seed's to a folder in it),
    times to ``figures/<world>/00_timing.csv``, and the report (pages.py) is written anew. Raises
    ``StudyError`` with the message of the notebook that failed, and ``MissingArtifact`` at once
    when a notebook reads what neither was made nor is going to be.
    """
    worlds.get(world)
    values = typed_parameters(catalogue.chosen(names), world, seed, parameters or {})
    for error in filter(None, _unread(world, values).values()):
        raise error
    os.environ["STUDY_HEADLESS"] = "1"
    try:
        Path.home()
    except RuntimeError:  # a user without a name; libraries want a place for their caches
        os.environ["HOME"] = str(places.root())
    os.environ.setdefault("PYTHONWARNINGS", "ignore:resource_tracker")
    for library in ("papermill", "traitlets"):
        logging.getLogger(library).setLevel(logging.ERROR)
    finished = functools.partial((places.root() / world / "store").glob, "*/manifest.json")
    done: dict[str, float] = {}
    with _shown(), kernel.started(str(places.TOP)) as manager:
        for path, own in values.items():
            start = time.monotonic()
            kept = set(finished())
            progress.live(f"{path.stem} is running")
            copies = places.root() / places.part(world, own.get("seed", 0))
            notebooks.execute(path, copies / path.name, own, manager)
            done[path.stem] = time.monotonic() - start
            progress.tell(f"{path.stem}: {done[path.stem]:.0f} s")
            if kept != set(finished()) or path.stem not in catalogue.times(world):
                catalogue.record(world, path.stem, done[path.stem])
            pages.write(copies / path.name, places.part(world, own.get("seed", 0)))
    return done


@contextlib.contextmanager
def _shown() -> Iterator[None]:
    """Until the end of the block, show on standard output what its processes tell (progress.py)."""
    terminal = bool(sys.stdout) and sys.stdout.isatty() and os.environ.get("TERM") != "dumb"
    columns = shutil.get_terminal_size().columns if terminal else 0
    with tempfile.TemporaryDirectory() as folder:
        pipe = f"{folder}/pipe"
        os.mkfifo(pipe)
        thread = threading.Thread(target=_show, args=(os.open(pipe, os.O_RDWR),), daemon=True)
        thread.start()
        os.environ.update(STUDY_PIPE=pipe, STUDY_COLUMNS=str(columns))
        try:
            yield
        finally:
            progress.tell("", end="\0")
            thread.join(timeout=5)
            del os.environ["STUDY_PIPE"]


def _show(pipe: int) -> None:
    """Copy what comes out of a pipe to standard output, until it ends with a zero."""
    with os.fdopen(pipe, "rb", buffering=0) as end:
        told = b""
        while not told.endswith(b"\0"):
            told = end.read(2**16)
            print(told.rstrip(b"\0").decode(errors="replace"), end="", flush=True)


def _unread(world: str, values: Mapping[Path, Mapping]) -> dict[Path, StudyError | None]:
    """Why each notebook, if these run in order, cannot read an artifact; None where it can."""
    coming: set[str] = set()
    errors: dict[Path, StudyError | None] = dict.fromkeys(values)
    for path, given in values.items():
        try:
            for name in re.findall(r"`(\w+)`", catalogue.row(path, "Reads")):
                if name in artifacts.ARTIFACTS and name not in coming:
                    store.load(name, worlds.get(world, seed=given.get("seed", 0)))
            coming |= set(re.findall(r"`(\w+)`", catalogue.row(path, "Writes")))
        except StudyError as e:
            errors[path] = e
    return errors


def _arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m helpers.run",
        description="Run the notebooks of the study headlessly.",
        epilog="Example: python -m helpers.run pocket 03 04 -p seed=1",
    )
    add = parser.add_argument
    add("world", nargs="?", help=f"one of {', '.join(worlds.WORLDS)}")
    add("notebooks", nargs="*", help="numbers or names, such as 03; all without any")
    add("-p", action="append", default=[], metavar="name=value", help="set a notebook parameter")
    add("--seed", type=int, help="every random draw descends from this; default 0")
    add(
        "--ray",
        default=os.environ.get("STUDY_RAY", ""),
        metavar="ADDRESS|local",
        help="spread shards over a Ray cluster (HOST:PORT, or auto) or a Ray on this machine "
        "(local); needs pip install ray, and a store that all machines see; same results",
    )
    add("--check", action="store_true", help="what notebooks need, what is here, what they cost")
    add("--list", action="store_true", help="what each notebook asks and costs")
    add("--clean", action="store_true", help="list what earlier versions and killed runs left")
    add("--yes", action="store_true", help="with --clean: remove it")
    options = parser.parse_intermixed_args(arguments)
    if options.list and (not options.world or options.world in catalogue.notebooks()):
        options.notebooks[:0] = [options.world] if options.world else []
        options.world = artifacts.MEASURED
        print(f"world {options.world}; for another: python -m helpers.run WORLD --list")
    if not options.world:
        parser.print_help()
        raise SystemExit(2)
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status: 0, 1 when a notebook failed, 2 on bad input."""
    options = _arguments(arguments)
    code = 2
    try:
        prepared = _prepared(options)
        if not prepared:
            return 0
        w, meant, given = prepared
        code = 1
        seconds = execute(w.name, meant, given, options.seed)
    except StudyError as e:
        print(f"error: {e}", file=sys.stderr)
        return code
    except KeyboardInterrupt:
        print("stopped; what was finished is kept, the same command goes on", file=sys.stderr)
        return 130
    place = places.part(w.name, w.seed)
    figures = places.figures_root() / place
    tracked = figures.parent == places.COMMITTED and places.shown(figures)
    back = f" (as committed: git checkout -- figures/{place})" if tracked else ""
    total = f"{len(seconds)} notebooks in {sum(seconds.values()):.0f} s; figures in {figures}{back}"
    print(f"{total}, executed copies in {places.root() / place}")
    return 0


def _prepared(options: argparse.Namespace) -> tuple[worlds.World, list[str], dict[str, str]] | None:
    """World, numbers of the notebooks meant, parameters given; after all that can be checked.

    None when nothing is to be run, after printing what ``--list``, ``--check`` or ``--clean`` ask
    for. Raises ``StudyError`` on bad input, and when something the notebooks need is not here.
    """
    worlds.get(options.world)
    paths = catalogue.chosen(options.notebooks)
    given: dict[str, str] = {}
    for text in options.p:
        name, equals, value = text.partition("=")
        if not equals or name in given:
            problem = f"-p {name} was given twice" if equals else f"-p was given {text!r}"
            raise StudyError(f"{problem}; write each once, as name=value, such as -p seed=1.")
        given[name] = value
    if options.list:
        print(catalogue.listing(options.world, options.notebooks))
        return None
    values = typed_parameters(paths, options.world, options.seed, given)
    w = worlds.get(options.world, seed=values[paths[0]].get("seed", 0))
    if options.clean:
        clean.clean(w, options.yes)
        return None
    _check_needs(w, options, values)
    if options.check:
        return None
    if options.ray:
        ray.check(options.ray)
    os.environ["STUDY_RAY"] = options.ray  # kernels inherit it
    _check_folders(*(root / w.name for root in (places.root(), places.figures_root())))
    return w, [path.name[:2] for path in paths], given


def _check_needs(w: worlds.World, options: argparse.Namespace, values: Mapping) -> None:
    """Print what notebooks need, if asked to or if some of it is not here: then ``StudyError``."""
    needs, costs = worlds.backend(w).check(w)
    lacking = {number for n in needs if not n.found for number in n.notebooks.split()}
    meant = {path.name[:2]: path for path in values}
    if options.check or lacking & meant.keys():
        lines = table([n for n in needs if meant.keys() & set(n.notebooks.split())])
        told = [key for key in costs if key in meant or not key.isdigit()]
        lines += [folded(f"cost    {key}: {costs[key]}") for key in told]
        unread = _unread(w.name, {p: values[p] for n, p in meant.items() if n not in lacking})
        ready = [path for path, error in unread.items() if not error]
        given = [t for t in options.p if any(t.partition("=")[0] in values[p] for p in ready)]
        start = f"can start: {_again(options, [path.name[:2] for path in ready], given)}"
        why = "" if lacking & meant.keys() else next(iter(unread.values()), "")
        lines.append(start if ready else folded(f"nothing can start yet. {why}".strip(". ")))
        print("\n".join(lines), file=sys.stdout if options.check else sys.stderr)
    if lacking & meant.keys():
        kept = "" if options.check else ", so nothing was started"
        again = _again(options, options.notebooks, options.p)
        problem = f"not everything that these notebooks need is here{kept}"
        raise StudyError(f"{problem}; get what is MISSING above, then look again: {again} --check")


def _again(options: argparse.Namespace, names: Sequence[str], given: Sequence[str]) -> str:
    """The command that was given, for some notebooks and parameters."""
    seed = [] if options.seed is None else ["--seed", str(options.seed)]
    words = [options.world, *names, *seed, *(word for text in given for word in ("-p", text))]
    return f"python -m helpers.run {shlex.join(words)}"


def _check_folders(*folders: Path) -> None:
    """Raise ``StudyError`` when nothing can be written to one of these folders, which are made."""
    for folder in folders:
        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=folder).close()


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if sys.stdout:  # names that are not UTF-8 are printed as they can be
        sys.stdout.reconfigure(errors="backslashreplace")
    raise SystemExit(main())
