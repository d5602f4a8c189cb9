"""Programs that follow feedback and rates, on Apache Kafka: each gets everything, whatever others do."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest
from confluent_kafka import Producer

from schemas.errors import BrokerError, ConfigError
from schemas.feedback import Feedback, Level, encode_feedback
from schemas.rate import RateAdjustment, encode_rate
from streams.flow.subscribe import Subscription, feedback, rates
from streams.settings import load_settings
from support.events import DEADLINE_S, eventually
from support.following import Bench, seen
from support.kafka import TestTopics
from support.workers import environment

pytestmark = pytest.mark.kafka


@pytest.fixture
def bench(topics: TestTopics) -> Iterator[Bench]:
    settings = load_settings(None, broker=topics.bootstrap, topic_prefix=topics.prefix)
    producer = Producer({"bootstrap.servers": topics.bootstrap, "linger.ms": 1})
    yield Bench(topics, settings, producer, topics("feedback.v1"), topics("rate.v1"))
    assert producer.flush(10) == 0


def test_it_is_imported_without_faust() -> None:
    code = "import sys, streams.flow.subscribe; print('faust' in sys.modules, 'mode' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, env=environment(), check=True, text=True
    )
    assert done.stdout.split() == ["False", "False"]


@pytest.mark.covers("fan-out")
async def test_without_a_group_all_get_what_comes_from_now_on_or_from_the_beginning(bench: Bench) -> None:
    bench.say(3)
    async with (
        seen(bench.follow()) as one,
        seen(bench.follow()) as two,
        seen(bench.follow(from_beginning=True)) as all_of_it,
    ):
        bench.say(5)
        for subscriber, expected in ((one, range(3, 8)), (two, range(3, 8)), (all_of_it, range(8))):
            await eventually(lambda s=subscriber, e=expected: s.numbers == list(e), f"{expected}")


async def test_rates_come_in_the_order_of_their_partition(bench: Bench) -> None:
    decided = [
        RateAdjustment(provider="p", scale=scale, reason=Level.hard, ts=1.0, partition=partition, since=0.5)
        for partition in range(4)
        for scale in (0.0, 0.25, 0.5, 1.0)
    ]
    got = []
    for adjustment in decided:
        bench.send(bench.rate, encode_rate(adjustment), adjustment.partition or 0)

    async with asyncio.timeout(DEADLINE_S), rates(bench.settings, from_beginning=True) as events:
        async for event in events:
            got.append(event)
            if len(got) == len(decided):
                break
    assert sorted(got, key=lambda event: event.partition) == decided


async def test_one_partition_only(bench: Bench) -> None:
    for partition in (0, 2, 1, 2):
        bench.say(1, partition)
    got = []
    async with (
        asyncio.timeout(DEADLINE_S),
        feedback(bench.settings, from_beginning=True, partitions=[2]) as events,
    ):
        async for event in events:
            got.append((event.partition, event.queue_size))
            if len(got) == 2:
                break
    assert got == [(2, 1), (2, 3)]


@pytest.mark.covers("fan-out")
async def test_one_that_raises_and_one_that_stalls_keep_nothing_from_others(bench: Bench) -> None:
    stalls, raised = asyncio.Event(), []

    async def stalling() -> None:
        async for _ in bench.follow("stalls", from_beginning=True):
            stalls.set()
            await asyncio.Event().wait()

    async def raising() -> None:
        async for event in bench.follow("raises", from_beginning=True):
            raised.append(event.queue_size)
            raise ValueError("the subscriber's own")

    async with seen(bench.follow("fine")) as fine:
        tasks = [asyncio.create_task(stalling()), asyncio.create_task(raising())]
        bench.say(1)
        await asyncio.wait_for(stalls.wait(), DEADLINE_S)
        with pytest.raises(ValueError, match="own"):
            await asyncio.wait_for(tasks[1], DEADLINE_S)
        for count in range(10):
            bench.say(10)
            await eventually(lambda n=count: len(fine.numbers) == 10 * n + 11, "it has all of them")
        assert fine.numbers == list(range(101))
        assert not tasks[0].done()
        tasks[0].cancel()
        await asyncio.wait(tasks)

    # What the others had in hand was not done, so it comes again.
    for group in ("stalls", "raises"):
        async with seen(bench.follow(group)) as again:
            await eventually(lambda s=again: s.numbers == list(range(101)), f"{group} gets all of it")


async def test_a_group_goes_on_after_what_it_has_done_and_a_new_one_loses_nothing(bench: Bench) -> None:
    bench.say(2)
    async with seen(bench.follow("new")):
        pass
    bench.say(2)  # nobody listens; the group has begun all the same
    got = []
    async with asyncio.timeout(DEADLINE_S), bench.follow("new") as events:
        async for event in events:
            got.append(event.queue_size)
            if len(got) == 2:
                break
    assert got == [2, 3]
    bench.say(1)
    async with seen(bench.follow("new")) as third:
        # The one on which the loop was left counts as not done.
        await eventually(lambda: third.numbers == [3, 4], "what is not done comes again, and no more")


async def test_subscribers_of_one_group_share_the_partitions_and_take_over(bench: Bench) -> None:
    async with seen(bench.follow("shared")) as one:
        async with seen(bench.follow("shared")) as two:
            shared = bench.group("shared")
            await eventually(lambda: shared.owned_by(2, bench.feedback), "they share the partitions")
            for partition in range(4):
                bench.say(5, partition)
            await eventually(lambda: len({*one.numbers, *two.numbers}) == 20, "both together have all")
            assert one.numbers
            assert two.numbers
        before = len(one.numbers)
        for partition in range(4):
            bench.say(5, partition)
        await eventually(lambda: {*range(20, 40)} <= {*one.numbers[before:]}, "the other one has taken over")
        await one.end()
    assert bench.group("shared").committed(bench.feedback) == [10, 10, 10, 10]


async def test_garbage_is_skipped_counted_and_told_with_its_place(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    garbage = [None, b"", b"\xff\xfe", b"[]", b'{"level": "ok"}', b'{"level": "ok"' * 1000]
    with caplog.at_level(logging.WARNING, "streams.flow.subscribe"):
        async with seen(bench.follow("garbage")) as one:
            for value in garbage:
                bench.send(bench.feedback, value)
            event = Feedback(
                coordinator_id="x", queue_size=9, capacity=1, level=Level.ok, ts=1.0, partition=3, epoch=1
            )
            bench.send(bench.feedback, encode_feedback(event), 0)
            bench.say(1)
            await eventually(lambda: one.numbers == [0], "what follows is given")
            assert one.events.skipped == len(garbage) + 1
    assert f"{bench.feedback}[0]@0 is skipped (1 so far): not a feedback message" in caplog.text
    assert bench.group("garbage").committed(bench.feedback)[0] == len(garbage) + 2, "what was skipped is done"


async def test_leaving_the_loop_closes_the_consumer_however_it_is_left(bench: Bench) -> None:
    bench.say(1)

    async def by_break() -> None:
        async for _ in bench.follow("left", from_beginning=True):
            break

    async def by_error() -> None:
        async for _ in bench.follow("left", from_beginning=True):
            raise ValueError

    async def by_aclose() -> None:
        events = bench.follow("left", from_beginning=True)
        assert (await anext(events)).queue_size == 0
        await events.aclose()
        await events.aclose()
        with pytest.raises(StopAsyncIteration):
            await anext(events)

    async def by_cancel() -> None:
        async for _ in bench.follow("left", from_beginning=True):
            await asyncio.sleep(DEADLINE_S)

    async def by_cancel_while_it_waits() -> None:
        async for _ in bench.follow("left"):
            raise AssertionError("nothing was said")

    mine = asyncio.all_tasks()
    for way in (by_break, by_error, by_aclose, by_cancel):
        task = asyncio.create_task(way())
        if way is by_cancel:
            await eventually(lambda: bench.members("left") == 1, "it is in the group")
            task.cancel()
        await asyncio.wait([task], timeout=DEADLINE_S)
        assert task.done(), way
        task.exception() if not task.cancelled() else None
        # Long before the session of one that has not left would end.
        await eventually(lambda: bench.members("left") == 0, f"it has left {way.__name__}", 8)
        await eventually(lambda: asyncio.all_tasks() <= mine, f"nothing goes on {way.__name__}", 8)
    async with asyncio.timeout(DEADLINE_S), bench.follow("left") as events:
        await anext(events)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.2):  # the second one is asked for, so the first one is done
                await anext(events)
    task = asyncio.create_task(by_cancel_while_it_waits())
    await eventually(lambda: bench.members("left") == 1, "it is in the group")
    task.cancel()
    await asyncio.wait([task], timeout=DEADLINE_S)
    assert task.cancelled()
    assert bench.members("left") == 0
    assert bench.group("left").committed(bench.feedback)[0] == 1


@pytest.mark.parametrize("follow", [feedback, rates])
async def test_what_is_not_there_at_the_start_is_a_clear_error(
    topics: TestTopics, follow: Callable[..., Subscription[Feedback]]
) -> None:
    settings = load_settings(None, broker=topics.bootstrap, topic_prefix=topics.prefix)
    with pytest.raises(BrokerError, match=rf"lacks topic {topics.prefix}(feedback|rate).v1") as missing:
        await anext(follow(settings))
    assert "tidegate topics apply" in missing.value.hint

    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    with pytest.raises(BrokerError, match="did not answer"):
        await anext(follow(f"127.0.0.1:{port}"))

    topics("feedback.v1")
    topics("rate.v1")
    with pytest.raises(BrokerError, match="has no partition 4") as beyond:
        await anext(follow(settings, partitions=[0, 4]))
    assert beyond.value.hint == "it has 4, beginning with 0"


def test_what_cannot_be_meant_is_refused_at_once() -> None:
    with pytest.raises(ConfigError, match="not both"):
        feedback("127.0.0.1:1", group="mine", partitions=[1])
    with pytest.raises(ConfigError, match="tidegate-bars is the group of the workers"):
        rates("127.0.0.1:1", group="tidegate-bars")
