from __future__ import annotations

from pathlib import Path

from streams.topicplan import parse_plan
from support.inprocess import Cli


def test_show_prints_the_plan_that_comes_with_tidegate_to_start_from(cli: Cli, tmp_path: Path) -> None:
    shown = cli("topics", "show").out
    (tmp_path / "mine.toml").write_text(shown)

    assert cli("topics", "show", "--file", "mine.toml").out == shown
    assert parse_plan(shown, "md.")[0].name == "md.ticks.v1"


def test_show_refuses_a_file_that_is_no_plan(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text("[topics.ticks.v1]\npartitions = 4\n")

    done = cli("topics", "show", "--file", "mine.toml")

    assert (done.status, done.out) == (1, "")
    assert 'quote its name: [topics."ticks.v1"]' in done.err
