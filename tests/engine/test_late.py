"""Libraries stay unloaded until something of them is used."""

import subprocess
import sys

import torch

from helpers.engine import late

USING = """
import sys
from helpers.engine.late import scipy, torch
assert not {"torch", "scipy.special"} & set(sys.modules)
assert scipy.special.expit(0) == 0.5
assert "torch" not in sys.modules
assert torch.zeros(2).sum() == 0
"""


def test_a_library_is_imported_when_it_is_used():
    subprocess.run([sys.executable, "-c", USING], check=True)


def test_it_stands_for_the_library_itself():
    assert late.torch.Tensor is torch.Tensor
    assert not hasattr(late.torch, "no_such_name")
