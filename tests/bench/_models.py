"""What the benchmarks of models share: methods taking turns, the device's matrix-multiply ceiling, and the table of both.

With a GPU the models have their published sizes, and random weights, which compute as fast as trained ones. On a CPU they are
tiny: the code is the same, but the rates say nothing about the published setting.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

from helpers import gpu


@dataclass(frozen=True)
class Method:
    """``run(n)`` handles n items and fetches the result; ``counted`` of them are enough to count the arithmetic."""

    run: Callable[[int], object]
    items: int
    counted: int = 1


def seconds(fn: Callable) -> float:
    """Wall time of ``fn()``."""
    start = time.perf_counter()
    fn()
    return time.perf_counter() - start


def ceiling(rounds: int) -> float:
    """FLOP per second of a large matrix product, in the type that published models are loaded in; the best of some rounds."""
    import torch

    side, repeats = (8_192, 50) if gpu.device() == "cuda" else (1_024, 10)
    a, b = (torch.randn(side, side, device=gpu.device(), dtype=gpu.precision()) for _ in range(2))

    def multiply():
        for _ in range(repeats):
            c = a @ b
        c[0, 0].item()

    multiply()
    return 2 * side**3 * repeats / min(seconds(multiply) for _ in range(max(rounds, 3)))


def flops(method: Method) -> float:
    """Floating-point operations per item, a multiplication and an addition being two."""
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        method.run(method.counted)
    return counter.get_total_flops() / method.counted


def compare(methods: dict[str, Method], rounds: int, unit: str) -> None:
    """Run each method once to warm up, then ``rounds`` times in turn, and print medians; the first method is the plain way."""
    for method in methods.values():
        method.run(method.items)
    spent: dict[str, list[float]] = {label: [] for label in methods}
    tops = []
    for _ in range(rounds):
        tops.append(ceiling(1))
        for label, method in methods.items():
            spent[label].append(seconds(lambda method=method: method.run(method.items)))
    top, plain, base = statistics.median(tops), next(iter(methods)), None
    kind = str(gpu.precision()).removeprefix("torch.")
    print(f"\n{gpu.describe()}, {rounds} rounds; ceiling: {top / 1e12:.3g} TFLOP/s of {kind} matrix products")
    print(f"{'method':44s}" + "".join(f"{h:>12s}" for h in (unit, "per s", "min", "max", "/ plain", "GFLOP each", "of ceiling")))
    for label, method in methods.items():
        each = [method.items / s for s in spent[label]]
        rate, work = statistics.median(each), flops(method)
        base = rate if label == plain else base
        print(f"{label:44s}{method.items:12,d}{rate:12.4g}{min(each):12.4g}{max(each):12.4g}{rate / base:12.2f}{work / 1e9:12.4g}"
              f"{rate * work / top:12.1%}", flush=True)
