"""torch.compile as the generator uses it on a GPU: the same results, and a way on where nothing can be compiled."""

import shutil

import pytest
import torch

from helpers.engine import gpu
from helpers.models import clip
from tests import tiny


@pytest.fixture(autouse=True)
def no_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "inductor"))
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()


@pytest.mark.skipif(not shutil.which("g++"), reason="torch.compile needs a C++ compiler")
def test_a_compiled_tower_embeds_as_before(tmp_path, capfd):
    tower, x = (
        clip.load_folder(tiny.clip(tmp_path)).model.visual,
        torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(0)),
    )
    with torch.inference_mode():
        assert torch.allclose(gpu.inductor(tower)(x), tower(x), atol=1e-5)
    assert (
        torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1
        and "without torch.compile" not in capfd.readouterr().out
    )


def test_without_a_compiler_one_line_says_so_and_results_come(monkeypatch, capfd):
    import torch._inductor.config as settings

    monkeypatch.setattr(settings.cpp, "cxx", ("/nowhere/g++",))
    layer, x = torch.nn.Sequential(torch.nn.Linear(7, 5), torch.nn.GELU()), torch.ones(3, 7)
    quick = gpu.inductor(layer)
    with torch.inference_mode():
        assert torch.equal(quick(x), layer(x)) and torch.equal(quick(x), layer(x))
    said = capfd.readouterr().out
    assert (
        said.count("Sequential: goes on without torch.compile") == 1
        and "g++" in said
        and len(said.strip().splitlines()) == 1
    )


def test_a_wrong_input_is_the_modules_own_error():
    with pytest.raises(RuntimeError, match="shapes"):
        gpu.inductor(torch.nn.Linear(7, 5))(torch.ones(3, 6))
