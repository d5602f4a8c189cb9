from __future__ import annotations

from typing import Any
from unittest.mock import Mock

import pytest
from faust.types import TP

from agents.app import bars_role
from streams.settings import load_settings


@pytest.mark.parametrize(("scale", "published"), [(1.0, True), (0.9, True), (0.02, True), (0.0, False)])
async def test_quiet_instruments_are_published_unless_their_partition_is_paused(
    scale: float, published: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    role = bars_role(load_settings(None))
    consumer: Any = Mock(caught_up=lambda tp, offset: True)
    monkeypatch.setattr(type(role.app), "consumer", consumer)
    role.valve.set(0, scale)
    assert role.pipeline._caught_up(TP("md.ticks.v1", 0), 7) is published
    await role.pipeline.release()
