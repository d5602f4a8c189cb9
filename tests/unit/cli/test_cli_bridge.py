"""`tidegate bridge`, as far as it goes without servers."""

from __future__ import annotations

import sys

import pytest

from support.inprocess import Cli

pytestmark = pytest.mark.covers("pulse bridge")


def test_pulse_that_is_switched_off_is_no_failure(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PULSE_ENABLED", "false")
    done = cli("bridge", "pulse")
    assert (done.status, done.out) == (0, "")
    assert "nothing is bridged" in done.err


@pytest.mark.parametrize(
    ("package", "extra"),
    [("market_data_core.events", "tidegate[redis]"), ("redis.asyncio", "tidegate[redis]")],
)
@pytest.mark.parametrize("command", [("pulse",), ("release", "bars-coord")])
def test_a_package_that_is_missing_is_named_with_its_extra(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, package: str, extra: str, command: tuple[str, ...]
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    done = cli("bridge", *command)
    assert done.status == 1
    assert package in done.err
    assert extra in done.err


@pytest.mark.parametrize("value", ["0s", "soon", "-1s"])
def test_a_hold_that_is_no_duration_is_a_wrong_command_line(cli: Cli, value: str) -> None:
    assert cli("bridge", "pulse", "--hold", value).status == 2


@pytest.mark.parametrize("value", ["a", "1,", "-1", "1;2"])
def test_partitions_that_are_no_numbers_are_a_wrong_command_line(cli: Cli, value: str) -> None:
    done = cli("bridge", "pulse", "--partitions", value)
    assert done.status == 2
    assert "0,2" in done.err


@pytest.mark.parametrize("command", [(), ("pulse",), ("release",)])
def test_help_has_examples(cli: Cli, command: tuple[str, ...]) -> None:
    done = cli("bridge", *command, "--help")
    assert done.status == 0
    assert "Examples:" in done.out
