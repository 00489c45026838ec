"""The worker's consumers wait for wake-ups and rarely poll; a lost wake-up only causes a delay."""

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import dramatiq
import dramatiq.worker
import pytest
from dramatiq.brokers.redis import RedisBroker
from redis import Redis

from segmentql.adapters import broker as module
from segmentql.adapters.broker import CHANNEL, WaitingBroker, WorkQueue
from segmentql.local import LocalServers
from segmentql.settings import Settings
from tests.conftest import Sql, suspended, until

QUEUE = "waiting"
NEVER = 600.0
"""An interval in seconds that is longer than any test."""


@pytest.fixture(autouse=True)
def never_polling(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make polling too rare to matter, unless a test shortens the interval."""
    monkeypatch.setattr(module, "SLOW_POLL_SECONDS", NEVER)
    monkeypatch.setattr(module, "RESUBSCRIBE_SECONDS", 0.1)
    monkeypatch.setattr(dramatiq.worker, "CONSUMER_RESTART_DELAY_SECS", 0.1)


@dataclass
class RunningWorker:
    """A worker in this process whose only actor records the arguments of its messages."""

    broker: WaitingBroker
    worker: dramatiq.worker.Worker
    done: list[int] = field(default_factory=list)
    fetches: int = 0

    async def is_subscribed(self) -> bool:
        return self.broker.wakeups.poll_seconds != module.FALLBACK_POLL_SECONDS

    async def has_done(self, number: int) -> bool:
        return number in self.done

    async def has_fetched_delayed(self) -> bool:
        return self.worker.consumers[f"{QUEUE}.DQ"].delay_queue.qsize() > 0

    def threads(self) -> list[threading.Thread]:
        return [*self.worker.consumers.values(), *self.worker.workers]


@asynccontextmanager
async def running_worker(settings: Settings, *, threads: int = 2) -> AsyncIterator[RunningWorker]:
    broker = WaitingBroker(settings.redis_url, [])
    worker = dramatiq.Worker(broker, worker_timeout=100, worker_threads=threads)
    running = RunningWorker(broker, worker)
    fetch = broker.do_fetch

    def counting_fetch(*args: Any) -> Any:
        running.fetches += 1
        return fetch(*args)

    vars(broker)["do_fetch"] = counting_fetch
    dramatiq.actor(actor_name="note", queue_name=QUEUE, broker=broker)(running.done.append)
    worker.start()
    try:
        await until(running.is_subscribed)
        yield running
    finally:
        await asyncio.to_thread(worker.stop)
        broker.client.close()


def message(number: int) -> dramatiq.Message[Any]:
    return dramatiq.Message(
        queue_name=QUEUE, actor_name="note", args=(number,), kwargs={}, options={}
    )


@pytest.fixture
def send(settings: Settings, sql: Sql) -> Iterator[Callable[..., None]]:
    """Return a function that sends a message as another process would."""
    publisher = WaitingBroker(settings.redis_url, [])

    def send(number: int, *, delay_seconds: float = 0) -> None:
        publisher.enqueue(message(number), delay=round(delay_seconds * 1000) or None)

    yield send
    publisher.client.close()


async def test_message_wakes_the_consumer(settings: Settings, send: Callable[..., None]) -> None:
    async with running_worker(settings) as running:
        for number in range(5):
            send(number)
            await until(partial(running.has_done, number))


async def test_idle_worker_does_not_poll(settings: Settings, send: Callable[..., None]) -> None:
    async with running_worker(settings) as running:
        send(1)
        await until(lambda: running.has_done(1))
        await asyncio.sleep(0.2)  # the consumers poll once more after the message
        before = running.fetches
        await asyncio.sleep(0.5)  # Dramatiq's consumers would fetch ten times
        assert running.fetches == before


async def test_message_without_a_wake_up_is_found_by_fallback_polling(
    settings: Settings, sql: Sql, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SLOW_POLL_SECONDS", 0.2)
    silent = RedisBroker(url=settings.redis_url, middleware=[])  # type: ignore[no-untyped-call]
    async with running_worker(settings) as running:
        silent.enqueue(message(1))
        await until(lambda: running.has_done(1))
    silent.client.close()


async def test_delayed_messages_run_in_the_order_of_their_due_times(
    settings: Settings, send: Callable[..., None]
) -> None:
    async with running_worker(settings) as running:
        sent = time.monotonic()
        send(2, delay_seconds=0.6)
        send(1, delay_seconds=0.2)
        send(3, delay_seconds=0.6)
        await until(lambda: running.has_done(1))
        assert time.monotonic() - sent >= 0.2
        await until(lambda: running.has_done(2))
        await until(lambda: running.has_done(3))
        assert time.monotonic() - sent >= 0.6
        assert running.done[0] == 1


async def test_more_messages_than_are_prefetched_all_run(
    settings: Settings, send: Callable[..., None]
) -> None:
    for number in range(50):
        send(number)
    async with running_worker(settings, threads=1) as running:
        assert running.worker.queue_prefetch < 50
        await until(lambda: running.has_done(49))
    assert sorted(running.done) == list(range(50))


async def test_requeued_message_wakes_consumers(settings: Settings, sql: Sql) -> None:
    broker = WaitingBroker(settings.redis_url, [])
    with Redis.from_url(settings.redis_url) as redis, redis.pubsub() as channel:
        channel.subscribe(CHANNEL)
        assert channel.get_message(timeout=NEVER)["type"] == "subscribe"
        broker.enqueue(message(1))
        assert channel.get_message(timeout=10)["data"] == QUEUE.encode()
        consumer = broker.consume(QUEUE)
        message_taken = next(consumer)
        assert message_taken is not None
        consumer.requeue([message_taken])
        assert channel.get_message(timeout=10)["data"] == QUEUE.encode()
        assert channel.get_message(timeout=0) is None
    broker.client.close()


async def test_messages_wake_the_consumer_after_a_redis_restart(
    servers: LocalServers, settings: Settings, send: Callable[..., None]
) -> None:
    async with running_worker(settings) as running:
        await servers.redis.stop()
        try:
            await until(lambda: _is_not(running.is_subscribed))
        finally:
            await servers.redis.start()
        await until(running.is_subscribed)
        send(1)
        await until(lambda: running.has_done(1))


@pytest.mark.slow
async def test_delayed_message_survives_a_redis_restart(
    servers: LocalServers, settings: Settings, send: Callable[..., None]
) -> None:
    async with running_worker(settings) as running:
        send(1, delay_seconds=1)
        await until(running.has_fetched_delayed)
        await servers.redis.stop()
        await servers.redis.start()
        await until(lambda: running.has_done(1))


async def test_unresponsive_subscription_is_renewed(
    servers: LocalServers,
    settings: Settings,
    send: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "REDIS_TIMEOUT_SECONDS", 0.3)
    monkeypatch.setattr(module, "PING_SECONDS", 0.3)
    async with running_worker(settings) as running:
        with suspended(servers.redis):
            await until(lambda: _is_not(running.is_subscribed))
        await until(running.is_subscribed)
        send(1)
        await until(lambda: running.has_done(1))


@pytest.mark.slow
async def test_delayed_messages_due_while_redis_hangs_run_later(
    servers: LocalServers,
    settings: Settings,
    send: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # It takes the delay and then two Redis timeouts: of the message and of its return.
    monkeypatch.setattr(module, "REDIS_TIMEOUT_SECONDS", 0.3)
    async with running_worker(settings) as running:
        send(1, delay_seconds=0.5)
        send(2, delay_seconds=2)
        await until(running.has_fetched_delayed)
        with suspended(servers.redis):
            await asyncio.sleep(1.5)
        await until(lambda: running.has_done(1))
        await until(lambda: running.has_done(2))
        assert all(thread.is_alive() for thread in running.threads())


async def test_idle_worker_stops_at_once(
    servers: LocalServers, settings: Settings, send: Callable[..., None]
) -> None:
    async with running_worker(settings) as running:
        await asyncio.sleep(0.2)  # every thread waits now
        started = time.monotonic()
        await asyncio.to_thread(running.worker.stop, 60_000)
        assert time.monotonic() - started < 10
        assert not any(thread.is_alive() for thread in running.threads())


def test_work_queue_waits_for_an_item_beyond_the_timeout() -> None:
    queue = WorkQueue()
    got: list[object] = []
    thread = threading.Thread(target=lambda: got.append(queue.get(timeout=0.01)), daemon=True)
    thread.start()
    thread.join(0.1)
    assert got == []
    queue.put(1)
    thread.join(10)
    assert got == [1]


async def _is_not(happened: Callable[[], Any]) -> bool:
    return not await happened()
