"""The data that is measured: users, segments, memberships and their history, the same every time.

Who is in what follows from the numbers alone, so that a load client can check answers without
asking anybody.
"""

import math
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

import asyncpg

VERSION: Final = 1
"""Of what is generated; raise it and kept data are made anew."""

DAYS: Final = 28
"""How far back joins go; the migrations make partitions for at least that much."""

CHUNK_USERS: Final = 5000
_MIX: Final = 0x9E3779B1
"""Spreads the users' first segments: 2^32 divided by the golden ratio (Knuth, TAOCP 6.4)."""


@dataclass(frozen=True)
class Sizes:
    """How much there is; users and segments are numbered from 1."""

    users: int
    memberships: int
    segments: int

    def __post_init__(self) -> None:
        most = math.ceil(self.memberships / self.users)
        if self.memberships < 2 * self.users or most + 2 > self.segments:
            raise ValueError(f"{self}: each user must have two segments to leave and two to join")

    @property
    def stride(self) -> int:
        """The step from one segment of a user to the next; it meets all before any twice."""
        return next(step for step in range(37, 2 * self.segments + 38) if self._is_coprime(step))

    def _is_coprime(self, step: int) -> bool:
        return math.gcd(step, self.segments) == 1

    def members_per_user(self, user_id: int) -> int:
        """How many segments a user is in; in sum exactly `memberships`."""
        before = (user_id - 1) * self.memberships // self.users
        return user_id * self.memberships // self.users - before

    def nth_segment(self, user_id: int, nth: int) -> int:
        """A user's n-th segment; those from `members_per_user` on are the ones it is not in."""
        return 1 + ((user_id * _MIX >> 8) + nth * self.stride) % self.segments

    def nth_segment_in_pgbench(self, nth: int) -> str:
        """`nth_segment` as an expression of pgbench, of its variable `user_id`."""
        return f"1 + ((:user_id * {_MIX} >> 8) + {nth * self.stride}) % {self.segments}"

    def segments_of(self, user_id: int) -> list[int]:
        """The numbers of a user's segments, in no order."""
        return [self.nth_segment(user_id, nth) for nth in range(self.members_per_user(user_id))]


def slug(segment_id: int) -> str:
    return f"s{segment_id}"


async def generate(
    connection: "asyncpg.Connection[asyncpg.Record]", sizes: Sizes, say: Callable[[str], None]
) -> None:
    """Fill an empty, migrated database by COPY; `connection` is a superuser's.

    Triggers and foreign keys are off meanwhile: history is written as the triggers would.
    """
    now: datetime = await connection.fetchval("SELECT date_trunc('second', now())")
    await connection.execute("SET session_replication_role = replica; SET TIME ZONE 'UTC'")
    began = (now - timedelta(days=DAYS + 1)).isoformat()
    await _copy(
        connection,
        "segments",
        ["id", "slug", "name", "created_at", "updated_at"],
        _chunk(
            f"{number}\t{slug(number)}\tSegment {number}\t{began}\t{began}\n"
            for number in range(1, sizes.segments + 1)
        ),
    )
    for table, columns, chunks in (
        ("users", ["id", "created_at"], _users(sizes, now)),
        (
            "memberships",
            ["id", "user_id", "segment_id", "joined_at", "updated_at", "cause"],
            _memberships(sizes, now),
        ),
        (
            "history",
            ["membership_id", "user_id", "segment_id", "at", "recorded_at", "cause", "operation"],
            _history(sizes, now),
        ),
    ):
        await _copy(connection, table, columns, chunks)
        say(f"  {table} are in")
    await connection.execute(
        """
        SET session_replication_role = DEFAULT;
        SELECT setval(pg_get_serial_sequence('segments', 'id'), max(id)) FROM segments;
        SELECT setval(pg_get_serial_sequence('memberships', 'id'), max(id)) FROM memberships;
        """
    )
    # Also freezes, so that no read that is measured does the writers' work for them.
    await connection.execute("VACUUM (FREEZE, ANALYZE)")
    await connection.execute("CHECKPOINT")


async def _copy(
    connection: "asyncpg.Connection[asyncpg.Record]",
    table: str,
    columns: list[str],
    chunks: Iterator[bytes],
) -> None:
    async def source() -> AsyncIterator[bytes]:
        for chunk in chunks:
            yield chunk

    await connection.copy_to_table(table, source=source(), columns=columns, format="text")


def _chunk(lines: Iterator[str]) -> Iterator[bytes]:
    yield "".join(lines).encode()


def _users(sizes: Sizes, now: datetime) -> Iterator[bytes]:
    for user_ids in _chunks_of_users(sizes):
        yield from _chunk(f"{user_id}\t{_joined(sizes, now, user_id)}\n" for user_id in user_ids)


def _memberships(sizes: Sizes, now: datetime) -> Iterator[bytes]:
    number = 0
    for user_ids in _chunks_of_users(sizes):
        lines = []
        for user_id in user_ids:
            at = _joined(sizes, now, user_id)
            for segment_id in sorted(sizes.segments_of(user_id)):
                number += 1
                lines.append(f"{number}\t{user_id}\t{segment_id}\t{at}\t{at}\tMANUAL\n")
        yield from _chunk(iter(lines))


def _history(sizes: Sizes, now: datetime) -> Iterator[bytes]:
    number = 0
    for user_ids in _chunks_of_users(sizes):
        lines = []
        for user_id in user_ids:
            at = _joined(sizes, now, user_id)
            for segment_id in sorted(sizes.segments_of(user_id)):
                number += 1
                lines.append(f"{number}\t{user_id}\t{segment_id}\t{at}\t{at}\tMANUAL\tJOINED\n")
        yield from _chunk(iter(lines))


def _chunks_of_users(sizes: Sizes) -> Iterator[range]:
    for first in range(1, sizes.users + 1, CHUNK_USERS):
        yield range(first, min(first + CHUNK_USERS, sizes.users + 1))


def _joined(sizes: Sizes, now: datetime, user_id: int) -> str:
    # In the users' order: as a service that grows would have it, and what COPY likes best.
    days = DAYS * (sizes.users - user_id + 1) / sizes.users
    return (now - timedelta(days=days)).isoformat()
