"""Run a benchmark by name: ``python -m tests.bench scan --rows 1000000 --rounds 3``."""

from __future__ import annotations

import argparse
import importlib
import pkgutil
import sys

from helpers.errors import StudyError, unknown
from tests import bench


def benchmarks() -> dict[str, str]:
    """Modules of this package with a ``main``, each with the first line of its docstring."""
    found = {}
    for name in sorted(m.name for m in pkgutil.iter_modules(bench.__path__)):
        if name.startswith("_"):
            continue
        module = importlib.import_module(f"tests.bench.{name}")
        if hasattr(module, "main"):
            found[name] = module.__doc__.splitlines()[0]
    return found


def main(arguments: list[str] | None = None) -> int:
    """Run the benchmark that the command line names; 2 when there is none of that name."""
    valid = benchmarks()
    description = "; ".join(f"{name}: {line}" for name, line in valid.items())
    parser = argparse.ArgumentParser("python -m tests.bench", description=description)
    parser.add_argument("name", help=", ".join(valid))
    parser.add_argument(
        "--rows", type=int, help="size of the generated data (default: the benchmark's own)"
    )
    parser.add_argument(
        "--rounds",
        type=int,
        default=3,
        help="every method is measured so many times; medians are printed",
    )
    given = parser.parse_args(arguments)
    try:
        if given.name not in valid:
            raise unknown("benchmark", given.name, valid)
        too_few = given.rows is not None and given.rows < 1_000
        if too_few or given.rounds < 1:
            raise StudyError(
                f"--rows {given.rows} --rounds {given.rounds}: give at least 1000 rows and 1 round."
            )
        importlib.import_module(f"tests.bench.{given.name}").main(given.rows, given.rounds)
    except StudyError as e:
        print(e, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
