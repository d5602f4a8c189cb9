"""A bar that was dead-lettered, replayed and refused again keeps its origin."""

from __future__ import annotations

from pathlib import Path

import pytest

from schemas.dead_letter import Reason
from schemas.replay import REPLAY_HEADER, Replay, encode_replay
from streams.store.base import open_store
from support.writing import BARS, Letter, desk


@pytest.mark.parametrize(
    ("header", "origin", "replayed"),
    [
        (encode_replay(Replay("bars", 0, 5)), "bars[0]@5#0", "md.bars.v1[0]@9"),
        (b"nonsense", "md.bars.v1[0]@9#0", None),
    ],
)
async def test_the_dead_letter_of_a_replayed_bar_tells_of_the_first(
    tmp_path: Path, header: bytes, origin: str, replayed: str | None
) -> None:
    async with desk(open_store(f"duckdb:{tmp_path / 'b.duckdb'}")) as at:
        record = Letter(b"no bar", 9, headers=[("trace", b"1"), (REPLAY_HEADER, header)])
        await at.writer.put(at.ledger.deliver(BARS, [record]))
        await at.drained()
        ((value, letter),) = at.producer.sent

    assert (value, letter.reason) == (b"no bar", Reason.malformed)
    assert (letter.origin, letter.replayed) == (origin, replayed)
