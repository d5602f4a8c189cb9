"""Loading market-data-store, and having it keep its log lines to itself."""

from __future__ import annotations

import warnings
from types import ModuleType

from streams.extras import need

PURPOSE = 'store = "market-data-store"'


def load(module: str) -> ModuleType:
    """`datastore` or `mds_client`; raises ConfigError where the extra is missing."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # its models are written for an older pydantic
        loaded = need("store", module, PURPOSE)
    # It writes a line for every batch to stderr, and an error that we raise anyway.
    need("store", "loguru", PURPOSE).logger.disable(module)
    return loaded
