"""torch.compile as on a GPU: the same results, and a way on where nothing can be compiled."""

import shutil

import pytest
import torch
import torch._inductor.config as inductor_settings

from helpers.engine import gpu
from helpers.models import clip
from tests import tiny


@pytest.fixture(autouse=True)
def compiling(tmp_path, monkeypatch):
    """Modules are compiled as if there were a GPU, without what earlier tests compiled."""
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "inductor"))
    monkeypatch.setattr(gpu, "device", lambda: "cuda")
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    gpu.compiled.cache_clear()
    yield
    gpu.compiled.cache_clear()


@pytest.mark.skipif(not shutil.which("g++"), reason="torch.compile needs a C++ compiler")
def test_a_compiled_tower_embeds_as_before(tmp_path, monkeypatch):
    monkeypatch.setattr(gpu, "device", lambda: "cpu")
    tower = clip.by_name(str(tiny.clip(tmp_path))).model.visual
    monkeypatch.setattr(gpu, "device", lambda: "cuda")
    x = torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        assert torch.allclose(gpu.compiled(tower)(x), tower(x), atol=1e-5)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1


def test_without_a_compiler_results_come_all_the_same(monkeypatch):
    monkeypatch.setattr(inductor_settings.cpp, "cxx", ("/nowhere/g++",))
    layer = torch.nn.Sequential(torch.nn.Linear(7, 5), torch.nn.GELU())
    x = torch.ones(3, 7)
    quick = gpu.compiled(layer)
    with torch.inference_mode():
        assert torch.equal(quick(x), layer(x))
        assert torch.equal(quick(x), layer(x))


def test_a_wrong_input_is_the_modules_own_error():
    with pytest.raises(RuntimeError, match="shapes"):
        gpu.compiled(torch.nn.Linear(7, 5))(torch.ones(3, 6))


def test_without_a_gpu_nothing_is_compiled(monkeypatch):
    monkeypatch.setattr(gpu, "device", lambda: "cpu")
    layer = torch.nn.Linear(2, 2)
    assert gpu.compiled(layer) is layer
