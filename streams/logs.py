"""Structured logs on standard error: readable on a terminal, JSON lines when piped."""

from __future__ import annotations

import logging
import math
import sys
import time
from collections import Counter
from collections.abc import Callable

import stamina.instrumentation
import structlog

from schemas.errors import TidegateError

#: What the libraries below say at INFO is about themselves, not about the user's data.
_LIBRARIES = {
    **dict.fromkeys(("faust", "mode", "aiokafka", "asyncio", "kafka"), logging.WARNING),
    # These warn of what is ordinary: a rebalance, a timer that ran late.
    **dict.fromkeys(("aiokafka.consumer.group_coordinator", "mode.timers"), logging.ERROR),
}


def _not_told_elsewhere(record: logging.LogRecord) -> bool:
    """False for an error of ours that Faust passes on, with a traceback for each hand it goes through.

    The command says it once, at its end.
    """
    error = record.exc_info[1] if record.exc_info else None
    return not (isinstance(error, TidegateError) and record.name.startswith(("faust", "mode")))


class Calm(logging.Filter):
    """Lets a library say the same thing once in `every_s`, and then how often it would have said it.

    While a broker is away aiokafka's tasks say so a hundred times a second, and what matters drowns.
    """

    def __init__(self, every_s: float = 10.0, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._every_s = every_s
        self._clock = clock
        self._said: dict[tuple[str, str], float] = {}
        self._kept_back: Counter[tuple[str, str]] = Counter()

    def filter(self, record: logging.LogRecord) -> bool:
        if not record.name.startswith("aiokafka"):
            return True
        saying, now = (record.name, str(record.msg)), self._clock()
        if now - self._said.get(saying, -math.inf) < self._every_s:
            self._kept_back[saying] += 1
            return False
        self._said[saying] = now
        if more := self._kept_back.pop(saying, 0):
            record.msg, record.args = f"{record.getMessage()} (and {more} more like it)", ()
        return True


def configure(level: str = "INFO", *, json: bool | None = None) -> None:
    """Set up structlog and the standard library's logging. `json` None: by whether stderr is a terminal."""
    as_json = not sys.stderr.isatty() if json is None else json
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
    ]
    renderer: structlog.typing.Processor = (
        structlog.processors.JSONRenderer() if as_json else structlog.dev.ConsoleRenderer(pad_event_to=22)
    )
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    if level != "DEBUG":
        handler.addFilter(_not_told_elsewhere)
        handler.addFilter(Calm())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    for library, usual in _LIBRARIES.items():
        logging.getLogger(library).setLevel(logging.DEBUG if level == "DEBUG" else usual)
    # It would log its requests, and with them the password of SASL PLAIN.
    logging.getLogger("aiokafka.conn").setLevel(logging.INFO if level == "DEBUG" else logging.WARNING)
    # The store writer says itself that it tries again, and with what in the queue.
    stamina.instrumentation.set_on_retry_hooks([])
