"""Records of the audit log."""

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import TypeAlias

AuditValue: TypeAlias = (
    "str | int | Decimal | bool | datetime | Sequence[AuditValue] | Mapping[str, AuditValue] | None"
)
AuditState: TypeAlias = Mapping[str, AuditValue]
"""The state of a target before or after a change, by field. It never has a secret."""


class AuditAction(enum.StrEnum):
    """The action of an audit entry. `docs/audit-log.md` describes each."""

    SEGMENT_CREATED = "segment.created"
    SEGMENT_UPDATED = "segment.updated"
    SEGMENT_DELETED = "segment.deleted"
    ROLLOUT_SET = "rollout.set"
    ROLLOUT_PAUSED = "rollout.paused"
    ROLLOUT_RESUMED = "rollout.resumed"
    ROLLOUT_CANCELLED = "rollout.cancelled"
    ROLLOUT_FAILED = "rollout.failed"
    API_KEY_CREATED = "api_key.created"
    API_KEY_REVOKED = "api_key.revoked"
    DOCUMENTS_PUSHED = "documents.pushed"
    REPORT_REQUESTED = "report.requested"
    EXPORT_REQUESTED = "export.requested"
    IMPORT_CREATED = "import.created"
    IMPORT_STARTED = "import.started"
    IMPORT_APPLIED = "import.applied"
    IMPORT_HELD = "import.held"
    IMPORT_COMPLETED = "import.completed"
    IMPORT_REFUSED = "import.refused"
    IMPORT_FAILED = "import.failed"
    IMPORT_CANCELLED = "import.cancelled"


@dataclass(frozen=True, slots=True)
class AuditEntryRecord:
    """An entry of the audit log."""

    entry_id: int
    at: datetime
    actor: str | None
    """The name of the API key. None for commands, for workers, and if authentication is off."""
    action: str
    target: str
    """The id by which clients know the changed object."""
    before: str | None
    """The state before the change, as JSON."""
    after: str | None
    """The state after the change, as JSON."""
    request_id: str | None


@dataclass(frozen=True, slots=True)
class AuditPosition:
    """The sort key of an entry. The log is sorted by it, newest first."""

    at: datetime
    entry_id: int


@dataclass(frozen=True, slots=True)
class AuditPage:
    """A page of the log: up to `rows` entries that follow `after` and match the filters."""

    rows: int
    segments_only: bool
    """Whether the page has only entries of segments, with their rollouts, imports and exports."""
    after: AuditPosition | None = None
    """The position that the page follows; None for the first page."""
    since: datetime | None = None
    """The earliest time, inclusive."""
    until: datetime | None = None
    """The latest time, exclusive."""
    actor: str | None = None
    slug: str | None = None
    """The slug of the entries' segments. Deleted segments with this slug count as well."""
