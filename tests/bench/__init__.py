"""Benchmarks, run by hand: ``python -m tests.bench NAME``.

Each compares with a named baseline that is measured in the same run.
"""
