"""Shared by the tests of models."""

import contextlib

import pytest

from helpers.engine import gpu


@pytest.fixture
def float32(monkeypatch):
    """Models compute in full precision, also where the CPU is fast in bfloat16."""
    monkeypatch.setattr(gpu, "autocast", lambda precision="bf16": contextlib.nullcontext())
