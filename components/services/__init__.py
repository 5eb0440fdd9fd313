"""The services, one module each, and the registry that finds them."""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache

from components.service import Service


@cache
def registry() -> dict[str, type[Service]]:
    """Services by settings key, in the alphabetical order of their modules.

    Raises:
        TypeError: when a module defines no service or two share a key (a mistake of the programmer).
    """
    found: dict[str, type[Service]] = {}
    for info in pkgutil.iter_modules(__path__):
        module = importlib.import_module(f"{__name__}.{info.name}")
        own = [
            value
            for value in vars(module).values()
            if isinstance(value, type) and issubclass(value, Service) and value.__module__ == module.__name__
        ]
        if len(own) != 1 or own[0].key in found:
            raise TypeError(f"{module.__name__} must define exactly one service with a key of its own")
        found[own[0].key] = own[0]
    return found
