"""Demo data: users, segments, and a year of joins and leaves.

The data is always the same, except for its dates, which end today. Existing data is not changed:
only users and segments that this run creates get memberships, so a second run does nothing.
Existing rollouts enroll the new users like any others. The demo starts no rollout, because it would
also add existing users.
"""

import random
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import text

from segmentql.adapters.sessions import WriteSession
from segmentql.history.partitions import create_partitions

SEED: Final = 2023
USERS: Final = range(1, 5001)
DAYS: Final = 365
WORKING_HOUR: Final = timedelta(hours=10)
"""The time on Mondays at which an analyst removes users from segments, in one batch."""


@dataclass(frozen=True)
class DemoSegment:
    slug: str
    name: str
    share: float
    """The share of users who ever join, 0 to 1."""
    deleted_days_ago: int | None = None


SEGMENTS: Final = (
    DemoSegment("AVITO_DISCOUNT_30", "30 % off delivery", 0.30),
    DemoSegment("AVITO_DISCOUNT_50", "50 % off delivery", 0.10),
    DemoSegment("AVITO_PERFORMANCE_VAS", "Paid promotion, new prices", 0.40),
    DemoSegment("AVITO_VOICE_MESSAGES", "Voice messages in chats", 0.60),
    DemoSegment("AVITO_SPRING_SALE", "Spring sale", 0.25, deleted_days_ago=150),
)


@dataclass(frozen=True)
class Stay:
    """A membership with its start and end. `by_ttl` is true if a TTL ends it."""

    user_id: int
    slug: str
    joined_at: datetime
    left_at: datetime | None
    by_ttl: bool = False


@dataclass(frozen=True)
class SeedCounts:
    """The numbers of rows that a run created."""

    users: int
    segments: int
    joins: int


_TODAY = text("SELECT date_trunc('day', now() AT TIME ZONE 'UTC') AT TIME ZONE 'UTC'")
_INSERT_USERS = text("""
INSERT INTO users (id, created_at) SELECT id, :at FROM unnest(CAST(:ids AS bigint[])) AS id
ON CONFLICT (id) DO NOTHING RETURNING id
""")
_INSERT_SEGMENT = text("""
INSERT INTO segments (slug, name, created_at, updated_at) VALUES (:slug, :name, :at, :at)
ON CONFLICT (slug) WHERE deleted_at IS NULL DO NOTHING RETURNING id
""")
_SEGMENT_EXISTS = text("SELECT EXISTS (SELECT FROM segments WHERE slug = :slug)")
_INSERT_MEMBERSHIPS = text("""
INSERT INTO memberships (user_id, segment_id, joined_at, updated_at, expires_at, cause, actor)
SELECT user_id, segment_id, joined_at, joined_at, expires_at, 'MANUAL', 'demo'
FROM unnest(CAST(:user_ids AS bigint[]), CAST(:segment_ids AS bigint[]),
    CAST(:joined_ats AS timestamptz[]), CAST(:expires_ats AS timestamptz[]))
    AS stay (user_id, segment_id, joined_at, expires_at)
ORDER BY user_id, segment_id
""")
_EXPIRE_DUE = text("""
DELETE FROM memberships WHERE expires_at <= now() AND segment_id = ANY(:segment_ids)
""")
_SET_TIMESTAMP = text("SELECT set_config('segmentql.moment', CAST(:moment AS text), true)")
_SET_ACTOR = text("SELECT set_config('segmentql.actor', 'demo', true)")
_DELETE_MEMBERSHIPS = text("""
DELETE FROM memberships m
USING unnest(CAST(:user_ids AS bigint[]), CAST(:segment_ids AS bigint[]))
    AS stay (user_id, segment_id)
WHERE m.user_id = stay.user_id AND m.segment_id = stay.segment_id
""")
_DELETE_SEGMENT = text("""
UPDATE segments SET deleted_at = :at, deleted_by = 'demo' WHERE id = :segment_id
""")


async def seed(session: WriteSession) -> SeedCounts:
    """Create the missing demo data."""
    today = (await session.execute(_TODAY)).scalar_one()
    start = today - timedelta(days=DAYS)
    await create_partitions(session, start.date(), months=DAYS // 28)
    inserted = await session.execute(_INSERT_USERS, {"ids": list(USERS), "at": start})
    users = set(inserted.scalars())
    segment_ids: dict[str, int] = {}
    for segment in SEGMENTS:
        values = {"slug": segment.slug, "name": segment.name, "at": start}
        if not (await session.execute(_SEGMENT_EXISTS, values)).scalar_one():
            segment_ids[segment.slug] = (
                await session.execute(_INSERT_SEGMENT, values)
            ).scalar_one()

    joins = 0
    stays_by_number: dict[int, list[Stay]] = defaultdict(list)
    for number, stay in _stays(start, today):
        if stay.user_id in users and stay.slug in segment_ids:
            stays_by_number[number].append(stay)
    for stays in stays_by_number.values():  # a second stay starts after the first has ended
        await _insert_stays(session, stays, segment_ids)
        joins += len(stays)
    for segment in SEGMENTS:
        if segment.deleted_days_ago and segment.slug in segment_ids:
            at = today - timedelta(days=segment.deleted_days_ago)
            values = {"segment_id": segment_ids[segment.slug], "at": at}
            await session.execute(_DELETE_SEGMENT, values)
    return SeedCounts(len(users), len(segment_ids), joins)


async def _insert_stays(
    session: WriteSession, stays: list[Stay], segment_ids: dict[str, int]
) -> None:
    """Start and end memberships. The triggers write the history."""
    await session.execute(
        _INSERT_MEMBERSHIPS,
        {
            "user_ids": [stay.user_id for stay in stays],
            "segment_ids": [segment_ids[stay.slug] for stay in stays],
            "joined_ats": [stay.joined_at for stay in stays],
            "expires_ats": [stay.left_at if stay.by_ttl else None for stay in stays],
        },
    )
    await session.execute(_EXPIRE_DUE, {"segment_ids": list(segment_ids.values())})
    manual: dict[datetime, list[Stay]] = defaultdict(list)
    for stay in stays:
        if stay.left_at and not stay.by_ttl:
            manual[stay.left_at].append(stay)
    await session.execute(_SET_ACTOR)
    for left_at, batch in sorted(manual.items()):
        await session.execute(_SET_TIMESTAMP, {"moment": left_at.isoformat()})
        await session.execute(
            _DELETE_MEMBERSHIPS,
            {
                "user_ids": [stay.user_id for stay in batch],
                "segment_ids": [segment_ids[stay.slug] for stay in batch],
            },
        )
    await session.execute(_SET_TIMESTAMP, {"moment": ""})


def _stays(start: datetime, today: datetime) -> Iterator[tuple[int, Stay]]:
    """Yield the stays, each with the number of earlier stays of the user in the segment."""
    rng = random.Random(SEED)  # noqa: S311 - demo data, not a secret
    for segment in SEGMENTS:
        end = today - timedelta(days=segment.deleted_days_ago or 0)
        for user_id in USERS:
            if rng.random() < segment.share:
                yield from _stays_of(
                    user_id, segment.slug, start=start, end=end, today=today, rng=rng
                )


def _stays_of(
    user_id: int,
    slug: str,
    *,
    start: datetime,
    end: datetime,
    today: datetime,
    rng: random.Random,
) -> Iterator[tuple[int, Stay]]:
    joined_at = start + (end - start) * rng.random()
    for number in range(3):
        kind, days = rng.random(), rng.randint(1, 90)
        if kind < 0.5:  # noqa: PLR2004 - half of the users stay
            yield number, Stay(user_id, slug, joined_at, None)
            return
        left_at = joined_at + timedelta(days=days)
        by_ttl = kind < 0.8  # noqa: PLR2004 - most of the others have a TTL
        if not by_ttl:
            midnight = left_at.replace(hour=0, minute=0, second=0, microsecond=0)
            left_at = midnight + timedelta(days=7 - left_at.weekday()) + WORKING_HOUR
        if left_at >= end:
            future_end = left_at if by_ttl and left_at > today else None
            yield number, Stay(user_id, slug, joined_at, future_end, by_ttl=by_ttl)
            return
        yield number, Stay(user_id, slug, joined_at, left_at, by_ttl=by_ttl)
        joined_at = left_at + timedelta(days=rng.randint(1, 60), seconds=rng.random())
        if joined_at >= end:
            return
