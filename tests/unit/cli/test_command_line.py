"""What all commands have in common."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import click
import pytest

from streams.cli import COMMANDS
from support.inprocess import Cli
from support.workers import environment

SLOW = ("faust", "aiokafka", "confluent_kafka", "duckdb", "asyncpg", "pyarrow", "numpy")


def every_command() -> list[str]:
    """The command lines that name a command, or one of its own."""
    names = []
    for name in COMMANDS:
        command = importlib.import_module(f"streams.cli.{name}").command
        own = command.commands if isinstance(command, click.Group) else ()
        names += [name, *(f"{name} {one}" for one in own)]
    return names


def loaded(tmp_path: Path, *command_lines: str, of: tuple[str, ...]) -> tuple[str, list[str]]:
    """Runs command lines one after the other in one process; gives what they printed, and what they loaded."""
    code = (
        "import sys\n"
        "from agents.__main__ import main\n"
        f"for line in {command_lines}:\n"
        "    sys.argv = ['tidegate', *line.split()]\n"
        "    try: main()\n"
        "    except SystemExit: pass\n"
        f"print(*(name for name in {of} if name in sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, cwd=tmp_path, env=environment(), check=True
    )
    *printed, names = done.stdout.decode().splitlines()
    return "\n".join(printed), names.split()


def test_help_of_the_whole_loads_nothing_that_is_slow_to_load(tmp_path: Path) -> None:
    printed, names = loaded(tmp_path, "--help", of=(*SLOW, "rich", "asyncio"))

    assert names == []
    assert all(name in printed for name in COMMANDS)


def test_help_of_a_command_does_not_wait_for_faust_kafka_and_the_databases(tmp_path: Path) -> None:
    lines = [f"{command} --help" for command in every_command()]

    printed, names = loaded(tmp_path, *lines, of=SLOW)

    assert names == []
    assert printed.count("Usage: tidegate ") == len(lines)


@pytest.mark.parametrize(
    "arguments",
    [
        *("run nowhere.csv", "run empty.csv --bars 1x", "schema tick", "worker --config nowhere.toml"),
        *("replay nowhere.csv --topic t", "feed --topic t --venue A:B", "topics show", "dlq show 17"),
    ],
)
def test_what_needs_no_agents_does_not_wait_for_faust_and_the_databases(
    tmp_path: Path, arguments: str
) -> None:
    (tmp_path / "empty.csv").touch()

    assert loaded(tmp_path, arguments, of=SLOW)[1] == []


@pytest.mark.parametrize(
    "command",
    [
        *("bars", "replay", "feed", "schema", "topics", "topics plan", "topics apply", "topics show"),
        *("dlq", "dlq list", "dlq show", "dlq replay"),
        *("state", "state show", "state reset", "status", "tail"),
    ],
)
def test_help_has_an_example_and_says_what_the_options_are(cli: Cli, command: str) -> None:
    done = cli(*command.split(), "--help")

    assert done.status == 0
    assert f"  tidegate {command}" in done.out
    assert "--help" in done.out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("nonsense", "nonsense"),
        ("topics nonsense", "nonsense"),
        ("schema nonsense", "'tick', 'bar', 'feedback', 'rate', 'dead-letter'"),
        ("bars --from yesterday", "'yesterday' is no date or time"),
        ("bars --to 1723161255", "is it in ns?"),
        ("bars --type 1x", "'1x'"),
        ("bars --format xml", "xml"),
        ("bars --last 0", "--last"),
        ("bars --from 2024-08-09 --to 2024-08-08", "--from must be before --to"),
        ("replay", "SOURCE"),
        ("replay trades.csv", "--topic"),
        ("replay trades.csv --topic t --speed fast", "10x"),
        ("replay trades.csv --topic t --speed 0x", "10x"),
        ("replay trades.csv --topic t --feed nonsense", "nonsense"),
        ("feed", "--topic"),
        ("feed --topic t --rate 0", "500/s"),
        ("feed --topic t --rate many", "500/s"),
        ("feed --topic t --instruments 0", "--instruments"),
        ("feed --topic t --disorder 2s", "more than a second"),
        ("feed --topic t --duplicates 1", "--duplicates"),
        ("dlq list --reason late,future", "'late,future' is not one of 'malformed'"),
        ("dlq list --since yesterday", "'yesterday' is no date or time"),
        ("dlq list --since 2024-08-09 --until 2024-08-08", "--since must be before --until"),
        ("dlq list --limit 0", "--limit"),
        ("state reset", "--topic"),
        ("tail", "{feedback|rate}"),
        ("tail bars", "'bars' is not one of 'feedback', 'rate'"),
        ("tail rate --count 0", "--count"),
        ("tail rate --seconds 0", "--seconds"),
        ("tail rate --partition -1", "--partition"),
        ("dlq show", "WHERE"),
        ("dlq show 17", "'17' is no place: write md.ticks.dlq.v1[0]@17"),
        (
            "dlq show md.ticks.v1[0]@17",
            "md.ticks.v1 is not the topic of dead letters, which is md.ticks.dlq.v1",
        ),
        ("dlq show md.ticks.v1[0]@17#2", "'md.ticks.v1[0]@17#2' is where a record came from"),
        ("dlq show 0@17 --raw --json", "--raw and --json"),
        ("dlq replay", "--all"),
        ("dlq replay 0@17 --all", "choose one"),
        ("dlq replay --all --reason late", "choose one"),
        ("dlq replay 0@17 1@x", "'1@x' is no place"),
    ],
)
def test_a_wrong_command_line_exits_with_2_and_says_what_is_wrong(
    cli: Cli, arguments: str, said: str
) -> None:
    done = cli(*arguments.split())

    assert (done.status, done.out) == (2, "")
    assert said in done.err
    assert "Traceback" not in done.err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("bars --store redis://x", "no store is known"),
        ("bars --store duckdb:nowhere.duckdb", "no such store"),
        ("bars --config nowhere.toml", "nowhere.toml: no such file"),
        ("replay nowhere.csv --topic t", "nowhere.csv: no such file"),
        ("replay . --topic t", "it is a directory"),
        ("topics plan --file nowhere.toml", "nowhere.toml: No such file"),
        ("topics show --file nowhere.toml", "nowhere.toml: No such file"),
        ("feed --topic t --venue A:B", "venue"),
        ("dlq list --config nowhere.toml", "nowhere.toml: no such file"),
        ("tail rate --config nowhere.toml", "nowhere.toml: no such file"),
        ("status --config nowhere.toml", "nowhere.toml: no such file"),
    ],
)
def test_a_mistake_exits_with_1_in_one_line_and_a_hint_at_most(cli: Cli, arguments: str, said: str) -> None:
    done = cli(*arguments.split())

    first, *rest = done.err.splitlines()
    assert (done.status, done.out) == (1, "")
    assert first.startswith("tidegate: ")
    assert said in first
    assert all(line.startswith("  hint: ") for line in rest)
    assert len(rest) <= 1
