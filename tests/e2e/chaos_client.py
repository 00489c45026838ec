"""A client of the chaos test: changes and reads at random, and holds every answer to its model."""

import asyncio
import random
import time
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import httpx

from bench.data import Sizes, slug
from segmentql.settings import outside_value
from tests.conftest import until
from tests.e2e.chaos_model import NOTHING, PAGE_ENTRIES, Change, Outcome, Person

SEED = int(outside_value("test_chaos_seed") or random.SystemRandom().randrange(10**6))

SIZES = Sizes(users=100_000, memberships=300_000, segments=20)
CONTESTED = 3
"""Users whom all clients change at once; of them only the rules of history are checked."""
HOT = [slug(number) for number in range(1, 7)]
FIRST = SIZES.users + 1

ANSWER_SECONDS = 60
"""No request hangs: the sum of all limits (a wait for a connection, a statement, once more)."""
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
class Tally:
    """How often something happened, for whoever reads the output."""

    done: int = 0
    done_but_unread: int = 0
    """Made, but the database was gone when it was to be read back for the answer."""
    not_done: int = 0
    unknown: int = 0
    reads: int = 0
    slowest_seconds: float = 0
    tidied_seconds: float = 0
    """The longest from all being back to the record of every leave that was due then."""
    kills: dict[str, int] = field(default_factory=dict)

    def count(self, outcome: Outcome) -> None:
        name = outcome.name.lower()
        setattr(self, name, getattr(self, name) + 1)


class Client:
    """Changes and reads its own people one thing at a time, and some users that all change."""

    def __init__(self, http: httpx.AsyncClient, people: list[Person], tally: Tally) -> None:
        self._http = http
        self._people = people
        self._tally = tally
        self._random = random.Random(f"{SEED} {people[0].number}")  # noqa: S311

    async def run(self, stop: asyncio.Event) -> None:
        while not stop.is_set():
            chance = self._random.random()
            person = self._random.choice(self._people)
            if person.unseen:
                await self._look(person)
            elif chance < 0.1:
                await self._change_contested()
            elif chance < 0.25:
                await self._read_anybody()
            elif chance < 0.4:
                await self._read(person)
            else:
                await self._change(person)

    async def settle(self) -> None:
        """See all that is not seen yet, and what has ended since."""
        for person in self._people:
            await until(partial(self._look, person), seconds=RECOVERY_SECONDS)

    async def past_agrees(self) -> None:
        """Ask for past moments: those at which something happened, and one between two."""
        for person in self._people:
            moments = [entry.at for entry in person.entries]
            chosen = self._random.sample(moments, min(5, len(moments)))
            if len(moments) > 1:
                chosen.append(min(moments) + (max(moments) - min(moments)) / 2)
            for at in chosen:
                _, user = await self._ask(PAST, "user", id=str(person.number), at=at.isoformat())
                found = {segment["slug"] for segment in user["segments"]}
                assert found == person.was_in(at), (person.number, at)

    async def _change(self, person: Person) -> None:
        change = self._a_change()
        person.unseen = (change, Outcome.UNKNOWN)
        outcome, payload = await self._send(person.number, change)
        self._tally.count(outcome)
        person.unseen = (change, outcome)
        if payload and payload["user"]:
            counts = (payload["segmentsAdded"], payload["segmentsRemoved"])
            person.sees(payload["user"], counts)

    async def _look(self, person: Person) -> bool:
        # A change of nothing: it waits for the lock that a change whose client went away may
        # still hold, so that what is read afterwards is all there will be.
        _, payload = await self._send(person.number, NOTHING)
        return bool(payload and payload["user"]) and person.sees(payload["user"])

    async def _read(self, person: Person) -> None:
        _, user = await self._ask(READ, "user", id=str(person.number))
        if user:
            person.sees(user)
            self._tally.reads += 1

    async def _read_anybody(self) -> None:
        number = self._random.randint(1, SIZES.users)
        _, user = await self._ask(SLUGS, "user", id=str(number))
        if user:
            expected = sorted(map(slug, SIZES.segment_ids(number)))
            assert [segment["slug"] for segment in user["segments"]] == expected
            self._tally.reads += 1

    async def _change_contested(self) -> None:
        await self._send(FIRST + self._random.randrange(CONTESTED), self._a_change())

    def _a_change(self) -> Change:
        chosen = self._random.sample(HOT, self._random.randint(1, 4))
        added = self._random.randint(0, len(chosen))
        return Change(
            add=chosen[:added],
            remove=chosen[added:],
            ttl_seconds=self._random.choice((None, None, None, 1, 1, 2, 4, 3600)),
            on_existing=self._random.choice(("EXTEND", "EXTEND", "REPLACE", "KEEP")),
        )

    async def _send(self, number: int, change: Change) -> tuple[Outcome, Any]:
        given: dict[str, Any] = {
            "userId": str(number),
            "add": change.add,
            "remove": change.remove,
            "onExisting": change.on_existing,
        }
        if change.ttl_seconds is not None:
            given["ttlSeconds"] = change.ttl_seconds
        outcome, payload = await self._ask(CHANGE, "updateUserSegments", input=given)
        assert not payload or payload["errors"] == [], payload
        return outcome, payload

    async def _ask(self, query: str, name: str, **variables: Any) -> tuple[Outcome, Any]:
        """What may be believed of a change, and the field's data where there are any."""
        started = time.monotonic()
        try:
            response = await self._http.post(
                "/graphql", json={"query": query, "variables": variables}
            )
        except httpx.ConnectError:
            await asyncio.sleep(0.05)  # nobody listens: no need to ask a thousand times
            return Outcome.NOT_DONE, None
        except httpx.TimeoutException as error:
            raise AssertionError(f"no answer in {ANSWER_SECONDS} s: {variables}") from error
        except httpx.TransportError:
            return Outcome.UNKNOWN, None
        finally:
            took_seconds = time.monotonic() - started
            self._tally.slowest_seconds = max(self._tally.slowest_seconds, took_seconds)
        assert response.status_code == 200, response.text
        body = response.json()
        errors = [error["extensions"] for error in body.get("errors", ())]
        assert {error["code"] for error in errors} <= {"UNAVAILABLE", "TIMEOUT"}, body
        data = (body["data"] or {}).get(name)
        if errors:
            await asyncio.sleep(0.02)
            self._tally.done_but_unread += data is not None
        if data is not None or not errors:
            # Errors beneath the field: it was done, and only could not be read back.
            return Outcome.DONE, data
        unknown = any(error.get("outcomeUnknown") for error in errors)
        return Outcome.UNKNOWN if unknown else Outcome.NOT_DONE, None
