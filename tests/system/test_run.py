"""``tidegate run`` on the embedded broker and DuckDB: recorded trades, bad input, wrong arguments."""

from __future__ import annotations

import csv
import gzip
import io
import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from recorded import TICKS, needs_ticks
from support import oracle
from support.cli import assert_one_clear_line, summary, tidegate

pytestmark = pytest.mark.embedded

HEADER = "symbol,ts_ns,recv_ns,price,size,trade_id,side,cond"
BASE = 1_723_161_240 * 10**9


def stored(folder: Path, bar_type: str, symbol: str) -> dict[int, oracle.Content]:
    done = tidegate("bars", "--store", "duckdb:tidegate.duckdb", "--type", bar_type, "--symbol", symbol,
                    "--format", "csv", cwd=folder)  # fmt: skip
    assert done.returncode == 0, done.stderr.decode()
    return {
        int(row["start_ns"]): oracle.Content(
            *(Decimal(row[k]) for k in ("open", "high", "low", "close", "volume")), int(row["trade_count"])
        )
        for row in csv.DictReader(io.StringIO(done.stdout.decode()))
    }


def balanced(found: dict[str, Any]) -> bool:
    parts = ("ticks_accepted", "dead_lettered", "duplicates", "dropped")
    return bool(found["ticks_read"] == sum(found[part] for part in parts))


def csv_file(path: Path, rows: list[str]) -> Path:
    path.write_text("\n".join([HEADER, *rows]) + "\n")
    return path


@pytest.mark.recorded
@needs_ticks
class TestRecorded:
    def test_kraken_gives_the_273_whole_minutes_that_kraken_published(self, tmp_path: Path) -> None:
        found = summary(TICKS / "kraken_xbtusdt" / "trades.csv", "--bars", "1m", cwd=tmp_path)
        assert found["ticks_read"] == found["ticks_accepted"] == 1000
        assert found["bars"] == {"1m": 274}
        ours = stored(tmp_path, "1m", "XBTUSDT")
        first = min(ours)
        published = {s: b for s, b in oracle.published_kraken(TICKS).items() if first < s <= max(ours)}
        assert len(published) == 273
        assert {s: bar for s, bar in ours.items() if s != first} == published

    def test_xrpeth_gives_2469_and_706_bars_and_a_second_run_changes_nothing(self, tmp_path: Path) -> None:
        for _ in range(2):
            found = summary(TICKS / "binance_xrpeth" / "trades.csv.gz", "--bars", "1m,5m", cwd=tmp_path)
            assert found["ticks_accepted"] == 12_477
            assert found["bars"] == {"1m": 2469, "5m": 706}
            for bar_type in ("1m", "5m"):
                ours = stored(tmp_path, bar_type, "XRPETH")
                assert {
                    s: bar._replace(trade_count=None) for s, bar in ours.items()
                } == oracle.published_xrpeth(TICKS, bar_type)

    def test_binance_websocket_recordings_give_the_bars_of_the_oracle(self, tmp_path: Path) -> None:
        names = [
            "spot_btcusdt_20240808",
            "spot_btcusdt_20240809",
            "spot_ethusdt_20240808",
            "spot_ethusdt_20240809",
        ]
        files = [TICKS / "binance_ws_20240808" / f"{name}.trades.jsonl.gz" for name in names]
        ticks = [
            oracle.binance_tick(line, "BINANCE") for file in files for line in oracle.binance_lines(file)
        ]
        found = summary(*files, "--feed", "binance", "--venue", "BINANCE", "--bars", "1s,1m", cwd=tmp_path)
        assert found["ticks_accepted"] == len(ticks) == 34_419
        expected = oracle.bars_of(ticks, ("1s", "1m"))
        for symbol in ("BTCUSDT", "ETHUSDT"):
            for bar_type in ("1s", "1m"):
                wanted = {
                    k[2]: bar for k, bar in expected.items() if k[:2] == (f"BINANCE:{symbol}", bar_type)
                }
                assert stored(tmp_path, bar_type, symbol) == wanted


def test_every_tick_is_in_a_bar_dead_lettered_a_duplicate_or_dropped(tmp_path: Path) -> None:
    rows = [f"A,{BASE + i * 10**8},,{100 + i}.25,0.1,{i},buy," for i in range(100)]
    rows[50:50] = [
        rows[10],  # a duplicate
        f"A,{BASE + 5 * 10**9},,1e400,1,900,buy,",
        f"A,{BASE + 5 * 10**9},,NaN,1,901,buy,",
        f"A,{BASE + 5 * 10**9},,1,-1,902,buy,",
        "not,a,tick",
        f"A,{BASE + 4 * 365 * 86400 * 10**9},,1,1,903,buy,",  # dated years ahead
        f"A,{BASE + 9**9},,7e-05,1e-05,904,buy,",  # a valid number
    ]
    rows.append(f"A,{BASE},,1,1,905,buy,")  # late
    found = summary(
        csv_file(tmp_path / "t.csv", rows), "--bars", "1s", "--dead-letters", "dead.jsonl", cwd=tmp_path
    )
    assert found["ticks_read"] == 108
    assert found["duplicates"] == 1
    assert found["dead_lettered"] == 5
    assert found["late"] >= 1
    assert balanced(found)
    letters = [json.loads(line) for line in (tmp_path / "dead.jsonl").read_text().splitlines()]
    assert sorted(letter["reason"] for letter in letters) == [
        "future", "malformed", "negative-size", "not-a-number", "out-of-range"
    ]  # fmt: skip
    bad = {letter["reason"]: letter["source"] for letter in letters}
    assert bad["not-a-number"] == f"{tmp_path / 't.csv'}:54"


@pytest.mark.parametrize(
    ("policy", "dropped", "dead"), [("drop", 1, 0), ("dead-letter", 0, 1), ("revise", 0, 0)]
)
def test_a_late_tick_meets_the_policy(tmp_path: Path, policy: str, dropped: int, dead: int) -> None:
    rows = [f"A,{BASE + i * 10**9},,10,1,{i},buy," for i in range(10)] + [f"A,{BASE},,99,1,late,sell,"]
    found = summary(csv_file(tmp_path / "t.csv", rows), "--bars", "1s", "--late", policy, cwd=tmp_path)
    assert (found["late"], found["dropped"], found["dead_lettered"]) == (1, dropped, dead)
    assert balanced(found)
    volume = stored(tmp_path, "1s", "A")[BASE].volume
    assert volume == (2 if policy == "revise" else 1)


def test_standard_input_gzip_and_json_lines_give_the_same_bars(tmp_path: Path) -> None:
    rows = [f"A,{BASE + i * 10**8},,{10 + i % 7},0.5,{i},buy," for i in range(300)]
    as_json = [
        json.dumps(
            {"symbol": "A", "ts_ns": BASE + i * 10**8, "price": str(10 + i % 7), "size": "0.5", "trade_id": i}
        )
        for i in range(300)
    ]
    text = "\n".join([HEADER, *rows]).encode()
    (tmp_path / "t.csv.gz").write_bytes(gzip.compress(text))
    (tmp_path / "t.jsonl").write_text("\n".join(as_json))
    seen = []
    for number, (source, stdin) in enumerate([("t.csv.gz", None), ("t.jsonl", None), ("-", text)]):
        folder = tmp_path / str(number)
        folder.mkdir()
        feed = ("--feed", "csv") if source == "-" else ()
        name = source if source == "-" else str(tmp_path / source)
        assert summary(name, *feed, "--bars", "1s", cwd=folder, input_bytes=stdin)["ticks_accepted"] == 300
        seen.append(stored(folder, "1s", "A"))
    assert seen[0] == seen[1] == seen[2]
    assert len(seen[0]) == 30


@pytest.mark.parametrize("overflow", ["drop_oldest", "drop_newest", "error"])
def test_a_run_drops_nothing_whatever_the_policy_of_workers_is(tmp_path: Path, overflow: str) -> None:
    rows = [f"A,{BASE + i * 10**9},,1,0.5,{i},buy," for i in range(400)]
    found = summary(
        csv_file(tmp_path / "t.csv", rows),
        "--bars",
        "1s",
        cwd=tmp_path,
        TIDEGATE_OVERFLOW=overflow,
        TIDEGATE_QUEUE_CAPACITY="2",
    )
    assert found["bars"] == {"1s": 400}
    assert len(stored(tmp_path, "1s", "A")) == 400


def test_a_line_that_no_record_can_hold_is_refused_with_file_and_line(tmp_path: Path) -> None:
    rows = [f"A,{BASE + i * 10**9},,10,1,{i},buy," for i in range(4)]
    rows.insert(2, "A," + "9" * 3_000_000)
    path = csv_file(tmp_path / "t.csv", rows)
    done = tidegate("run", path, "--bars", "1s", "--json", cwd=tmp_path)
    assert done.returncode == 1
    assert f"{path}:4" in done.stderr.decode()
    found = json.loads(done.stdout)
    assert (found["ticks_read"], found["refused_lines"], found["bars"]) == (4, 1, {"1s": 4})


def test_bars_of_an_edited_file_are_refused_by_the_store_that_holds_the_old_ones(tmp_path: Path) -> None:
    rows = [f"A,{BASE + i},,{price},1,{i},buy," for i, price in enumerate((1, 999, 1))]
    summary(csv_file(tmp_path / "t.csv", rows), "--bars", "1s", cwd=tmp_path)
    csv_file(tmp_path / "t.csv", rows[::2])
    done = tidegate("run", "t.csv", "--bars", "1s", cwd=tmp_path)
    assert done.returncode == 1
    assert "earlier version of the file" in done.stderr.decode()
    assert stored(tmp_path, "1s", "A")[BASE].high == 999


def test_the_widest_numbers_come_out_as_they_went_in(tmp_path: Path) -> None:
    wide, tiny = "999999999999999999.999999999999999999", "0.000000000000000001"
    rows = [f"A,{BASE},,{wide},{wide},1,buy,", f"A,{BASE + 1},,{tiny},{tiny},2,sell,"]
    summary(csv_file(tmp_path / "t.csv", rows), "--bars", "1s", cwd=tmp_path)
    done = tidegate("bars", "--store", "duckdb:tidegate.duckdb", "--format", "csv", cwd=tmp_path)
    (row,) = csv.DictReader(io.StringIO(done.stdout.decode()))
    with_context = Decimal(wide), Decimal(tiny)
    assert (row["high"], row["low"]) == (wide, tiny)
    assert Decimal(row["volume"]) == Decimal("1000000000000000000.000000000000000000")
    assert row["turnover"] == "999999999999999999999999999999999998.000000000000000000000000000000000002"
    assert with_context[0] > with_context[1]


class TestMistakes:
    def test_no_arguments(self, tmp_path: Path) -> None:
        assert_one_clear_line(tidegate("run", cwd=tmp_path), "SOURCE", status=2)

    def test_a_missing_file(self, tmp_path: Path) -> None:
        assert_one_clear_line(tidegate("run", "nowhere.csv", cwd=tmp_path), "nowhere.csv", "no such file")

    def test_a_bar_type_that_is_none(self, tmp_path: Path) -> None:
        csv_file(tmp_path / "t.csv", [])
        assert_one_clear_line(tidegate("run", "t.csv", "--bars", "1x", cwd=tmp_path), "1x", "--bars")

    def test_an_unreachable_broker(self, tmp_path: Path) -> None:
        csv_file(tmp_path / "t.csv", [])
        done = tidegate("run", "t.csv", "--broker", "127.0.0.1:1", cwd=tmp_path, timeout_s=30)
        assert_one_clear_line(done, "127.0.0.1:1")

    def test_a_store_path_that_cannot_be_written(self, tmp_path: Path) -> None:
        csv_file(tmp_path / "t.csv", [])
        done = tidegate("run", "t.csv", "--store", "duckdb:/nowhere/at/all.duckdb", cwd=tmp_path)
        assert_one_clear_line(done, "/nowhere/at")

    def test_a_store_of_an_unknown_kind(self, tmp_path: Path) -> None:
        csv_file(tmp_path / "t.csv", [])
        assert_one_clear_line(tidegate("run", "t.csv", "--store", "mysql://x", cwd=tmp_path), "mysql")

    def test_a_corrupt_gzip(self, tmp_path: Path) -> None:
        data = gzip.compress(
            "\n".join([HEADER, *(f"A,{BASE + i},,1,1,{i},buy," for i in range(20_000))]).encode()
        )
        (tmp_path / "t.csv.gz").write_bytes(data[: len(data) // 2])
        done = tidegate("run", "t.csv.gz", cwd=tmp_path)
        assert_one_clear_line(done, "t.csv.gz", "gzip")

    def test_a_csv_with_other_columns(self, tmp_path: Path) -> None:
        (tmp_path / "t.csv").write_text("time,price\n1,2\n")
        assert_one_clear_line(tidegate("run", "t.csv", cwd=tmp_path), "t.csv:1", "columns")
