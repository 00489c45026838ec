"""What a client of the chaos test knows about one user: what was acknowledged, and nothing else.

Every answer brings the user's memberships and newest history. Whatever is new in them must be
what somebody asked for, whole, or an end that was due.
"""

import enum
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from tests.operations import parse_timestamp

PAGE_ENTRIES = 100
"""Of history, in an answer: more than there can be new in one."""


class Outcome(enum.Enum):
    """What a client may believe of a change that it sent."""

    DONE = enum.auto()
    NOT_DONE = enum.auto()
    UNKNOWN = enum.auto()


@dataclass(frozen=True)
class Change:
    """One `updateUserSegments`."""

    add: Sequence[str] = ()
    remove: Sequence[str] = ()
    ttl_seconds: int | None = None
    on_existing: str = "EXTEND"

    @property
    def ttl(self) -> timedelta | None:
        return None if self.ttl_seconds is None else timedelta(seconds=self.ttl_seconds)


NOTHING = Change()


class Entry(NamedTuple):
    """A line of history."""

    at: datetime
    slug: str
    operation: str
    cause: str


@dataclass
class Stay:
    """A membership that is not known to be over."""

    joined_at: datetime
    expires_at: datetime | None


@dataclass
class Person:
    """One user. Only one client changes it, one change at a time."""

    number: int
    entries: list[Entry] = field(default_factory=list)
    """All that happened, in the order in which it was seen."""
    stays: dict[str, Stay] = field(default_factory=dict)
    unseen: tuple[Change, Outcome] | None = None
    """The last change, where its effect has not been seen yet."""

    def sees(self, user: Mapping[str, Any], counts: tuple[int, int] | None = None) -> bool:
        """Take in an answer; false where it must be asked for again, for an end fell into it.

        `counts`: how many joins and leaves by hand the unseen change is said to have made.

        Raises:
            AssertionError: it contradicts what is known.
        """
        change, outcome = self.unseen or (NOTHING, Outcome.DONE)
        shown = {
            node["segment"]["slug"]: (
                Stay(
                    parse_timestamp(node["joinedAt"]),
                    node["expiresAt"] and parse_timestamp(node["expiresAt"]),
                ),
                parse_timestamp(node["updatedAt"]),
            )
            for node in user["memberships"]
        }
        new = sorted(self._new_entries(user["history"]["nodes"]))
        inside = _after(self.stays.keys(), new)
        # Memberships and history are two statements, and an end may fall between them.
        if not inside <= shown.keys():
            return False
        joins = {entry.slug: entry for entry in new if entry.operation == "JOINED"}
        by_hand = {e.slug for e in new if e.operation == "LEFT" and e.cause == "MANUAL"}
        ends = [entry for entry in new if entry.operation == "LEFT" and entry.cause == "TTL"]
        moved = {
            slug
            for slug, stay in self.stays.items()
            if slug in shown and slug not in joins and shown[slug][0] != stay
        } | {e.slug for e in ends if e.slug not in joins and not self._was_due(e)}

        assert len(joins) + len(by_hand) + len(ends) == len(new), (self, change, new)
        assert joins.keys() | moved <= set(change.add), (self, change, new, shown)
        assert by_hand <= set(change.remove), (self, change, new, shown)
        if outcome is Outcome.NOT_DONE:
            assert not joins.keys() | by_hand | moved, (self, change, new, shown)
        for entry in ends:
            if not self._was_due(entry):
                assert change.ttl, (self, change, entry)
                if entry.slug in joins:
                    assert entry.at == joins[entry.slug].at + change.ttl, (self, change, new)
        if outcome is Outcome.DONE or joins or by_hand or moved:
            left = {entry.slug for entry in new if entry.operation == "LEFT"}
            self._was_made_whole(change, joins, left, shown)
        if counts:
            assert counts == (len(joins), len(by_hand)), (self, change, new, counts)

        self.entries += new
        self.stays = {slug: shown[slug][0] for slug in inside}
        self.unseen = None
        return True

    def _was_due(self, end: Entry) -> bool:
        stay = self.stays.get(end.slug)
        return stay is not None and stay.expires_at == end.at

    def _new_entries(self, nodes: Sequence[Mapping[str, Any]]) -> list[Entry]:
        page = [
            Entry(
                parse_timestamp(node["at"]),
                node["segment"]["slug"],
                node["operation"],
                node["cause"],
            )
            for node in nodes
        ]
        assert len(page) == len(set(page)), f"{self.number}: shown twice in {page}"
        known = set(self.entries[-2 * PAGE_ENTRIES :])
        oldest = page[-1].at if len(page) == PAGE_ENTRIES else datetime.min.replace(tzinfo=UTC)
        lost = {entry for entry in known if entry.at > oldest} - set(page)
        assert not lost, f"{self.number}: history lost {lost}"
        return [entry for entry in page if entry not in known]

    def _was_made_whole(
        self,
        change: Change,
        joins: Mapping[str, Entry],
        left: set[str],
        shown: Mapping[str, tuple[Stay, datetime]],
    ) -> None:
        for slug in change.remove:
            assert slug not in shown, (self, change, slug)
            if slug in self.stays:
                assert slug in left, (self, change, slug)
        for slug in change.add:
            before = self.stays.get(slug)
            if before is None:
                assert slug in joins, (self, change, slug)
            elif slug in joins:
                assert before.expires_at, (self, change, slug)
                assert joins[slug].at > before.expires_at, (self, change, slug)
            if slug not in shown:
                continue
            stay, updated_at = shown[slug]
            asked = updated_at + change.ttl if change.ttl else None
            if slug in joins:
                assert stay == Stay(joins[slug].at, asked), (self, change, slug, shown)
            elif before:
                assert stay.joined_at == before.joined_at, (self, change, slug, shown)
                assert stay.expires_at in _ends(change, before, asked), (self, change, slug, shown)

    def was_in(self, at: datetime) -> set[str]:
        """The segments at a past moment, by replaying what happened up to it."""
        return _after((), sorted(entry for entry in self.entries if entry.at <= at))


def _after(inside: Iterable[str], entries: Iterable[Entry]) -> set[str]:
    """Whoever was in these segments, and what happened then in order: the segments afterwards."""
    found = set(inside)
    for entry in entries:
        (found.add if entry.operation == "JOINED" else found.discard)(entry.slug)
    return found


def _ends(change: Change, before: Stay, asked: datetime | None) -> set[datetime | None]:
    """Where the end of a membership that stays may be after a change."""
    if change.on_existing == "KEEP":
        return {before.expires_at}
    if change.on_existing == "REPLACE":
        return {asked}
    if before.expires_at is None or change.ttl is None:
        return {None}
    # EXTEND to an earlier end changes nothing, so the moment of this change is not told.
    return {before.expires_at, max(before.expires_at, asked or before.expires_at)}
