"""What the benchmarks of models share: methods that take turns, and the table of their rates.

Rates are held against the device's ceiling, the rate of a large matrix product. With a GPU the
models have their published sizes, and random weights, which compute as fast as trained ones. On a
CPU they are tiny: the code is the same, but the rates say nothing about the published setting.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

from helpers import worlds
from helpers.engine import gpu, store
from helpers.paper import doctor


@dataclass(frozen=True)
class Method:
    """``run(n)`` handles n items and fetches the result.

    It is timed on ``items`` of them; ``counted`` are enough to count the arithmetic.
    """

    run: Callable[[int], object]
    items: int
    counted: int = 1


def seconds(fn: Callable) -> float:
    """Wall time of ``fn()``."""
    start = time.perf_counter()
    fn()
    return time.perf_counter() - start


def ceiling(rounds: int, kind: str = "") -> float:
    """FLOP per second of a large matrix product, in the best round.

    It is computed in the type ``kind``; without, in the one that published models are loaded in.
    """
    import torch

    fast = gpu.device() == "cuda"
    side = 8_192 if fast else 1_024
    repeats = 50 if fast else 10
    dtype = getattr(torch, kind) if kind else gpu.precision()
    a, b = (torch.randn(side, side, device=gpu.device(), dtype=dtype) for _ in range(2))

    def multiply():
        for _ in range(repeats):
            c = a @ b
        c[0, 0].item()

    multiply()
    return 2 * side**3 * repeats / min(seconds(multiply) for _ in range(max(rounds, 3)))


def flops(method: Method) -> float:
    """Floating-point operations per item, a multiplication and an addition being two."""
    return counted(lambda: method.run(method.counted)) / method.counted


def counted(run: Callable) -> int:
    """Floating-point operations of ``run()``.

    The fused attention of inference, which hides its own, is taken apart for it.
    """
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    fused = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with FlopCounterMode(display=False) as counter:
            run()
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)
    return counter.get_total_flops()


def compare(name: str, methods: dict[str, Method], rounds: int, unit: str) -> None:
    """Run each method once to warm up, then ``rounds`` times in turn, and print medians.

    The first method is the plain way; the first called "the study's" is the one whose rate on a GPU
    is kept (``keep``).
    """
    for method in methods.values():
        method.run(method.items)
    spent: dict[str, list[float]] = {label: [] for label in methods}
    tops = []
    for _ in range(rounds):
        tops.append(ceiling(1))
        for label, method in methods.items():
            spent[label].append(seconds(lambda method=method: method.run(method.items)))
    top = statistics.median(tops)
    rates = {label: [method.items / s for s in spent[label]] for label, method in methods.items()}
    report(methods, rates, top, rounds, unit)
    if gpu.device() == "cuda":
        ours = next(label for label in rates if label.startswith("the study's"))
        keep(name, statistics.median(rates[ours]))


def report(
    methods: dict[str, Method], rates: dict[str, list[float]], top: float, rounds: int, unit: str
) -> None:
    """Print the table: items per second of every method in every round, ``top`` in FLOP/s."""
    kind = str(gpu.precision()).removeprefix("torch.")
    print(
        f"\n{gpu.describe()}, {rounds} rounds; "
        f"ceiling: {top / 1e12:.3g} TFLOP/s of {kind} matrix products"
    )
    columns = (unit, "per s", "min", "max", "/ plain", "GFLOP each", "of ceiling")
    print(f"{'method':44s}" + "".join(f"{column:>12s}" for column in columns))
    base = statistics.median(next(iter(rates.values())))
    for label, method in methods.items():
        each = rates[label]
        rate = statistics.median(each)
        work = flops(method)
        print(
            f"{label:44s}{method.items:12,d}{rate:12.4g}{min(each):12.4g}{max(each):12.4g}"
            f"{rate / base:12.2f}{work / 1e9:12.4g}{rate * work / top:12.1%}",
            flush=True,
        )


def keep(name: str, rate: float) -> None:
    """Put the rate into the paper world's ``00_throughput.csv``.

    From it ``--check`` reckons what a run will cost.
    """
    w = worlds.get("paper")
    table = doctor.measured(w)
    table.loc[name, ["per_second", "device"]] = [round(rate, 4), gpu.describe()]
    store.write(doctor.rates_file(w), table.rename_axis("bench").sort_index().to_csv().encode())
