"""Files of ticks, line by line: CSV or JSON lines, plain or gzip, or standard input."""

from __future__ import annotations

import gzip
import sys
import zlib
from codecs import BOM_UTF8
from collections.abc import Iterator
from pathlib import Path
from typing import IO, NamedTuple

from schemas.codecs import get_codec
from schemas.codecs.csv import COLUMNS
from schemas.errors import BadTick, SourceError
from schemas.trade import Trade, instrument

#: The longest line that fits into a Kafka record of the default size (1 MiB and 12 bytes, less what
#: the record's batch, key and headers take).
MAX_LINE_BYTES = 1_000_000


class Line(NamedTuple):
    """One line of a file. `value` is None where it is too long for a record."""

    file: str
    number: int
    value: bytes | None
    size: int


class Source:
    """One file, or standard input for ``-``."""

    def __init__(self, name: str) -> None:
        self.name = "<stdin>" if name == "-" else name
        self._path = None if name == "-" else Path(name)
        self._raw: IO[bytes] | None = None
        self._read = 0
        if self._path is None and sys.stdin is None:
            raise SourceError("it is closed", file=self.name)
        if self._path is not None:
            if self._path.is_dir():
                raise SourceError("it is a directory", file=name, hint="name the files in it")
            if not self._path.exists():
                raise SourceError("no such file", file=name)
            try:
                self._path.open("rb").close()
            except OSError as exc:
                raise SourceError(f"it cannot be read: {exc.strerror}", file=name) from None

    @property
    def size(self) -> int | None:
        """Bytes on disk; None for standard input."""
        return self._path.stat().st_size if self._path is not None else None

    @property
    def read_bytes(self) -> int:
        """How many of `size` bytes have been read."""
        if self._raw is not None and self._path is not None:
            self._read = self._raw.tell()
        return self._read

    def lines(self) -> Iterator[Line]:
        """All lines that are not blank. Raises `SourceError` where the file is damaged."""
        number = 0
        raw = self._raw = self._path.open("rb") if self._path else sys.stdin.buffer
        try:
            stream: IO[bytes] = raw
            if self._is_gzip(raw):
                stream = gzip.open(raw)  # type: ignore[assignment]  # noqa: SIM115  closed with raw
            while line := stream.readline(MAX_LINE_BYTES + 2):
                number += 1
                size = len(line)
                value: bytes | None = line.rstrip(b"\r\n").removeprefix(BOM_UTF8 if number == 1 else b"")
                if not line.endswith(b"\n") and size > MAX_LINE_BYTES:
                    while rest := stream.readline(MAX_LINE_BYTES):
                        size += len(rest)
                        if rest.endswith(b"\n"):
                            break
                    value = None
                if value is None or value.strip():
                    yield Line(self.name, number, value, size)
        except (EOFError, zlib.error, gzip.BadGzipFile) as exc:
            raise SourceError(
                f"the gzip data is damaged after this line: {exc}",
                file=self.name,
                line=number,
                hint="fetch the file again; `gzip -t` tests it",
            ) from None
        except OSError as exc:
            raise SourceError(f"it cannot be read further: {exc}", file=self.name, line=number) from None
        finally:
            if self._path is not None:
                self._read = raw.tell()
                raw.close()
                self._raw = None

    def _is_gzip(self, raw: IO[bytes]) -> bool:
        peek = getattr(raw, "peek", None)
        return bool(peek and peek(2)[:2] == b"\x1f\x8b")


def guess_feed(names: list[str]) -> str:
    """The feed by the files' endings: csv for .csv and .csv.gz, else jsonl."""
    bare = [name.removesuffix(".gz").lower() for name in names]
    return "csv" if bare and all(name.endswith(".csv") for name in bare) else "jsonl"


class Keyer:
    """Gives the record key of a line: the instrument of its first trade."""

    def __init__(self, feed: str, venue: str) -> None:
        self._codec = get_codec(feed, venue)
        self._is_csv = feed == "csv"

    def is_header(self, line: Line) -> bool:
        """Whether the line is the header of a CSV file. Raises `SourceError` for one with other columns."""
        if not self._is_csv or line.number != 1 or line.value is None:
            return False
        text = line.value.decode("utf-8", "replace")
        if text == COLUMNS:
            return True
        if self.first(line.value)[0] is not None:
            return False  # a tick, of TSLA for one
        if text.lower().startswith(("symbol,", "timestamp,", "ts", "time")) or "price" in text.lower():
            raise SourceError(
                f"its columns are {text[:120]!r}",
                file=line.file,
                line=1,
                hint=f"they must be {COLUMNS}, in this order",
            )
        return False

    def key(self, value: bytes) -> tuple[bytes | None, str]:
        """The key, and what is wrong with the line where nothing can be read from it."""
        trade, problem = self.first(value)
        return None if trade is None else instrument(trade.venue, trade.symbol).encode(), problem

    def first(self, value: bytes) -> tuple[Trade | None, str]:
        """The first trade of the line, if it has one, and what is wrong where it cannot be read."""
        try:
            trades = self._codec.decode(value)
        except BadTick as exc:
            return None, str(exc)
        return trades[0] if trades else None, ""
