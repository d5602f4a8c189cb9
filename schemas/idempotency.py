"""The key under which writing a bar a second time is writing it once.

market-data-pipeline's own key is `tenant:pipeline:symbol:%Y%m%d%H%M%S`, the time being the window's start. It lacks
the venue, the bar type and the source: the 1s and the 1m bar of one start, and bars of two feeds, have one there.
"""

from __future__ import annotations

from schemas.bar import Bar


def idempotency_key(bar: Bar, *, tenant: str, pipeline: str) -> str:
    """`tenant:pipeline:instrument:type:source:start_ns`, the source as topic[partition].

    All versions of a bar have one key, and no other bar has it: `%` and `:` inside a part are written %25 and %3A.

        default:tidegate:BINANCE%3ABTCUSDT:1m:md.ticks.v1[0]:1700000040000000000
    """
    source = f"{bar.source_topic}[{bar.source_partition}]"
    parts = (tenant, pipeline, bar.instrument, bar.type, source, str(bar.start_ns))
    return ":".join(part.replace("%", "%25").replace(":", "%3A") for part in parts)
