"""Every error that SegmentQL raises on purpose.

SegmentQLError
 +-- Refused                  a change was refused, for one or more of these reasons:
 |     (Refusal)
 |      +-- InvalidInput
 |      +-- SegmentNotFound
 |      +-- SegmentAlreadyExists
 |      +-- UserNotFound
 |      +-- UserAlreadyExists
 |      +-- VersionConflict
 |      +-- RolloutNotFound
 |      +-- RolloutStateConflict
 |      +-- ApiKeyNotFound
 +-- Unauthenticated          who asks bears no key that lets anybody in
 +-- BadValue                 one value is not what it should be; the edge says which one it was
 +-- Unavailable              the database cannot answer now
 |    +-- NotAnswering        ... it hangs, or all its connections are busy
 |    +-- OutcomeUnknown      ... and whether the change was made cannot be told
 +-- TimedOut                 the database took longer than it may
 +-- StoreFailed              the object store did not do what was asked; `reason` is for people
 |    +-- StoreUnavailable     ... it is away, hangs, or has a fault of its own: later may do
 |    +-- StoreRefused         ... it refused: somebody must change something first
 |         +-- BucketMissing
 +-- SchemaMismatch           the database is at a revision that this version cannot work with
 |    +-- SchemaTooNew         ... it does not know that revision
 |    +-- SchemaTooOld         ... migrations are missing
 +-- SettingsError            the environment does not describe a service that can start
 +-- LocalServerError         `segmentql up` could not start or keep one of its servers

Errors carry fields; sentences are made at the edges.
"""

import enum
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


class AuthenticationFailure(enum.StrEnum):
    """What was wrong with a key, for metrics; callers are not told which of the last three."""

    MISSING = "missing"
    MALFORMED = "malformed"
    UNKNOWN = "unknown"
    WRONG_SECRET = "wrong_secret"  # noqa: S105 - a word, not a secret
    REVOKED = "revoked"


class SegmentQLError(Exception):
    """The root of the tree."""


class BadValue(SegmentQLError):
    """A value breaks its rule: `problem` says what is wrong, `allowed` what would be right."""

    def __init__(self, problem: str, allowed: str) -> None:
        super().__init__(problem, allowed)
        self.problem = problem
        self.allowed = allowed


@dataclass(frozen=True)
class RejectionReason:
    """One reason why a change was refused; `path` leads into the input."""

    path: tuple[str, ...]


@dataclass(frozen=True)
class InvalidInput(RejectionReason):
    problem: str
    allowed: str


@dataclass(frozen=True)
class SegmentNotFound(RejectionReason):
    slugs: tuple[str, ...]


@dataclass(frozen=True)
class SegmentAlreadyExists(RejectionReason):
    segment: Any
    """The row of the segment that bears the slug."""


@dataclass(frozen=True)
class UserNotFound(RejectionReason):
    user_id: int


@dataclass(frozen=True)
class UserAlreadyExists(RejectionReason):
    user: Any
    """The row of the user that is stored already."""


@dataclass(frozen=True)
class VersionConflict(RejectionReason):
    expected_version: int
    current: Any
    """The segment's row as it is now."""


@dataclass(frozen=True)
class RolloutNotFound(RejectionReason):
    slug: str
    """The segment that has none."""


@dataclass(frozen=True)
class RolloutStateConflict(RejectionReason):
    status: str
    """What the rollout is, which does not allow what was asked."""


@dataclass(frozen=True)
class ApiKeyNotFound(RejectionReason):
    public_id: str


class MutationRejected(SegmentQLError):
    """A change was refused and nothing was changed; `reasons` says why, at least one."""

    def __init__(self, *reasons: RejectionReason) -> None:
        super().__init__(*reasons)
        self.reasons: Sequence[RejectionReason] = reasons


class Unauthenticated(SegmentQLError):
    """Who asks bears no key that lets anybody in; nothing of the request was looked at."""

    def __init__(self, failure: "AuthenticationFailure") -> None:
        super().__init__(failure)
        self.failure = failure


class Unavailable(SegmentQLError):
    """The database cannot be reached, refuses connections, or hangs. Nothing was changed."""


class Unresponsive(Unavailable):
    """The database took a connection or a statement and does not answer, or all are waiting."""


class OutcomeUnknown(Unavailable):
    """The connection was lost while committing: the change was made whole, or not at all."""


class TimedOut(SegmentQLError):
    """A statement was cancelled at its time limit. Nothing was changed."""

    source: object = None
    """The loader whose statement it was, if any."""


class StoreFailed(SegmentQLError):
    """The object store did not do what was asked.

    `reason` is a sentence's part for whoever runs the service: no address, no key, no link.
    `code` is the store's own word for it, where it said one.
    """

    def __init__(self, reason: str, code: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
        self.code = code


class StoreUnavailable(StoreFailed):
    """The object store cannot be reached, hangs, or has a fault of its own: later may do."""


class StoreRefused(StoreFailed):
    """The object store refuses, and will until somebody changes something."""


class BucketMissing(StoreRefused):
    """The bucket does not exist."""


class SchemaMismatch(SegmentQLError):
    """The database's schema does not fit this version; `saw` and `do` are for operators."""

    def __init__(self, saw: str, do: str) -> None:
        super().__init__(saw, do)
        self.saw = saw
        self.do = do

    def __str__(self) -> str:
        return f"the database is at {self.saw}; {self.do}"


class SchemaTooNew(SchemaMismatch):
    """A newer version migrated the database."""

    def __init__(self, revision: str, version: str) -> None:
        super().__init__(
            f"revision {revision}, which this version ({version}) does not know", "update SegmentQL"
        )


class SchemaTooOld(SchemaMismatch):
    """Migrations are missing; `revision` is None if all of them are."""

    def __init__(self, revision: str | None, version: str, newest: str) -> None:
        saw = f"revision {revision}" if revision else "no revision, because it was never migrated"
        super().__init__(
            f"{saw}, but this version ({version}) needs {newest}", "run `segmentql migrate`"
        )


class SettingsError(SegmentQLError):
    """Settings are missing or wrong; `problems` has one line for each of them."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__(*problems)
        self.problems = problems

    def __str__(self) -> str:
        return "\n".join(self.problems)


class LocalServerError(SegmentQLError):
    """A server that `segmentql up` runs on this machine did not start or did not stay up."""
