"""A model of memberships. It has no tables, but the start and end of every membership there was."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import TypeAlias

from segmentql.memberships.records import OnExisting

USERS = (1, 2)
SLUGS = ("A", "B")
STEP_SECONDS = 10
"""Ends and waits are whole steps, far longer than an example takes, which avoids races."""

Moment: TypeAlias = tuple[int, int]
"""A time in the model: the seconds waited and the number of the operation."""


@dataclass
class Membership:
    """One membership from its join on; `end` is its expected end."""

    user_id: int
    segment_id: int
    start: Moment
    end: Moment | None
    end_cause: str = "TTL"

    def is_active_at(self, at: Moment) -> bool:
        return self.start <= at and (self.end is None or self.end > at)


@dataclass
class Model:
    """The expected state."""

    now: Moment = (0, 0)
    users: set[int] = field(default_factory=set)
    slugs: dict[str, int] = field(default_factory=dict)
    segments_created: int = 0
    memberships: list[Membership] = field(default_factory=list)
    excluded: set[tuple[int, int]] = field(default_factory=set)

    def active(self, **filters: int) -> list[Membership]:
        return [
            membership
            for membership in self.memberships
            if membership.is_active_at(self.now)
            and all(getattr(membership, k) == v for k, v in filters.items())
        ]

    def close(self, memberships: Sequence[Membership], cause: str) -> None:
        for membership in memberships:
            membership.end, membership.end_cause = self.now, cause

    def change(
        self,
        user_id: int,
        add: Sequence[str],
        remove: Sequence[str],
        ttl_seconds: int | None,
        on_existing: OnExisting,
    ) -> bool:
        if not {*add, *remove} <= self.slugs.keys():
            return False
        self.users.add(user_id)
        end = None if ttl_seconds is None else (self.now[0] + ttl_seconds, self.now[1])
        for segment_id in (self.slugs[slug] for slug in add):
            self.excluded.discard((user_id, segment_id))
            existing = self.active(user_id=user_id, segment_id=segment_id)
            if not existing:
                self.memberships.append(Membership(user_id, segment_id, self.now, end))
            elif on_existing is OnExisting.REPLACE:
                existing[0].end = end
            elif on_existing is OnExisting.EXTEND:
                old_end = existing[0].end
                existing[0].end = None if end is None or old_end is None else max(end, old_end)
        for segment_id in (self.slugs[slug] for slug in remove):
            self.excluded.add((user_id, segment_id))
            self.close(self.active(user_id=user_id, segment_id=segment_id), "MANUAL")
        return True

    def create_segment(self, slug: str) -> bool:
        if slug in self.slugs:
            return False
        self.segments_created += 1
        self.slugs[slug] = self.segments_created
        return True

    def delete_segment(self, slug: str) -> bool:
        if slug not in self.slugs:
            return False
        segment_id = self.slugs.pop(slug)
        self.close(self.active(segment_id=segment_id), "SEGMENT_DELETED")
        return True

    def delete_user(self, user_id: int) -> bool:
        if user_id not in self.users:
            return False
        self.users.discard(user_id)
        self.close(self.active(user_id=user_id), "USER_DELETED")
        self.excluded = {(user, segment) for user, segment in self.excluded if user != user_id}
        return True

    def entries(self, user_id: int) -> list[tuple[Moment, set[tuple[int, str, str]]]]:
        """Return a user's entries by moment, as (segment, operation, cause)."""
        entries_by_moment = [
            (membership.start, (membership.segment_id, "JOINED", "MANUAL"))
            for membership in self.memberships
            if membership.user_id == user_id
        ] + [
            (membership.end, (membership.segment_id, "LEFT", membership.end_cause))
            for membership in self.memberships
            if membership.user_id == user_id
            and membership.end is not None
            and membership.end <= self.now
        ]
        entries_by_moment.sort(key=lambda entry: entry[0])
        return [
            (at, {entry for _, entry in together})
            for at, together in groupby(entries_by_moment, key=lambda entry: entry[0])
        ]
