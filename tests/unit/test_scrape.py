"""From plain numbers to the text that Prometheus reads."""

from __future__ import annotations

from streams import metrics as m
from streams.metrics import Figure
from streams.scrape import Scrape
from streams.tally import Tally
from support.probing import Samples, samples


async def scraped(*figures: Figure) -> Samples:
    text, content_type = await Scrape(lambda: figures)()
    assert content_type.startswith("text/plain")
    return samples(text.decode())


async def test_each_kind_is_written_as_its_own() -> None:
    sizes = Tally(m.BATCH_RECORDS.bounds)
    for size in (1, 10, 11, 60_000):
        sizes.note(size)
    found = await scraped(
        Figure(m.TICKS, 7),
        Figure(m.SCALE, 0.5, ("ticks", "0")),
        Figure(m.SCALE, 1, ("ticks", "1")),
        Figure(m.BATCH_RECORDS, sizes, ("bars",)),
    )
    assert found["tidegate_ticks_total",] == 7
    assert found["tidegate_partition_scale", "ticks", "0"] == 0.5
    assert found["tidegate_partition_scale", "ticks", "1"] == 1
    assert found["tidegate_batch_records_bucket", "bars", "1.0"] == 1
    assert found["tidegate_batch_records_bucket", "bars", "10.0"] == 2, "a bound is part of its bucket"
    assert found["tidegate_batch_records_bucket", "bars", "100.0"] == 3
    assert found["tidegate_batch_records_bucket", "bars", "+Inf"] == 4
    assert found["tidegate_batch_records_count", "bars"] == 4
    assert found["tidegate_batch_records_sum", "bars"] == 60_022


async def test_the_process_is_measured_with_every_scrape() -> None:
    found = await scraped()
    assert {name for name, *_ in found} == {metric.name for metric in m.PROCESS}
    assert found["process_resident_memory_bytes",] > 1 << 20


async def test_labels_are_whatever_an_instrument_is_called() -> None:
    found = await scraped(Figure(m.STORE_DROPPED, 2, ('A"\\B\n', "drop_oldest")))
    assert found["tidegate_store_bars_dropped_total", 'A"\\B\n', "drop_oldest"] == 2


async def test_who_asks_for_openmetrics_gets_it() -> None:
    text, content_type = await Scrape(lambda: [Figure(m.TICKS, 1)])(
        "application/openmetrics-text; version=1.0.0"
    )
    assert content_type.startswith("application/openmetrics-text")
    assert text.endswith(b"# EOF\n")
