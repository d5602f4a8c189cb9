from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from schemas.codecs.csv import COLUMNS
from schemas.errors import ConfigError
from streams.cli.replay import choose_feed
from streams.cli.stopping import Stop
from streams.settings import TickTopic
from support.inprocess import Cli


@pytest.mark.parametrize(
    ("asked", "names", "configured", "feed"),
    [
        (None, ["a.csv"], None, "csv"),
        (None, ["a.csv.gz", "B.CSV"], None, "csv"),
        (None, ["a.jsonl.gz"], None, "jsonl"),
        (None, ["-"], None, "jsonl"),
        (None, ["a.jsonl.gz"], "binance", "binance"),
        (None, ["a.log"], "kraken", "kraken"),
        (None, ["a.csv"], "csv", "csv"),
        (None, ["-"], "csv", "csv"),
        ("csv", ["a.csv"], "tidegate", "csv"),
        ("binance", ["a.csv"], None, "binance"),
    ],
)
def test_the_feed_is_the_one_asked_for_or_the_topics_or_the_files(
    asked: str | None, names: list[str], configured: str | None, feed: str
) -> None:
    topic = TickTopic(topic="t", feed=configured) if configured else None

    assert choose_feed(asked, names, topic) == feed


@pytest.mark.parametrize(
    ("name", "configured"), [("a.csv", "tidegate"), ("a.csv.gz", "binance"), ("a.jsonl", "csv")]
)
def test_files_that_no_worker_of_the_topic_could_read_are_refused(name: str, configured: str) -> None:
    with pytest.raises(ConfigError, match=f"carries the feed {configured}"):
        choose_feed(None, [name], TickTopic(topic="t", feed=configured))


def test_a_csv_file_for_a_topic_of_json_is_refused_before_a_broker_is_asked(cli: Cli) -> None:
    Path("trades.csv").write_text(COLUMNS + "\n")

    done = cli("replay", "trades.csv", "--topic", "md.ticks.v1", "--broker", "127.0.0.1:1")

    assert done.status == 1
    assert "md.ticks.v1 carries the feed tidegate, and the files are CSV" in done.err
    assert "--feed csv" in done.err


def test_a_signal_ends_reading_after_the_item_at_hand() -> None:
    stop, items = Stop(), iter(range(10))
    read = []

    with stop.on_signals():
        for item in stop.reading(items):
            read.append(item)
            if item == 3:
                os.kill(os.getpid(), signal.SIGTERM)

    assert read == [0, 1, 2, 3]
    assert stop.requested


def test_a_signal_ends_a_read_that_waits() -> None:
    stop = Stop()

    def items() -> Iterator[int]:
        yield 1
        os.kill(os.getpid(), signal.SIGINT)
        yield 2

    with stop.on_signals():
        assert list(stop.reading(items())) == [1]
    assert stop.requested


def test_a_signal_that_comes_twice_at_once_is_one_and_a_later_one_leaves(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now_s = 100.0
    monkeypatch.setattr("streams.cli.stopping.time.monotonic", lambda: now_s)
    stop = Stop()

    with stop.on_signals():
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        now_s = 103.0
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


def test_handlers_are_put_back() -> None:
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)

    with Stop().on_signals():
        assert signal.getsignal(signal.SIGINT) != before[0]

    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


def test_sleep_ends_with_the_signal() -> None:
    stop = Stop()

    async def run() -> None:
        asyncio.get_running_loop().call_later(0.02, os.kill, os.getpid(), signal.SIGTERM)
        await asyncio.wait_for(stop.sleep(60), 10)

    with stop.on_signals():
        asyncio.run(run())
    assert stop.requested
