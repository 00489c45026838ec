"""The domain errors. They carry fields; the API and the commands turn them into messages.

SegmentQLError
 +-- MutationRejected         a rule forbids the mutation; `reasons` are instances of
 |     (RejectionReason)
 |      +-- InvalidInput
 |      +-- SegmentNotFound
 |      +-- SegmentAlreadyExists
 |      +-- UserNotFound
 |      +-- UserAlreadyExists
 |      +-- VersionConflict
 |      +-- RolloutNotFound
 |      +-- RolloutStateConflict
 |      +-- ImportNotFound
 |      +-- ImportStateConflict
 |      +-- ApiKeyNotFound
 |      +-- IdempotencyKeyReused
 +-- Unauthenticated          the request has no valid API key
 +-- BadValue                 a single value is invalid; the caller knows which field it belongs to
 +-- Unavailable              the database cannot be used now
 |    +-- Unresponsive        it does not respond, or all connections are in use
 |    +-- OutcomeUnknown      the connection was lost during the commit
 +-- IdempotencyKeyInUse      too many requests wait for a mutation with the same idempotency key
 +-- TimedOut                 a statement exceeded its time limit
 +-- HistoryDropped           the time is before the beginning of history
 +-- CursorExpired            the changes after a cursor of the feed are no longer stored
 +-- FeedReset                the database has lost changes that a consumer of the feed has read
 +-- ConcurrencyLimitExceeded the process or the API key has its maximum of streams or consumers
 +-- StoreFailed              an operation of the object store failed
 |    +-- StoreUnavailable    a temporary failure: a retry can succeed
 |    +-- ObjectMissing       the bucket has no such file
 |    +-- StoreRejected       a permanent failure: an operator must change something
 |         +-- BucketMissing
 +-- SchemaMismatch           this version does not support the database's revision
 |    +-- SchemaTooNew        the revision is unknown
 |    +-- SchemaTooOld        migrations are missing
 +-- DowngradeRefused         a migration cannot be undone
 +-- SettingsError            settings are missing or invalid
 +-- LocalServerError         `segmentql up` could not start a server or keep it running
"""

import enum
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from segmentql.segments.records import SegmentRecord
    from segmentql.users.records import UserRecord


class AuthenticationFailure(enum.StrEnum):
    """Why authentication failed. Clients get the same error for the last three."""

    MISSING = "missing"
    MALFORMED = "malformed"
    UNKNOWN = "unknown"
    WRONG_SECRET = "wrong_secret"  # noqa: S105 - a label, not a secret
    REVOKED = "revoked"


class SegmentQLError(Exception):
    """The base class of all errors in this module."""


class BadValue(SegmentQLError):
    """A value is invalid. `problem` describes the value, `allowed` the valid values."""

    def __init__(self, problem: str, allowed: str) -> None:
        super().__init__(problem, allowed)
        self.problem = problem
        self.allowed = allowed


@dataclass(frozen=True)
class RejectionReason:
    """A reason why a mutation was rejected."""

    path: tuple[str, ...]
    """The path to the input field that it is about."""


@dataclass(frozen=True)
class InvalidInput(RejectionReason):
    problem: str
    allowed: str


@dataclass(frozen=True)
class SegmentNotFound(RejectionReason):
    slugs: tuple[str, ...]


@dataclass(frozen=True)
class SegmentAlreadyExists(RejectionReason):
    segment: "SegmentRecord"
    """The segment with this slug."""


@dataclass(frozen=True)
class UserNotFound(RejectionReason):
    user_id: int | None
    """The id; None if the client named the user by a key."""


@dataclass(frozen=True)
class UserAlreadyExists(RejectionReason):
    user: "UserRecord"
    """The existing user."""


@dataclass(frozen=True)
class VersionConflict(RejectionReason):
    expected_version: int
    current: "SegmentRecord"
    """The current state of the segment."""


@dataclass(frozen=True)
class RolloutNotFound(RejectionReason):
    slug: str
    """The slug of the segment without a rollout."""


@dataclass(frozen=True)
class RolloutStateConflict(RejectionReason):
    status: str
    """The rollout's current status, which does not allow the mutation."""


@dataclass(frozen=True)
class ImportNotFound(RejectionReason):
    """No import has the id, or it was removed."""


@dataclass(frozen=True)
class ImportStateConflict(RejectionReason):
    status: str
    """The import's current status, which does not allow the mutation."""


@dataclass(frozen=True)
class ApiKeyNotFound(RejectionReason):
    public_id: str


@dataclass(frozen=True)
class IdempotencyKeyReused(RejectionReason):
    """The idempotency key was sent with another mutation or another input."""


class MutationRejected(SegmentQLError):
    """A mutation was rejected for at least one reason. It changed nothing."""

    def __init__(self, *reasons: RejectionReason) -> None:
        super().__init__(*reasons)
        self.reasons: Sequence[RejectionReason] = reasons


class Unauthenticated(SegmentQLError):
    """The request has no valid API key, so it was not processed."""

    def __init__(self, failure: AuthenticationFailure) -> None:
        super().__init__(failure)
        self.failure = failure


class Unavailable(SegmentQLError):
    """The database is unreachable, rejects connections or does not respond. Nothing was changed."""


class Unresponsive(Unavailable):
    """The database accepted a connection but does not respond, or all connections are in use."""


class OutcomeUnknown(Unavailable):
    """The connection was lost during the commit, so the transaction may be committed or not."""


class IdempotencyKeyInUse(SegmentQLError):
    """A mutation with the same idempotency key is running, and enough requests wait for its end.

    The request changed nothing, and the client can retry it.
    """


class TimedOut(SegmentQLError):
    """A statement was cancelled because it exceeded its time limit. Nothing was changed."""

    source: object = None
    """The loader that ran the statement, if any."""


class HistoryDropped(SegmentQLError):
    """A time is before the beginning of history: older history was dropped."""

    def __init__(self, earliest_at: datetime) -> None:
        self.earliest_at = earliest_at
        earliest = f"{earliest_at.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"
        self.reason = f"the history before {earliest} was dropped"
        self.allowed = f"a time in the past, not before {earliest}"


class CursorExpired(SegmentQLError):
    """The changes after a cursor of the feed are no longer stored.

    The consumer must start again.
    """


class FeedReset(SegmentQLError):
    """The database has lost changes that a consumer of the feed has read. It must start again."""


class ConcurrencyLimitExceeded(SegmentQLError):
    """The process, or the API key, already has its maximum of streams or of consumers."""

    def __init__(self, limit: int, *, is_per_key: bool) -> None:
        super().__init__(limit, is_per_key)
        self.limit = limit
        self.is_per_key = is_per_key
        """Whether the limit is that of one API key. Otherwise it is that of the process."""


class StoreFailed(SegmentQLError):
    """An operation of the object store failed.

    Args:
        reason: a phrase for operators, without addresses, object keys and links.
        code: the store's error code, or "" if it sent none.
    """

    def __init__(self, reason: str, code: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
        self.code = code


class StoreUnavailable(StoreFailed):
    """The object store is unreachable, does not respond or failed. A retry can succeed."""


class ObjectMissing(StoreFailed):
    """The bucket has no file with this key."""


class StoreRejected(StoreFailed):
    """The object store rejected the operation, and will until an operator changes something."""


class BucketMissing(StoreRejected):
    """The bucket does not exist."""


class SchemaMismatch(SegmentQLError):
    """The database's schema does not match this version. `state` and `remedy` are for operators."""

    def __init__(self, state: str, remedy: str) -> None:
        super().__init__(state, remedy)
        self.state = state
        self.remedy = remedy

    def __str__(self) -> str:
        return f"the database is at {self.state}; {self.remedy}"


class SchemaTooNew(SchemaMismatch):
    """A newer version migrated the database.

    Args:
        revision: the database's revision.
        version: this version.
        oldest_compatible: the oldest revision whose code works on the schema, if it is known.
    """

    def __init__(self, revision: str, version: str, oldest_compatible: str | None = None) -> None:
        state = f"revision {revision}, which this version ({version}) does not know"
        if oldest_compatible:
            state += f" and which supports only versions from revision {oldest_compatible}"
        super().__init__(state, "update SegmentQL")


class SchemaTooOld(SchemaMismatch):
    """Migrations are missing. `revision` is None if the database was never migrated."""

    def __init__(self, revision: str | None, version: str, newest: str) -> None:
        state = f"revision {revision}" if revision else "no revision, because it was never migrated"
        super().__init__(
            f"{state}, but this version ({version}) needs {newest}", "run `segmentql migrate`"
        )


class DowngradeRefused(SegmentQLError):
    """A migration cannot be undone, because older versions would return wrong results."""


class SettingsError(SegmentQLError):
    """Settings are missing or invalid. `problems` has one line for each."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__(*problems)
        self.problems = problems

    def __str__(self) -> str:
        return "\n".join(self.problems)


class LocalServerError(SegmentQLError):
    """A local server of `segmentql up` did not start or did not keep running."""
