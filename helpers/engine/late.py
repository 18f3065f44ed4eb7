"""Libraries that take seconds to import: each is imported when something of it is first used."""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import TYPE_CHECKING, Any


class Library(ModuleType):
    """Stands for the library of its name."""

    def __getattr__(self, attribute: str) -> Any:
        return getattr(importlib.import_module(self.__name__), attribute)


faiss, open_clip, timm = map(Library, ("faiss", "open_clip", "timm"))
scipy, sklearn = map(Library, ("scipy", "sklearn"))
if TYPE_CHECKING:
    import torch
    from torch import nn
    from torch.nn import functional
else:
    torch, nn, functional = map(Library, ("torch", "torch.nn", "torch.nn.functional"))
