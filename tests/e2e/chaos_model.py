"""The model of one user in the chaos test: what the service acknowledged.

Every response has the user's memberships and newest history. Anything new in them must be a
requested change in full, or an expiry that was due.
"""

import enum
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from tests.operations import parse_timestamp

PAGE_ENTRIES = 100
"""The history entries in a response: more than can be new in one."""


class Outcome(enum.Enum):
    """The outcome that a client may assume of a change that it sent."""

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
    """A history entry."""

    at: datetime
    slug: str
    operation: str
    cause: str


@dataclass
class Membership:
    """A membership that has not ended as far as the client knows."""

    joined_at: datetime
    expires_at: datetime | None


@dataclass
class ModelUser:
    """One user. Only one client changes it, one change at a time."""

    number: int
    entries: list[Entry] = field(default_factory=list)
    """All entries, in the order in which they were first read."""
    memberships: dict[str, Membership] = field(default_factory=dict)
    unverified: tuple[Change, Outcome] | None = None
    """The last change, until its effect is verified."""

    def verify(self, user: Mapping[str, Any], counts: tuple[int, int] | None = None) -> bool:
        """Verify a response and update the model.

        Args:
            user: The user in the response.
            counts: The manual joins and leaves that the payload of the unverified change returned.

        Returns:
            False if the user must be read again, because an expiry fell between two statements.

        Raises:
            AssertionError: The response contradicts the model.
        """
        change, outcome = self.unverified or (NOTHING, Outcome.DONE)
        shown = {
            node["segment"]["slug"]: (
                Membership(
                    parse_timestamp(node["joinedAt"]),
                    node["expiresAt"] and parse_timestamp(node["expiresAt"]),
                ),
                parse_timestamp(node["updatedAt"]),
            )
            for node in user["memberships"]
        }
        new = sorted(self._new_entries(user["history"]["nodes"]))
        initial = _replay(self.memberships.keys(), new)
        # Memberships and history are two statements, and an expiry may fall between them.
        if not initial <= shown.keys():
            return False
        joins = {entry.slug: entry for entry in new if entry.operation == "JOINED"}
        by_hand = {e.slug for e in new if e.operation == "LEFT" and e.cause == "MANUAL"}
        ends = [entry for entry in new if entry.operation == "LEFT" and entry.cause == "TTL"]
        moved = {
            slug
            for slug, membership in self.memberships.items()
            if slug in shown and slug not in joins and shown[slug][0] != membership
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
            left_slugs = {entry.slug for entry in new if entry.operation == "LEFT"}
            self._assert_applied_in_full(change, joins, left_slugs, shown)
        if counts:
            assert counts == (len(joins), len(by_hand)), (self, change, new, counts)

        self.entries += new
        self.memberships = {slug: shown[slug][0] for slug in initial}
        self.unverified = None
        return True

    def _was_due(self, end: Entry) -> bool:
        membership = self.memberships.get(end.slug)
        return membership is not None and membership.expires_at == end.at

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

    def _assert_applied_in_full(
        self,
        change: Change,
        joins: Mapping[str, Entry],
        left_slugs: set[str],
        shown: Mapping[str, tuple[Membership, datetime]],
    ) -> None:
        for slug in change.remove:
            assert slug not in shown, (self, change, slug)
            if slug in self.memberships:
                assert slug in left_slugs, (self, change, slug)
        for slug in change.add:
            before = self.memberships.get(slug)
            if before is None:
                assert slug in joins, (self, change, slug)
            elif slug in joins:
                assert before.expires_at, (self, change, slug)
                assert joins[slug].at > before.expires_at, (self, change, slug)
            if slug not in shown:
                continue
            membership, updated_at = shown[slug]
            requested_end = updated_at + change.ttl if change.ttl else None
            if slug in joins:
                assert membership == Membership(joins[slug].at, requested_end), (
                    self,
                    change,
                    slug,
                    shown,
                )
            elif before:
                assert membership.joined_at == before.joined_at, (self, change, slug, shown)
                assert membership.expires_at in _possible_ends(change, before, requested_end), (
                    self,
                    change,
                    slug,
                    shown,
                )

    def segments_at(self, at: datetime) -> set[str]:
        """Return the segments at a past moment, by replaying the entries up to it."""
        return _replay((), sorted(entry for entry in self.entries if entry.at <= at))


def _replay(initial: Iterable[str], entries: Iterable[Entry]) -> set[str]:
    """Return the segments after entries in order, starting from the given ones."""
    slugs = set(initial)
    for entry in entries:
        (slugs.add if entry.operation == "JOINED" else slugs.discard)(entry.slug)
    return slugs


def _possible_ends(
    change: Change, before: Membership, requested_end: datetime | None
) -> set[datetime | None]:
    """Return the possible ends of an active membership after a change."""
    if change.on_existing == "KEEP":
        return {before.expires_at}
    if change.on_existing == "REPLACE":
        return {requested_end}
    if before.expires_at is None or change.ttl is None:
        return {None}
    # EXTEND to an earlier end changes nothing, so the moment of this change is unknown.
    return {before.expires_at, max(before.expires_at, requested_end or before.expires_at)}
