from __future__ import annotations

import asyncio
import csv
import io
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from schemas.bar import Bar, decode_bar
from streams.cli.bar_table import BarTable
from streams.cli.bars import CSV_COLUMNS
from streams.store.base import open_store
from support.inprocess import Cli
from support.store_contract import MINUTE_NS, START_NS, a_bar
from support.workers import environment

FIRST = "2023-11-14T22:14:00Z"
BARS = [
    a_bar(symbol="ETHUSDT", vwap=None, volume="0", turnover="0", buy_volume="0", sell_volume="0"),
    a_bar(start_ns=START_NS + MINUTE_NS, revision=2, final=False),
    a_bar(),
    a_bar(type="1h", venue=""),
]


def fill(path: Path, bars: Sequence[Bar]) -> None:
    async def write() -> None:
        store = open_store(f"duckdb:{path}")
        await store.open()
        await store.write(bars)
        await store.close()

    asyncio.run(write())


@pytest.fixture
def store(tmp_path: Path) -> str:
    fill(tmp_path / "bars.duckdb", BARS)
    return f"duckdb:{tmp_path / 'bars.duckdb'}"


def rows(out: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(out)))


def test_csv_has_its_columns_in_order_plain_numbers_and_an_empty_vwap_where_there_is_none(
    cli: Cli, store: str
) -> None:
    header, hour, first, second, eth = cli("bars", "--store", store, "--format", "csv").out.splitlines()

    assert header == (
        "symbol,type,start_ns,end_ns,open,high,low,close,volume,turnover,vwap,trade_count,"
        "buy_volume,sell_volume,revision,final"
    )
    assert first == (
        f"BTCUSDT,1m,{START_NS},{START_NS + MINUTE_NS},61837.63,61840,61830.1,61835.005,1.5,92755.5,61837,3,"
        "1,0.5,0,true"
    )
    assert hour.startswith("BTCUSDT,1h,")
    assert second.endswith(",2,false")
    assert eth.startswith("ETHUSDT,")
    assert eth.endswith("61835.005,0,0,,3,0,0,0,true")


def test_a_symbol_with_a_comma_is_quoted(cli: Cli, tmp_path: Path) -> None:
    fill(tmp_path / "odd.duckdb", [a_bar(symbol='A,"B"')])

    done = cli("bars", "--store", "duckdb:odd.duckdb", "--format", "csv")

    assert [row["symbol"] for row in rows(done.out)] == ['A,"B"']


def test_json_is_one_bar_a_line_as_on_the_bars_topic(cli: Cli, store: str) -> None:
    done = cli("bars", "--store", store, "--format", "json", "--symbol", "BTCUSDT", "--type", "1m")

    assert [decode_bar(line.encode()) for line in done.out.splitlines()] == [BARS[2], BARS[1]]


@pytest.mark.parametrize(
    ("arguments", "found"),
    [
        ([], 4),
        (["--symbol", "ETHUSDT"], 1),
        (["--symbol", "ethusdt"], 0),
        (["--type", "1m"], 3),
        (["--venue", "BINANCE"], 3),
        (["--venue", ""], 1),
        (["--from", FIRST, "--to", "2023-11-14T22:15:00Z"], 3),
        (["--from", str(START_NS + 1)], 1),
        (["--to", str(START_NS)], 0),
        (["--last", "1"], 1),
    ],
)
def test_options_restrict_what_is_printed(cli: Cli, store: str, arguments: list[str], found: int) -> None:
    done = cli("bars", "--store", store, "--format", "csv", *arguments)

    assert done.status == 0
    assert len(rows(done.out)) == found
    assert done.err == ("" if found else "no bars match\n")
    assert done.out.startswith(",".join(CSV_COLUMNS))


def test_the_store_is_that_of_the_settings_where_none_is_named(
    cli: Cli, store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TIDEGATE_STORE", store)

    assert len(rows(cli("bars", "--format", "csv").out)) == 4


def test_a_table_is_aligned_and_tells_times_as_iso(cli: Cli, store: str) -> None:
    done = cli("bars", "--store", store, "--type", "1m")

    header, first, second, eth = done.out.splitlines()
    assert header.split()[3:] == ["open", "high", "low", "close", "volume", "vwap", "trades", "rev", "state"]
    assert first.split()[:3] == ["BINANCE:BTCUSDT", "1m", FIRST]
    assert first.split()[3:7] == ["61837.630", "61840.000", "61830.100", "61835.005"]
    assert first.split()[7:] == ["1.5", "61837.00000", "3", "0", "final"]
    assert second.split()[-2:] == ["2", "open"]
    assert eth.split()[8] == "-"
    # Numbers end, and texts begin, where their header does.
    for name in ("open", "close", "vwap", "trades"):
        end = header.index(name) + len(name)
        assert all(line[end - 1] != " " and line[end : end + 1] in ("", " ") for line in (first, second, eth))
    assert first.index(FIRST) == header.index("start")


def test_a_narrow_terminal_loses_columns_and_no_digits() -> None:
    bar = a_bar()

    wide, narrow = BarTable(width=None, color=False)([bar]), BarTable(width=95, color=False)([bar])

    assert "vwap" in wide
    assert "vwap" not in narrow
    assert all(len(line) <= 95 for line in narrow.splitlines())
    assert "61835.005" in narrow


def test_batches_follow_each_other_under_one_header() -> None:
    table = BarTable(width=None, color=False)

    text = table([a_bar()]) + table([]) + table([a_bar(symbol="A-MUCH-LONGER-SYMBOL")])

    assert text.count("instrument") == 1
    assert len(text.splitlines()) == 3


def test_vwap_is_rounded_in_the_table_only(cli: Cli, tmp_path: Path) -> None:
    prices = dict.fromkeys(("open", "high", "low", "close"), "0.1")
    fill(
        tmp_path / "v.duckdb",
        [a_bar(vwap="0.1006666666666667", **prices), a_bar(symbol="Z", vwap="-0.1015", **prices)],
    )

    table = cli("bars", "--store", "duckdb:v.duckdb").out.splitlines()
    exact = rows(cli("bars", "--store", "duckdb:v.duckdb", "--format", "csv").out)

    assert [line.split()[8] for line in table[1:]] == ["0.101", "-0.102"]
    assert [row["vwap"] for row in exact] == ["0.1006666666666667", "-0.1015"]


def test_an_empty_answer_is_no_failure(cli: Cli, store: str) -> None:
    done = cli("bars", "--store", store, "--symbol", "NONE")

    assert (done.status, done.out, done.err) == (0, "", "no bars match\n")


def test_a_file_that_a_worker_has_open_is_told_with_the_process(cli: Cli, tmp_path: Path, store: str) -> None:
    path = store.removeprefix("duckdb:")
    holder = subprocess.Popen(
        [
            sys.executable,
            "-c",
            f"import duckdb; c = duckdb.connect({path!r}); print('open', flush=True); input()",
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    with holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"open\n"
        done = cli("bars", "--store", store)
        holder.communicate(b"\n")

    assert done.status == 1
    assert str(holder.pid) in done.err
    assert "hint: " in done.err


def test_a_file_that_holds_no_bars_is_no_store(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "text.duckdb").write_text("not a database")

    done = cli("bars", "--store", "duckdb:text.duckdb")

    assert (done.status, done.out) == (1, "")
    assert "is not a DuckDB file" in done.err


@pytest.fixture
def many(tmp_path: Path) -> str:
    fill(tmp_path / "many.duckdb", [a_bar(start_ns=START_NS + i * MINUTE_NS) for i in range(12_000)])
    return f"duckdb:{tmp_path / 'many.duckdb'}"


@pytest.mark.parametrize("style", ["csv", "json", "table"])
def test_a_reader_that_has_enough_ends_it_in_silence(many: str, tmp_path: Path, style: str) -> None:
    read_end, write_end = os.pipe()
    process = subprocess.Popen(
        [sys.executable, "-m", "agents", "bars", "--store", many, "--format", style],
        stdout=write_end,
        stderr=subprocess.PIPE,
        cwd=tmp_path,
        env=environment(),
    )
    os.close(write_end)
    os.read(read_end, 100)
    os.close(read_end)

    _, errors = process.communicate(timeout=60)

    assert (process.returncode, errors) == (0, b"")


def test_a_big_store_is_printed_whole_and_in_order(cli: Cli, many: str) -> None:
    lines = cli("bars", "--store", many, "--format", "json").out.splitlines()

    starts = [json.loads(line)["start_ns"] for line in lines]
    assert starts == [START_NS + i * MINUTE_NS for i in range(12_000)]
