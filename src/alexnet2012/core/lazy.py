"""Lazy imports, so that flags and ``--help`` do not wait seconds for torch."""

from __future__ import annotations

import pkgutil
import sys
from collections.abc import Callable, Iterator, Mapping
from importlib import import_module
from typing import Any, TypeVar

T = TypeVar("T")


def lazily(package: str, exports: Mapping[str, str] | None = None) -> tuple[Callable[[str], Any], Callable[[], Any]]:
    """``__getattr__`` and ``__dir__`` (PEP 562) of a package that imports its modules and ``exports`` at first use.

    ``exports``: module of the package -> the names it exports, separated by spaces. None may be a module's name.
    """
    modules = {module.name for module in pkgutil.iter_modules(sys.modules[package].__path__)}
    homes = {name: module for module, names in (exports or {}).items() for name in names.split()}

    def find(name: str) -> Any:
        if name in homes:
            return getattr(import_module(f"{package}.{homes[name]}"), name)
        if name in modules:
            return import_module(f"{package}.{name}")
        raise AttributeError(f"module {package!r} has no attribute {name!r}")

    return find, lambda: sorted(modules | homes.keys())


class Registry(Mapping[str, T]):
    """Objects by name, each imported when it is looked up.

    ``places``: name -> ``module:object``, as in an entry point, with the module relative to ``package``.
    """

    def __init__(self, package: str, places: Mapping[str, str]) -> None:
        self.package, self.places = package, places

    def __getitem__(self, name: str) -> T:
        module, _, found = self.places[name].partition(":")
        return getattr(import_module(f"{self.package}.{module}"), found)

    def __contains__(self, name: object) -> bool:
        return name in self.places

    def __iter__(self) -> Iterator[str]:
        return iter(self.places)

    def __len__(self) -> int:
        return len(self.places)
