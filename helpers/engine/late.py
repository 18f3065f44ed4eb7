"""Libraries that take seconds to import: each is imported when something of it is first used."""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import TYPE_CHECKING, Any


class Library(ModuleType):
    """Stands for the library of its name."""

    def __getattr__(self, attribute: str) -> Any:
        return getattr(importlib.import_module(self.__name__), attribute)


open_clip, scipy, sklearn, timm = map(Library, ("open_clip", "scipy", "sklearn", "timm"))
if TYPE_CHECKING:
    import torch
else:
    torch = Library("torch")
