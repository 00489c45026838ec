"""Demo data: users, segments, and a plausible year of joins and leaves behind them.

The same every time but for its dates, which end today. It touches nobody's own data: only users
and segments that it stores itself get memberships, so a second run finds nothing to do. (Rollouts
that were there before enrol its users, as any that are stored later.) It starts no rollout: that
would put in a percent of everybody's users.
"""

import random
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import text

from segmentql.adapters.database import WriteSession
from segmentql.history.service import make_partitions

SEED: Final = 2023
USERS: Final = range(1, 5001)
DAYS: Final = 365
WORKING_HOUR: Final = timedelta(hours=10)
"""On Mondays, when an analyst takes out, together, everyone whose time has come."""


@dataclass(frozen=True)
class DemoSegment:
    slug: str
    name: str
    share: float
    """Of all users, how many ever join."""
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
    """One membership: from when to when, and whether a TTL or an analyst ended it."""

    user_id: int
    slug: str
    joined_at: datetime
    left_at: datetime | None
    by_ttl: bool = False


@dataclass(frozen=True)
class Seeded:
    """What was stored by this run: nothing, where all was there."""

    users: int
    segments: int
    joins: int


_TODAY = text("SELECT date_trunc('day', now() AT TIME ZONE 'UTC') AT TIME ZONE 'UTC'")
_STORE_USERS = text("""
INSERT INTO users (id, created_at) SELECT id, :at FROM unnest(CAST(:ids AS bigint[])) AS id
ON CONFLICT (id) DO NOTHING RETURNING id
""")
_MAKE_SEGMENT = text("""
INSERT INTO segments (slug, name, created_at, updated_at) VALUES (:slug, :name, :at, :at)
ON CONFLICT (slug) WHERE deleted_at IS NULL DO NOTHING RETURNING id
""")
_WAS_MADE = text("SELECT EXISTS (SELECT FROM segments WHERE slug = :slug)")
_JOIN = text("""
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
_SAY_WHEN = text("SELECT set_config('segmentql.moment', CAST(:moment AS text), true)")
_SAY_WHO = text("SELECT set_config('segmentql.actor', 'demo', true)")
_TAKE_OUT = text("""
DELETE FROM memberships m
USING unnest(CAST(:user_ids AS bigint[]), CAST(:segment_ids AS bigint[]))
    AS stay (user_id, segment_id)
WHERE m.user_id = stay.user_id AND m.segment_id = stay.segment_id
""")
_DELETE_SEGMENT = text("""
UPDATE segments SET deleted_at = :at, deleted_by = 'demo' WHERE id = :segment_id
""")


async def seed(session: WriteSession) -> Seeded:
    """Store the demo data that is missing, in one transaction."""
    today = (await session.execute(_TODAY)).scalar_one()
    start = today - timedelta(days=DAYS)
    await make_partitions(session, start.date(), months=DAYS // 28)
    stored = await session.execute(_STORE_USERS, {"ids": list(USERS), "at": start})
    users = set(stored.scalars())
    segment_ids: dict[str, int] = {}
    for segment in SEGMENTS:
        values = {"slug": segment.slug, "name": segment.name, "at": start}
        if not (await session.execute(_WAS_MADE, values)).scalar_one():
            segment_ids[segment.slug] = (await session.execute(_MAKE_SEGMENT, values)).scalar_one()

    joins = 0
    rounds: dict[int, list[Stay]] = defaultdict(list)
    for number, stay in _stays(start, today):
        if stay.user_id in users and stay.slug in segment_ids:
            rounds[number].append(stay)
    for stays in rounds.values():  # a second stay begins after the first has ended
        await _play(session, stays, segment_ids)
        joins += len(stays)
    for segment in SEGMENTS:
        if segment.deleted_days_ago and segment.slug in segment_ids:
            at = today - timedelta(days=segment.deleted_days_ago)
            values = {"segment_id": segment_ids[segment.slug], "at": at}
            await session.execute(_DELETE_SEGMENT, values)
    return Seeded(len(users), len(segment_ids), joins)


async def _play(session: WriteSession, stays: list[Stay], segment_ids: dict[str, int]) -> None:
    """Have the stays begin and end; the triggers write what happened, and when."""
    await session.execute(
        _JOIN,
        {
            "user_ids": [stay.user_id for stay in stays],
            "segment_ids": [segment_ids[stay.slug] for stay in stays],
            "joined_ats": [stay.joined_at for stay in stays],
            "expires_ats": [stay.left_at if stay.by_ttl else None for stay in stays],
        },
    )
    await session.execute(_EXPIRE_DUE, {"segment_ids": list(segment_ids.values())})
    by_hand: dict[datetime, list[Stay]] = defaultdict(list)
    for stay in stays:
        if stay.left_at and not stay.by_ttl:
            by_hand[stay.left_at].append(stay)
    await session.execute(_SAY_WHO)
    for moment, together in sorted(by_hand.items()):
        await session.execute(_SAY_WHEN, {"moment": moment.isoformat()})
        await session.execute(
            _TAKE_OUT,
            {
                "user_ids": [stay.user_id for stay in together],
                "segment_ids": [segment_ids[stay.slug] for stay in together],
            },
        )
    await session.execute(_SAY_WHEN, {"moment": ""})


def _stays(start: datetime, today: datetime) -> Iterator[tuple[int, Stay]]:
    """Every stay, with how many the same user had in the same segment before."""
    chance = random.Random(SEED)  # noqa: S311 - a story, not a secret
    for segment in SEGMENTS:
        end = today - timedelta(days=segment.deleted_days_ago or 0)
        for user_id in USERS:
            if chance.random() < segment.share:
                yield from _stays_of(
                    user_id, segment.slug, start=start, end=end, today=today, chance=chance
                )


def _stays_of(
    user_id: int,
    slug: str,
    *,
    start: datetime,
    end: datetime,
    today: datetime,
    chance: random.Random,
) -> Iterator[tuple[int, Stay]]:
    joined_at = start + (end - start) * chance.random()
    for number in range(3):
        kind, days = chance.random(), chance.randint(1, 90)
        if kind < 0.5:  # noqa: PLR2004 - half of them stay
            yield number, Stay(user_id, slug, joined_at, None)
            return
        left_at = joined_at + timedelta(days=days)
        by_ttl = kind < 0.8  # noqa: PLR2004 - and most of the others had a TTL
        if not by_ttl:
            midnight = left_at.replace(hour=0, minute=0, second=0, microsecond=0)
            left_at = midnight + timedelta(days=7 - left_at.weekday()) + WORKING_HOUR
        if left_at >= end:
            still_to_come = left_at if by_ttl and left_at > today else None
            yield number, Stay(user_id, slug, joined_at, still_to_come, by_ttl=by_ttl)
            return
        yield number, Stay(user_id, slug, joined_at, left_at, by_ttl=by_ttl)
        joined_at = left_at + timedelta(days=chance.randint(1, 60), seconds=chance.random())
        if joined_at >= end:
            return
