"""Functions of arrays, compiled by numba when their module is imported: one call, and no step of Python a byte.

What was compiled is kept on disk beside the module, or where that cannot be written in the user's cache
(`NUMBA_CACHE_DIR` names another place): a second once, and a tenth of one at each start. Where nothing can be
written it is compiled at each start. To import such a module is to compile it; where there is no numba, that
raises ImportError, and whoever imports it has another way.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeVar

import numba
from numba import types

F = TypeVar("F", bound=Callable[..., Any])

VOID: Final = types.void
INT: Final = types.int64
BUFFER: Final = types.uint8[::1]
BYTES: Final = types.Array(types.uint8, 1, "C", readonly=True)
WORDS: Final = types.Array(types.uint64, 1, "A", readonly=True, aligned=False)
INTS: Final = types.int64[::1]
TABLE: Final = types.int64[:, ::1]


def compiled(result: Any, *arguments: Any) -> Callable[[F], F]:
    """Compile a function of these types. It keeps the interpreter for as long as it runs: to get it back takes
    longer than most batches."""

    def compile_(function: F) -> F:
        signature = result(*arguments)
        try:
            return numba.njit(signature, cache=True)(function)  # type: ignore[no-any-return]
        except Exception:  # no folder that can be written, no room in it, or what is in it was cut off
            return numba.njit(signature)(function)  # type: ignore[no-any-return]

    return compile_


def part(function: F) -> F:
    """For what compiled functions call: it becomes part of them.

    Those of other modules are not compiled anew when it changes: who changes it touches these modules, too.
    """
    return numba.njit(function)  # type: ignore[no-any-return]
