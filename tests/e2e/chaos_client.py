"""A client of the chaos test that compares each response to random operations with its model."""

import asyncio
import random
import time
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import httpx

from bench.data import Sizes, slug
from segmentql.settings import raw_value
from tests.conftest import until
from tests.e2e.chaos_model import NOTHING, PAGE_ENTRIES, Change, ModelUser, Outcome

SEED = int(raw_value("test_chaos_seed") or random.SystemRandom().randrange(10**6))

SIZES = Sizes(users=100_000, memberships=300_000, segments=20)
CONTESTED = 3
"""Users that all clients change concurrently; only the consistency of their history is checked."""
HOT = [slug(number) for number in range(1, 7)]
FIRST = SIZES.users + 1

ANSWER_SECONDS = 60
"""The maximum response time: a wait for a connection, a statement, and one retry."""
RECOVERY_SECONDS = 90

USER = f"""
id
memberships {{ joinedAt updatedAt expiresAt segment {{ slug }} }}
history(first: {PAGE_ENTRIES}) {{ nodes {{ at operation cause segment {{ slug }} }} }}
"""
READ = f"query($id: ID!) {{ user(id: $id) {{ {USER} }} }}"
CHANGE = f"""
mutation($input: UpdateUserSegmentsInput!) {{
  updateUserSegments(input: $input) {{
    user {{ {USER} }} segmentsAdded segmentsRemoved errors {{ code message }}
  }}
}}
"""
SLUGS = "query($id: ID!) { user(id: $id) { segments { slug } } }"
PAST = "query($id: ID!, $at: DateTime!) { user(id: $id) { segments(asOf: $at) { slug } } }"


@dataclass
class OutcomeCounts:
    """Counts of outcomes for the test's output."""

    done: int = 0
    done_but_unread: int = 0
    """Committed, but the database was unavailable when the response was read."""
    not_done: int = 0
    unknown: int = 0
    reads: int = 0
    slowest_seconds: float = 0
    record_seconds: float = 0
    """The longest time from the recovery of all processes until every due leave was recorded."""
    kills: dict[str, int] = field(default_factory=dict)

    def count(self, outcome: Outcome) -> None:
        name = outcome.name.lower()
        setattr(self, name, getattr(self, name) + 1)


class Client:
    """Changes and reads its own users one by one, and some users that all clients change."""

    def __init__(
        self, http: httpx.AsyncClient, users: list[ModelUser], counts: OutcomeCounts
    ) -> None:
        self._http = http
        self._users = users
        self._counts = counts
        self._random = random.Random(f"{SEED} {users[0].number}")  # noqa: S311

    async def run(self, stop: asyncio.Event) -> None:
        while not stop.is_set():
            chance = self._random.random()
            person = self._random.choice(self._users)
            if person.unverified:
                await self._verify(person)
            elif chance < 0.1:
                await self._change_contested()
            elif chance < 0.25:
                await self._read_seeded_user()
            elif chance < 0.4:
                await self._read(person)
            else:
                await self._change(person)

    async def settle(self) -> None:
        """Read every result that is not verified yet, and what has expired since."""
        for person in self._users:
            await until(partial(self._verify, person), seconds=RECOVERY_SECONDS)

    async def assert_past_agrees(self) -> None:
        """Query past moments: those of entries, and one between two entries."""
        for person in self._users:
            moments = [entry.at for entry in person.entries]
            chosen = self._random.sample(moments, min(5, len(moments)))
            if len(moments) > 1:
                chosen.append(min(moments) + (max(moments) - min(moments)) / 2)
            for at in chosen:
                _, user = await self._request(
                    PAST, "user", id=str(person.number), at=at.isoformat()
                )
                slugs_then = {segment["slug"] for segment in user["segments"]}
                assert slugs_then == person.segments_at(at), (person.number, at)

    async def _change(self, person: ModelUser) -> None:
        change = self._random_change()
        person.unverified = (change, Outcome.UNKNOWN)
        outcome, payload = await self._send(person.number, change)
        self._counts.count(outcome)
        person.unverified = (change, outcome)
        if payload and payload["user"]:
            counts = (payload["segmentsAdded"], payload["segmentsRemoved"])
            person.verify(payload["user"], counts)

    async def _verify(self, person: ModelUser) -> bool:
        # A change without slugs waits for the lock that an abandoned change may still hold, so that
        # the next read sees the final result.
        _, payload = await self._send(person.number, NOTHING)
        return bool(payload and payload["user"]) and person.verify(payload["user"])

    async def _read(self, person: ModelUser) -> None:
        _, user = await self._request(READ, "user", id=str(person.number))
        if user:
            person.verify(user)
            self._counts.reads += 1

    async def _read_seeded_user(self) -> None:
        number = self._random.randint(1, SIZES.users)
        _, user = await self._request(SLUGS, "user", id=str(number))
        if user:
            expected = sorted(map(slug, SIZES.segment_ids(number)))
            assert [segment["slug"] for segment in user["segments"]] == expected
            self._counts.reads += 1

    async def _change_contested(self) -> None:
        await self._send(FIRST + self._random.randrange(CONTESTED), self._random_change())

    def _random_change(self) -> Change:
        chosen = self._random.sample(HOT, self._random.randint(1, 4))
        added = self._random.randint(0, len(chosen))
        return Change(
            add=chosen[:added],
            remove=chosen[added:],
            ttl_seconds=self._random.choice((None, None, None, 1, 1, 2, 4, 3600)),
            on_existing=self._random.choice(("EXTEND", "EXTEND", "REPLACE", "KEEP")),
        )

    async def _send(self, number: int, change: Change) -> tuple[Outcome, Any]:
        change_input: dict[str, Any] = {
            "userId": str(number),
            "add": change.add,
            "remove": change.remove,
            "onExisting": change.on_existing,
        }
        if change.ttl_seconds is not None:
            change_input["ttlSeconds"] = change.ttl_seconds
        outcome, payload = await self._request(CHANGE, "updateUserSegments", input=change_input)
        assert not payload or payload["errors"] == [], payload
        return outcome, payload

    async def _request(self, query: str, name: str, **variables: Any) -> tuple[Outcome, Any]:
        """Return the outcome that the client may assume, and the field's data if there are any."""
        started = time.monotonic()
        try:
            response = await self._http.post(
                "/graphql", json={"query": query, "variables": variables}
            )
        except httpx.ConnectError:
            await asyncio.sleep(0.05)  # the port is closed, so a thousand retries are useless
            return Outcome.NOT_DONE, None
        except httpx.TimeoutException as error:
            raise AssertionError(f"no answer in {ANSWER_SECONDS} s: {variables}") from error
        except httpx.TransportError:
            return Outcome.UNKNOWN, None
        finally:
            took_seconds = time.monotonic() - started
            self._counts.slowest_seconds = max(self._counts.slowest_seconds, took_seconds)
        assert response.status_code == 200, response.text
        body = response.json()
        errors = [error["extensions"] for error in body.get("errors", ())]
        assert {error["code"] for error in errors} <= {"UNAVAILABLE", "TIMEOUT"}, body
        data = (body["data"] or {}).get(name)
        if errors:
            await asyncio.sleep(0.02)
            self._counts.done_but_unread += data is not None
        if data is not None or not errors:
            # The errors are below the field: the change was committed, but its result could not be
            # read.
            return Outcome.DONE, data
        unknown = any(error.get("outcomeUnknown") for error in errors)
        return Outcome.UNKNOWN if unknown else Outcome.NOT_DONE, None
