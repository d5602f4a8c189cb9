"""Packages that not everyone needs: imported where they are used, and named where they are missing."""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import Literal

from schemas.errors import ConfigError

Extra = Literal["core", "store", "registry", "redis"]


def need(extra: Extra, module: str, purpose: str) -> ModuleType:
    """Import a module of an extra. Raises `ConfigError` that says which extra has it, and what it is for.

    redis = need("redis", "redis.asyncio", "tidegate bridge pulse")
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as exc:
        raise ConfigError(
            f"{purpose} needs the package {exc.name}, which is not installed",
            hint=f"pip install 'tidegate[{extra}]'",
        ) from None
