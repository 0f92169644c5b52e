"""Makes transformers know our models as soon as it is there, and not before.

Registering needs transformers and torch, whose import takes seconds. Much of `selector` needs
neither, so `import selector` must not pay for them: it registers at once with what is loaded
already, and with every other auto class when that comes to be.
"""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import sys
from collections.abc import Sequence
from types import ModuleType

_AUTO = "transformers.models.auto"
_REGISTERED_BY = {
    f"{_AUTO}.configuration_auto": "selector.deploy.transformers_config",
    f"{_AUTO}.modeling_auto": "selector.deploy.auto",
    f"{_AUTO}.video_processing_auto": "selector.deploy.video_processor",
}
"""Module of transformers' auto classes -> ours whose `register` is called once that is loaded."""


def register_with_transformers() -> None:
    """Registers now or, without importing anything, later."""
    later = {}
    for theirs, ours in _REGISTERED_BY.items():
        if theirs in sys.modules:
            _register(ours)
        else:
            later[theirs] = ours
    if later:
        sys.meta_path.insert(0, _Watch(later))


def _register(module: str) -> None:
    importlib.import_module(module).register()


class _Watch(importlib.abc.MetaPathFinder):
    """Finds nothing itself; it wraps the loaders that others find for a few modules.

    Args:
        waiting: as `_REGISTERED_BY`.
    """

    def __init__(self, waiting: dict[str, str]) -> None:
        self._waiting = waiting

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        ours = self._waiting.pop(name, None)
        if ours is None:
            return None
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.loader is not None:
            spec.loader = _ThenRegister(spec.loader, ours)
        return spec


class _ThenRegister(importlib.abc.Loader):
    """Loads as another loader does, and then registers."""

    def __init__(self, loader: importlib.abc.Loader, ours: str) -> None:
        self._loader, self._ours = loader, ours

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        self._loader.exec_module(module)
        _register(self._ours)
