"""The data set of the benchmark: users, segments, memberships and their history.

The data set is the same in every run. Memberships are computed from the ids alone, so that a load
client can check responses without a query.
"""

import hashlib
import math
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

import asyncpg

VERSION: Final = 1
"""The version of the generated data. An increment makes the next run generate the data again."""

DAYS: Final = 28
"""The age of the oldest membership, in days. The migrations create partitions for at least that."""

CHUNK_USERS: Final = 5000
_HASH_MULTIPLIER: Final = 0x9E3779B1
"""The multiplier that distributes the users' first segments.

Source: 2^32 divided by the golden ratio, Knuth, The Art of Computer Programming, 6.4.
"""


@dataclass(frozen=True)
class Sizes:
    """The sizes of a data set. The ids of users and segments start at 1."""

    users: int
    memberships: int
    segments: int

    def __post_init__(self) -> None:
        max_per_user = math.ceil(self.memberships / self.users)
        if self.memberships < 2 * self.users or max_per_user + 2 > self.segments:
            raise ValueError(f"{self}: each user must have two segments to leave and two to join")

    @property
    def stride(self) -> int:
        """The distance between two consecutive segments of a user, coprime to the segment count."""
        return next(step for step in range(37, 2 * self.segments + 38) if self._is_coprime(step))

    def _is_coprime(self, step: int) -> bool:
        return math.gcd(step, self.segments) == 1

    def membership_count(self, user_id: int) -> int:
        """Return the number of segments of a user. The sum over all users is `memberships`."""
        before = (user_id - 1) * self.memberships // self.users
        return user_id * self.memberships // self.users - before

    def segment_at(self, user_id: int, index: int) -> int:
        """Return the id of a user's segment at an index.

        The user is in the segments at the indexes below `membership_count`, and not in the others.
        """
        return 1 + ((user_id * _HASH_MULTIPLIER >> 8) + index * self.stride) % self.segments

    def pgbench_segment_at(self, index: int) -> str:
        """Return `segment_at` as a pgbench expression of the variable `user_id`."""
        return (
            f"1 + ((:user_id * {_HASH_MULTIPLIER} >> 8) + {index * self.stride}) % {self.segments}"
        )

    def segment_ids(self, user_id: int) -> list[int]:
        """Return the ids of a user's segments in no particular order."""
        return [self.segment_at(user_id, index) for index in range(self.membership_count(user_id))]


def slug(segment_id: int) -> str:
    return f"s{segment_id}"


def user_key(user_id: int) -> str:
    """Return the key of a user: 32 hexadecimal digits in no order, like a random UUID."""
    return hashlib.md5(str(user_id).encode(), usedforsecurity=False).hexdigest()


SET_USER_KEYS: Final = "UPDATE users SET key = md5(id::text)"
"""Sets `user_key` of every user. The generated users have no keys."""


async def generate(
    connection: "asyncpg.Connection[asyncpg.Record]",
    sizes: Sizes,
    print_line: Callable[[str], None],
) -> None:
    """Fill an empty, migrated database by COPY.

    Triggers and foreign keys are disabled meanwhile. The generated history equals the history that
    the triggers would write.

    Args:
        connection: A connection of a superuser.
        sizes: The sizes of the data set.
        print_line: Prints a line about the progress.
    """
    now: datetime = await connection.fetchval("SELECT date_trunc('second', now())")
    await connection.execute("SET session_replication_role = replica; SET TIME ZONE 'UTC'")
    started_at = (now - timedelta(days=DAYS + 1)).isoformat()
    await _copy(
        connection,
        "segments",
        ["id", "slug", "name", "created_at", "updated_at"],
        _encode(
            f"{number}\t{slug(number)}\tSegment {number}\t{started_at}\t{started_at}\n"
            for number in range(1, sizes.segments + 1)
        ),
    )
    for table, columns, chunks in (
        ("users", ["id", "created_at"], _user_lines(sizes, now)),
        (
            "memberships",
            ["id", "user_id", "segment_id", "joined_at", "updated_at", "cause"],
            _membership_lines(sizes, now),
        ),
        (
            "history",
            ["membership_id", "user_id", "segment_id", "at", "recorded_at", "cause", "operation"],
            _history_lines(sizes, now),
        ),
    ):
        await _copy(connection, table, columns, chunks)
        print_line(f"  copied {table}")
    await connection.execute(
        """
        SET session_replication_role = DEFAULT;
        SELECT setval(pg_get_serial_sequence('segments', 'id'), max(id)) FROM segments;
        SELECT setval(pg_get_serial_sequence('memberships', 'id'), max(id)) FROM memberships;
        """
    )
    # Freezes the rows, so that no measured read has to set hint bits.
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


def _encode(lines: Iterator[str]) -> Iterator[bytes]:
    yield "".join(lines).encode()


def _user_lines(sizes: Sizes, now: datetime) -> Iterator[bytes]:
    for user_ids in _user_id_chunks(sizes):
        yield from _encode(
            f"{user_id}\t{_joined_at(sizes, now, user_id)}\n" for user_id in user_ids
        )


def _membership_lines(sizes: Sizes, now: datetime) -> Iterator[bytes]:
    number = 0
    for user_ids in _user_id_chunks(sizes):
        lines = []
        for user_id in user_ids:
            at = _joined_at(sizes, now, user_id)
            for segment_id in sorted(sizes.segment_ids(user_id)):
                number += 1
                lines.append(f"{number}\t{user_id}\t{segment_id}\t{at}\t{at}\tMANUAL\n")
        yield from _encode(iter(lines))


def _history_lines(sizes: Sizes, now: datetime) -> Iterator[bytes]:
    number = 0
    for user_ids in _user_id_chunks(sizes):
        lines = []
        for user_id in user_ids:
            at = _joined_at(sizes, now, user_id)
            for segment_id in sorted(sizes.segment_ids(user_id)):
                number += 1
                lines.append(f"{number}\t{user_id}\t{segment_id}\t{at}\t{at}\tMANUAL\tJOINED\n")
        yield from _encode(iter(lines))


def _user_id_chunks(sizes: Sizes) -> Iterator[range]:
    for first in range(1, sizes.users + 1, CHUNK_USERS):
        yield range(first, min(first + CHUNK_USERS, sizes.users + 1))


def _joined_at(sizes: Sizes, now: datetime, user_id: int) -> str:
    # Ascending by user id, as in a growing service. It is also the fastest order for COPY.
    days = DAYS * (sizes.users - user_id + 1) / sizes.users
    return (now - timedelta(days=days)).isoformat()
