"""Records of imports."""

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from segmentql.audit.records import AuditState
from segmentql.imports.file_format import ListFormat
from segmentql.memberships.records import OnExcluded, OnExisting, OutcomeCount
from segmentql.segments.records import SegmentRecord
from segmentql.tables import ImportStatus, RowOutcome


class ImportMode(enum.StrEnum):
    """What an import does with the users of its list."""

    ADD = "ADD"
    REMOVE = "REMOVE"
    REPLACE = "REPLACE"


class OnUnknownUser(enum.StrEnum):
    """What an import does with a listed user who is not stored."""

    STORE = "STORE"
    SKIP = "SKIP"


@dataclass(frozen=True, slots=True)
class ImportOptions:
    """How an import reads and applies its list. `CreateImportInput` describes the fields."""

    list_format: ListFormat
    ttl: timedelta | None
    expires_at: datetime | None
    on_existing: OnExisting
    on_excluded: OnExcluded
    on_unknown_user: OnUnknownUser
    exclude: bool
    max_rejected: int
    max_removed_percent: float
    allow_empty: bool
    dry_run: bool


@dataclass(frozen=True, slots=True)
class UploadSource:
    """A file that the caller uploads."""

    file_name: str | None
    size_bytes: int
    sha256: str | None
    """The expected SHA-256 in lowercase hexadecimal digits."""


@dataclass(frozen=True, slots=True)
class SegmentAlgebra:
    """A list of users that is computed from the members of segments, by the segments' ids."""

    any_of: Sequence[int] | None
    all_of: Sequence[int] | None
    none_of: Sequence[int] | None
    as_of: datetime | None


@dataclass(frozen=True, slots=True)
class RejectionRecord:
    """A row that was rejected."""

    line: int
    value: str
    reason: RowOutcome
    message: str


REJECTED: Final = (RowOutcome.MALFORMED, RowOutcome.OUT_OF_RANGE)
"""The outcomes of rejected rows."""

FINISHED: Final = frozenset(
    {ImportStatus.COMPLETED, ImportStatus.REFUSED, ImportStatus.FAILED, ImportStatus.CANCELLED}
)


@dataclass(frozen=True, slots=True)
class ImportRecord:
    """An import, finished or not."""

    import_id: int
    segment: SegmentRecord
    status: ImportStatus
    mode: ImportMode
    options: ImportOptions
    source: UploadSource | SegmentAlgebra
    actor: str | None
    api_key_id: str | None
    created_at: datetime
    finished_at: datetime | None
    deadline_at: datetime | None
    failure: str | None
    upload_key: str | None
    file_key: str | None
    result_key: str | None
    filtered_keys: Mapping[str, str]
    rows: int | None
    """The number of rows of the list; None until it is read."""
    listed_users: int
    """The number of different users in the list."""
    total_users: int
    """The number of users to apply: those of the list, then the planned removals."""
    applied_users: int
    removals: int | None
    """The forecast of the removals; of a finished import, their number."""
    removed_users: int
    """The number of members that the import has removed so far."""
    allowed_removals: int | None
    """The maximum number of removals; None if no client has set it and it is not known yet."""
    count_by_outcome: Mapping[RowOutcome, int]
    rejected_rows: Sequence[RejectionRecord]
    """The first rejected rows."""

    @property
    def global_id(self) -> str:
        """The opaque id by which clients know the import."""
        return import_global_id(self.import_id)

    @property
    def counts(self) -> list[OutcomeCount]:
        """The numbers of rows by outcome, without zeros, in the order of the enum."""
        return [
            OutcomeCount(outcome, count)
            for outcome in RowOutcome
            if (count := self.count_by_outcome.get(outcome, 0))
        ]

    @property
    def progress(self) -> float:
        """The share of the users that were applied, 0 to 1; 1 when the import is finished."""
        if self.status in FINISHED:
            return 1.0
        return self.applied_users / self.total_users if self.total_users else 0.0

    @property
    def audit_state(self) -> AuditState:
        """The state for the audit log."""
        return {
            "slug": self.segment.slug,
            "mode": self.mode,
            "status": self.status,
            "rows": self.rows,
            "removals": self.removals,
            "counts": {item.outcome.value: item.count for item in self.counts},
        }


def import_global_id(import_id: int) -> str:
    """Return the opaque id by which clients know an import."""
    return f"imp_{import_id}"
