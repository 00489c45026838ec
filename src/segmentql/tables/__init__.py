"""All tables, one module for each feature. A test compares them with `alembic/versions`.

The triggers that write `history` and the functions that create its partitions are defined in the
migrations only, because SQLAlchemy does not model them. `docs/database.md` describes them.
Import the tables from this package. A table that is missing here is missing in the metadata.
"""

from segmentql.tables.audit import AuditRow
from segmentql.tables.columns import SLUG_TEXT, TIMESTAMPTZ, USER_KEY_TEXT, Base, Timestamp, UserId
from segmentql.tables.compatibility import SchemaCompatibilityRow
from segmentql.tables.documents import DocumentRow
from segmentql.tables.exports import ExportRow
from segmentql.tables.history import (
    CAUSE,
    OPERATION,
    Cause,
    DroppedHistoryRow,
    HistoryRow,
    MemberCountHourRow,
    MemberCountRollupRow,
    MemberCountSecondRow,
    Operation,
)
from segmentql.tables.idempotency import IdempotencyKeyRow
from segmentql.tables.imports import (
    IMPORT_STATUS,
    ROW_OUTCOME,
    ImportListRow,
    ImportRow,
    ImportStatus,
    ImportUserRow,
    RowOutcome,
)
from segmentql.tables.keys import KEY_ROLE, ApiKeyRow, Role
from segmentql.tables.leases import LeaseRow
from segmentql.tables.memberships import (
    EXCLUSION_OPERATION,
    ExclusionLogRow,
    ExclusionOperation,
    ExclusionRow,
    MembershipRow,
)
from segmentql.tables.objects import ObjectToDeleteRow
from segmentql.tables.reports import REPORT_STATUS, ReportRow, ReportStatus
from segmentql.tables.rollouts import (
    PASS_PHASE,
    PERCENT,
    ROLLOUT_EVENT,
    ROLLOUT_STATE,
    PassPhase,
    RolloutEvent,
    RolloutEventRow,
    RolloutPassRow,
    RolloutRow,
    RolloutStageRow,
    RolloutState,
)
from segmentql.tables.segments import SegmentRow
from segmentql.tables.users import DeletedUserRow, IdAllocatorRow, UserLifetimeRow, UserRow

__all__ = [
    "CAUSE",
    "EXCLUSION_OPERATION",
    "IMPORT_STATUS",
    "KEY_ROLE",
    "OPERATION",
    "PASS_PHASE",
    "PERCENT",
    "REPORT_STATUS",
    "ROLLOUT_EVENT",
    "ROLLOUT_STATE",
    "ROW_OUTCOME",
    "SLUG_TEXT",
    "TIMESTAMPTZ",
    "USER_KEY_TEXT",
    "ApiKeyRow",
    "AuditRow",
    "Base",
    "Cause",
    "DeletedUserRow",
    "DocumentRow",
    "DroppedHistoryRow",
    "ExclusionLogRow",
    "ExclusionOperation",
    "ExclusionRow",
    "ExportRow",
    "HistoryRow",
    "IdAllocatorRow",
    "IdempotencyKeyRow",
    "ImportListRow",
    "ImportRow",
    "ImportStatus",
    "ImportUserRow",
    "LeaseRow",
    "MemberCountHourRow",
    "MemberCountRollupRow",
    "MemberCountSecondRow",
    "MembershipRow",
    "ObjectToDeleteRow",
    "Operation",
    "PassPhase",
    "ReportRow",
    "ReportStatus",
    "Role",
    "RolloutEvent",
    "RolloutEventRow",
    "RolloutPassRow",
    "RolloutRow",
    "RolloutStageRow",
    "RolloutState",
    "RowOutcome",
    "SchemaCompatibilityRow",
    "SegmentRow",
    "Timestamp",
    "UserId",
    "UserLifetimeRow",
    "UserRow",
]
