"""What a client of the chaos test knows about one user: what was acknowledged, and nothing else.

Every answer brings the user's memberships and newest history. Whatever is new in them must be
what somebody asked for, whole, or an end that was due.
"""

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from tests.operations import moment


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
    """A membership that nobody ended by hand, as far as is known."""

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

    def sees(self, user: Mapping[str, Any]) -> bool:
        """Take in an answer; false where it must be asked for again, for an end fell into it.

        Raises:
            AssertionError: it contradicts what is known.
        """
        change, outcome = self.unseen or (NOTHING, Outcome.DONE)
        shown = {
            node["segment"]["slug"]: (
                Stay(moment(node["joinedAt"]), node["expiresAt"] and moment(node["expiresAt"])),
                moment(node["updatedAt"]),
            )
            for node in user["memberships"]
        }
        new = self._new_entries(user["history"]["nodes"])
        joins = {entry.slug: entry for entry in new if entry.operation == "JOINED"}
        by_hand = {entry.slug for entry in new if entry.cause == "MANUAL" and entry.operation == "LEFT"}
        ends = [entry for entry in new if entry.cause == "TTL"]
        gone = {entry.slug for entry in new if entry.operation == "LEFT"}
        # Memberships and history are two statements: an end between them is in one of them only.
        was_in = {*self.stays, *joins}
        if any(slug not in shown and slug not in gone for slug in was_in):
            return False
        assert joins.keys() <= set(change.add), (self, change, new)
        assert by_hand <= set(change.remove), (self, change, new)
        assert len(joins) + len(by_hand) + len(ends) == len(new), (self, change, new)

        moved = {
            slug
            for slug, stay in self.stays.items()
            if slug in shown and slug not in joins and shown[slug][0] != stay
        }
        assert moved <= set(change.add), (self, change, shown)
        if outcome is Outcome.NOT_DONE:
            assert not (joins or by_hand or moved), (self, change, new, shown)
        happened = outcome is Outcome.DONE or bool(joins or by_hand or moved)
        for entry in ends:
            self._is_an_end_that_was_due(entry, change if happened else NOTHING, joins)
        if happened:
            self._was_made_whole(change, joins, by_hand, gone, shown)

        self.entries += sorted(new)
        self.stays = {slug: stay for slug, (stay, _) in shown.items()}
        # Shown by the one, ended by the other: it is over.
        for entry in ends:
            stay = self.stays.get(entry.slug)
            if stay and stay.expires_at == entry.at:
                del self.stays[entry.slug]
        self.unseen = None
        return True

    def _new_entries(self, nodes: Sequence[Mapping[str, Any]]) -> list[Entry]:
        page = [
            Entry(
                moment(node["at"]), node["segment"]["slug"], node["operation"], node["cause"]
            )
            for node in nodes
        ]
        assert len(page) == len(set(page)), f"{self.number}: shown twice in {page}"
        if page:
            kept = {entry for entry in self.entries[-len(page) :] if entry.at > page[-1].at}
            assert kept <= set(page), f"{self.number}: lost {kept - set(page)}"
        known = set(self.entries[-2 * len(page) - 1 :])
        return [entry for entry in page if entry not in known]

    def _is_an_end_that_was_due(
        self, entry: Entry, change: Change, joins: Mapping[str, Entry]
    ) -> None:
        stay, join = self.stays.get(entry.slug), joins.get(entry.slug)
        if stay and stay.expires_at == entry.at:
            return
        assert entry.slug in change.add, (self, change, entry)
        assert change.ttl, (self, change, entry)
        if join and not (stay and entry.at < join.at):
            assert entry.at == join.at + change.ttl, (self, change, entry)
        else:  # moved by the change, and over since
            assert stay, (self, change, entry)
            assert change.on_existing != "KEEP", (self, change, entry)

    def _was_made_whole(
        self,
        change: Change,
        joins: Mapping[str, Entry],
        by_hand: set[str],
        gone: set[str],
        shown: Mapping[str, tuple[Stay, datetime]],
    ) -> None:
        for slug in change.remove:
            assert slug not in shown, (self, change, slug)
            if slug in self.stays:
                assert slug in gone, (self, change, slug)
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
            asked = change.ttl and updated_at + change.ttl
            if slug in joins:
                assert stay == Stay(joins[slug].at, asked), (self, change, slug, shown)
            elif before:
                assert stay.joined_at == before.joined_at, (self, change, slug, shown)
                assert stay.expires_at in _ends(change, before, asked), (self, change, slug, shown)

    def was_in(self, at: datetime) -> set[str]:
        """The segments at a past moment, by replaying what happened up to it."""
        inside: set[str] = set()
        for entry in sorted(self.entries):
            if entry.at <= at:
                (inside.add if entry.operation == "JOINED" else inside.discard)(entry.slug)
        return inside


def _ends(change: Change, before: Stay, asked: datetime | None) -> set[datetime | None]:
    """Where the end of a membership that stays may be after a change."""
    if change.on_existing == "KEEP":
        return {before.expires_at}
    if change.on_existing == "REPLACE":
        # What is the same already is not touched, nor is the moment of the last change.
        return {asked} if asked != before.expires_at else {before.expires_at}
    if before.expires_at is None or change.ttl is None:
        return {None}
    # EXTEND to an earlier end changes nothing, so the moment of this change is not told.
    return {before.expires_at, max(before.expires_at, asked or before.expires_at)}
