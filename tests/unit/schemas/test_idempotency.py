"""Keys under which writing twice is writing once."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.bar import Bar
from schemas.idempotency import idempotency_key
from support.store_contract import START_NS, a_bar

pytestmark = pytest.mark.covers("idempotency keys")

_PART = st.sampled_from(["", ":", "%", "%3A", "a", "a:b", "1m", "[0]"]) | st.text(
    st.characters(exclude_categories=["Cs"]), max_size=4
)
_IDENTITY = st.tuples(
    _PART, _PART, _PART, st.sampled_from(["1s", "1m", "60s"]), _PART, st.integers(0, 3), st.integers(0, 3)
)
Identity = tuple[str, str, str, str, str, int, int]


def _key(identity: Identity, **version: object) -> str:
    tenant, pipeline, instrument, kind, topic, partition, start_ns = identity
    bar = a_bar(type=kind, start_ns=start_ns, source_topic=topic, source_partition=partition, **version)
    bar.instrument = instrument
    return idempotency_key(bar, tenant=tenant, pipeline=pipeline)


@given(_IDENTITY, _IDENTITY)
def test_two_bars_have_one_key_only_if_they_are_one_bar_of_one_tenant(a: Identity, b: Identity) -> None:
    assert (_key(a) == _key(b)) == (a == b)


@given(_IDENTITY, st.integers(0, 2**40), st.integers(0, 99), st.booleans())
def test_all_versions_of_a_bar_have_one_key(
    identity: Identity, last_offset: int, revision: int, final: bool
) -> None:
    again = _key(identity, last_offset=last_offset, revision=revision, final=final, close="7")
    assert again == _key(identity)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (a_bar(type="1s"), a_bar(type="1m")),
        (a_bar(venue="BINANCE"), a_bar(venue="KRAKEN")),
        (a_bar(source_topic="spot"), a_bar(source_topic="futures")),
        (a_bar(start_ns=START_NS), a_bar(start_ns=START_NS + 1)),
    ],
    ids=["type", "venue", "source", "start"],
)
def test_what_the_pipelines_key_takes_for_one_is_told_apart(one: Bar, other: Bar) -> None:
    assert idempotency_key(one, tenant="t", pipeline="p") != idempotency_key(other, tenant="t", pipeline="p")


def test_a_key_reads_as_documented() -> None:
    key = idempotency_key(a_bar(), tenant="default", pipeline="tidegate")
    assert key == f"default:tidegate:BINANCE%3ABTCUSDT:1m:md.ticks.v1[0]:{START_NS}"
