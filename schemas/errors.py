"""Everything Tidegate raises on purpose.

TidegateError
├── BadTick                 a tick record cannot be used; it becomes a dead letter
├── BadRecord               a bar, feedback, rate or dead-letter record cannot be read
├── ConfigError             the settings or topics.toml contradict themselves or the cluster
├── StateError              a row of the state topic cannot be read, or does not fit the settings or the log
├── SourceError             a file to be replayed cannot be read, at a line
├── BrokerError             Kafka refused, or is not there
│   ├── ProduceError        a record was not acknowledged
│   │   └── LaneLost        a partition's transaction was fenced or given up
│   └── RecordsLost         the broker deleted records before they were read
├── BusAway                 an event bus of market-data-core does not answer, or refuses
├── RegistryError           the schema registry refused, or is not there and must be
│   └── SchemaMismatch      a message does not fit the registry's schema
└── StoreError              the database refused
    ├── StoreRefused        credentials, rights, its table: people can mend it, waiting alone cannot
    │   └── StoreInUse      another process has the file open
    ├── StoreUnavailable    not reachable right now; retriable
    │   └── StoreTooSlow    a write took too long; fewer bars may pass
    ├── BadBar              this bar does not fit the table; its neighbours may
    └── QueueFull           bars came faster than the database took them, and the settings say to stop
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from schemas.bar import Bar
    from schemas.dead_letter import Reason


class TidegateError(Exception):
    """The base of all; `hint` says what to try, where there is something to try."""

    def __init__(self, message: str = "", *, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


class BadTick(TidegateError):
    """A tick record cannot be used. `reason` is for counting, `detail` for people."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


class BadRecord(TidegateError):
    """A record of Tidegate's own topics cannot be read."""


class ConfigError(TidegateError):
    """The settings contradict themselves, or the cluster."""


class StateError(TidegateError):
    """A row of the state topic cannot be read, or does not fit: going on would make wrong bars."""


class SourceError(TidegateError):
    """A file cannot be read further, at this line; line 0 is the file as a whole."""

    def __init__(self, message: str, *, file: str, line: int = 0, hint: str = "") -> None:
        super().__init__(f"{file}:{line}: {message}" if line else f"{file}: {message}", hint=hint)
        self.file = file
        self.line = line


class BrokerError(TidegateError):
    """Kafka refused, or is not there."""


class ProduceError(BrokerError):
    """A record was not acknowledged, so nothing that depends on it may be committed."""


class LaneLost(ProduceError):
    """A partition's transaction was fenced by a newer owner, or given up: nothing since the last one counts.

    Nothing is lost with it: whoever owns the partition makes the same again from the last checkpoint.
    """


class RecordsLost(BrokerError):
    """Records are gone from the log before they were read; the message says which."""


class BusAway(TidegateError):
    """An event bus of market-data-core does not answer, or refuses; it may come back."""


class RegistryError(TidegateError):
    """The schema registry refused, or is not there and must be."""


class SchemaMismatch(RegistryError):
    """A message does not fit the schema that the registry has of it."""

    def __init__(self, name: str, errors: list[str], track: str) -> None:
        super().__init__(
            f"schema {name} (track {track}) refuses the message: {'; '.join(errors)}",
            hint="registry_mode is strict; with warn it is logged",
        )
        self.name = name
        self.errors = errors
        self.track = track


class StoreError(TidegateError):
    """The database refused. `retriable` says whether the same write may succeed later."""

    retriable: ClassVar[bool] = False


class StoreRefused(StoreError):
    """The database is not as it must be. An error at the start; who has written to it waits to have it back."""


class StoreInUse(StoreRefused):
    """Another process has the database file open."""


class StoreUnavailable(StoreError):
    """The database cannot be reached, or cannot take this write right now."""

    retriable: ClassVar[bool] = True


class StoreTooSlow(StoreUnavailable):
    """A write was given up as it took too long, or too much memory: with fewer bars it may pass."""


class BadBar(StoreError):
    """This bar does not fit the table, whatever is tried; the rest of its batch may be written without it."""

    def __init__(self, message: str = "", *, bar: Bar | None = None, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.bar = bar


class QueueFull(StoreError):
    """Bars found no room before the database, and the settings say to stop rather than to wait or to drop."""
