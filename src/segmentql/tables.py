"""All tables. A test compares them with the migrations in `alembic/versions`.

The triggers that write `history` and the functions that create its partitions are defined in the
migrations only, because SQLAlchemy does not model them. `docs/database.md` describes them.
"""

import enum
from datetime import datetime
from decimal import Decimal
from typing import Annotated

from sqlalchemy import (
    ARRAY,
    BigInteger,
    CheckConstraint,
    Enum,
    ForeignKey,
    Identity,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Numeric,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB, TIMESTAMP
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

SLUG_TEXT = Text(collation="C")
USER_KEY_TEXT = Text(collation="C")
TIMESTAMPTZ = TIMESTAMP(timezone=True)

Timestamp = Annotated[datetime, mapped_column(TIMESTAMPTZ)]
UserId = Annotated[int, mapped_column(BigInteger)]


class Operation(enum.StrEnum):
    """The operation of a history entry. PostgreSQL sorts leaves before joins, in this order."""

    LEFT = "LEFT"
    JOINED = "JOINED"


class Cause(enum.StrEnum):
    """The cause of a join or a leave."""

    MANUAL = "MANUAL"
    ROLLOUT = "ROLLOUT"
    TTL = "TTL"
    SEGMENT_DELETED = "SEGMENT_DELETED"
    USER_DELETED = "USER_DELETED"


class ExclusionOperation(enum.StrEnum):
    """The operation of an entry of the exclusion log."""

    EXCLUDED = "EXCLUDED"
    ADMITTED = "ADMITTED"


class RolloutState(enum.StrEnum):
    """The stored state of a rollout. Its progress follows from its schedule and the time."""

    ACTIVE = "ACTIVE"
    PAUSED = "PAUSED"
    WITHDRAWING = "WITHDRAWING"
    CANCELLED = "CANCELLED"
    FAILED = "FAILED"


class PassPhase(enum.StrEnum):
    """The phase of a rollout's current pass."""

    DUE = "DUE"
    SAMPLING = "SAMPLING"
    WORKING = "WORKING"
    DONE = "DONE"


class RolloutEvent(enum.StrEnum):
    """The decision or the failure that an entry of the rollout log records."""

    RECORDED = "RECORDED"
    """The plan that existed when the log began. It is not known when it was set."""
    SET = "SET"
    PAUSED = "PAUSED"
    RESUMED = "RESUMED"
    CANCELLED = "CANCELLED"
    FAILED = "FAILED"


class Role(enum.StrEnum):
    """The role of an API key. Each role includes the permissions of the roles before it."""

    READER = "READER"
    EDITOR = "EDITOR"
    ADMIN = "ADMIN"


class ReportStatus(enum.StrEnum):
    """The status of a report."""

    QUEUED = "QUEUED"
    RUNNING = "RUNNING"
    READY = "READY"
    FAILED = "FAILED"


OPERATION = Enum(Operation, name="operation")
CAUSE = Enum(Cause, name="cause")
EXCLUSION_OPERATION = Enum(ExclusionOperation, name="exclusion_operation")
ROLLOUT_STATE = Enum(RolloutState, name="rollout_state")
ROLLOUT_EVENT = Enum(RolloutEvent, name="rollout_event")
PASS_PHASE = Enum(PassPhase, name="pass_phase")
REPORT_STATUS = Enum(ReportStatus, name="report_status")
KEY_ROLE = Enum(Role, name="key_role")
PERCENT = Numeric(6, 3)


class Base(DeclarativeBase):
    metadata = MetaData(
        naming_convention={
            "pk": "pk_%(table_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "uq": "uq_%(table_name)s_%(column_0_name)s",
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        }
    )


class UserRow(Base):
    """A stored user."""

    __tablename__ = "users"
    __table_args__ = (
        CheckConstraint("id > 0", name="id_positive"),
        CheckConstraint(
            "length(key) BETWEEN 1 AND 255 AND key !~ '[\\u0001-\\u001f\\u007f-\\u009f]'",
            name="key_form",
        ),
        Index("uq_users_key", "key", unique=True, postgresql_where=text("key IS NOT NULL")),
    )

    id: Mapped[UserId] = mapped_column(primary_key=True, autoincrement=False)
    created_at: Mapped[Timestamp]
    insert_seq: Mapped[int] = mapped_column(BigInteger, Identity(always=True))
    """A sequence number in order of insertion. A rollout pass covers the users up to a number."""

    created_by: Mapped[str | None] = mapped_column(Text)
    created_by_api_key_id: Mapped[str | None] = mapped_column(Text)
    key: Mapped[str | None] = mapped_column(USER_KEY_TEXT)
    """The client's own name of the user. It is compared byte by byte and set at most once."""


class UserLifetimeRow(Base):
    """The time from the storing of a user to the deletion. A trigger writes it at the deletion."""

    __tablename__ = "user_lifetimes"
    __table_args__ = (
        # for the deletion of a key
        Index(None, "key", postgresql_where=text("key IS NOT NULL")),
    )

    user_id: Mapped[UserId] = mapped_column(primary_key=True, autoincrement=False)
    id: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    insert_seq: Mapped[int] = mapped_column(BigInteger)
    created_at: Mapped[Timestamp]
    created_by: Mapped[str | None] = mapped_column(Text)
    created_by_api_key_id: Mapped[str | None] = mapped_column(Text)
    deleted_at: Mapped[Timestamp]
    deleted_by: Mapped[str | None] = mapped_column(Text)
    deleted_by_api_key_id: Mapped[str | None] = mapped_column(Text)
    key: Mapped[str | None] = mapped_column(USER_KEY_TEXT)
    """The key that the user had. Null if it had none, or if the key was erased."""


class DeletedUserRow(Base):
    """The id of a deleted user. `createUser` never allocates it again."""

    __tablename__ = "deleted_users"

    id: Mapped[UserId] = mapped_column(primary_key=True, autoincrement=False)
    deleted_at: Mapped[Timestamp]


class IdAllocatorRow(Base):
    """The last id that `createUser` allocated. The only row of the table; allocations lock it."""

    __tablename__ = "id_allocator"
    __table_args__ = (CheckConstraint("only", name="only_row"),)

    only: Mapped[bool] = mapped_column(primary_key=True, server_default=text("true"))
    user_id: Mapped[UserId]


class SegmentRow(Base):
    """A segment. The row remains after deletion, because history shows its slug."""

    __tablename__ = "segments"
    __table_args__ = (
        CheckConstraint("slug ~ '^[A-Za-z0-9][A-Za-z0-9_.-]{0,254}$'", name="slug_form"),
        CheckConstraint("length(name) BETWEEN 1 AND 255", name="name_length"),
        CheckConstraint("length(description) <= 4096", name="description_length"),
        CheckConstraint("version >= 1", name="version_positive"),
        CheckConstraint(
            "leaves_recorded_at IS NULL OR deleted_at IS NOT NULL",
            name="leaves_recorded_when_deleted",
        ),
        # For `segment(slug:)` and `segments`. Only one existing segment can have a slug.
        Index(
            "uq_segments_slug_live",
            "slug",
            unique=True,
            postgresql_where=text("deleted_at IS NULL"),
        ),
        # For history by slug and for `segments(includeDeleted: true)`.
        Index(None, "slug", "id"),
        Index(  # for `segments(search:)`
            "ix_segments_search",
            text("segment_search_vector(slug, name)"),
            postgresql_using="gin",
            postgresql_with={"fastupdate": "off"},
        ),
        Index(  # deleted segments with unrecorded leaves
            "ix_segments_unrecorded",
            "id",
            postgresql_where=text("deleted_at IS NOT NULL AND leaves_recorded_at IS NULL"),
        ),
    )

    id: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    slug: Mapped[str] = mapped_column(SLUG_TEXT)
    name: Mapped[str | None] = mapped_column(Text)
    description: Mapped[str | None] = mapped_column(Text)
    version: Mapped[int] = mapped_column(Integer, server_default=text("1"))
    created_at: Mapped[Timestamp]
    updated_at: Mapped[Timestamp]
    deleted_at: Mapped[Timestamp | None]
    created_by: Mapped[str | None] = mapped_column(Text)
    updated_by: Mapped[str | None] = mapped_column(Text)
    deleted_by: Mapped[str | None] = mapped_column(Text)
    deleted_by_api_key_id: Mapped[str | None] = mapped_column(Text)
    leaves_recorded_at: Mapped[Timestamp | None]


class MembershipRow(Base):
    """The membership of a user in a segment. Rejoining creates a row with a new `id`."""

    __tablename__ = "memberships"
    __table_args__ = (
        CheckConstraint("expires_at > joined_at", name="expires_after_join"),
        # For `members`, `memberCount` (index-only scan) and the leaves of a deleted segment.
        Index(None, "segment_id", "user_id", postgresql_include=["expires_at", "cause"]),
        # For expired memberships, in the order of history.
        Index(None, "expires_at", "user_id", postgresql_where=text("expires_at IS NOT NULL")),
    )

    user_id: Mapped[UserId] = mapped_column(ForeignKey("users.id"), primary_key=True)
    segment_id: Mapped[int] = mapped_column(BigInteger, ForeignKey("segments.id"), primary_key=True)
    id: Mapped[int] = mapped_column(BigInteger, Identity())
    joined_at: Mapped[Timestamp]
    updated_at: Mapped[Timestamp]
    expires_at: Mapped[Timestamp | None]
    cause: Mapped[Cause] = mapped_column(CAUSE)
    actor: Mapped[str | None] = mapped_column(Text)
    """The name of the API key that caused the join."""

    api_key_id: Mapped[str | None] = mapped_column(Text)
    """The public id of that API key."""

    import_id: Mapped[int | None] = mapped_column(BigInteger)


class ExclusionRow(Base):
    """A user that was removed from a segment manually. Rollouts do not add the user again."""

    __tablename__ = "exclusions"
    __table_args__ = (Index(None, "segment_id", "user_id"),)

    user_id: Mapped[UserId] = mapped_column(ForeignKey("users.id"), primary_key=True)
    segment_id: Mapped[int] = mapped_column(BigInteger, ForeignKey("segments.id"), primary_key=True)
    excluded_at: Mapped[Timestamp]
    actor: Mapped[str | None] = mapped_column(Text)
    api_key_id: Mapped[str | None] = mapped_column(Text)
    import_id: Mapped[int | None] = mapped_column(BigInteger)


class ExclusionLogRow(Base):
    """An exclusion or an admission of a user. Only triggers write it.

    It has no entry when the user or the segment is deleted, which ends the exclusion.
    """

    __tablename__ = "exclusion_log"

    user_id: Mapped[UserId] = mapped_column(primary_key=True, autoincrement=False)
    segment_id: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    id: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    at: Mapped[Timestamp]
    operation: Mapped[ExclusionOperation] = mapped_column(EXCLUSION_OPERATION)
    actor: Mapped[str | None] = mapped_column(Text)
    api_key_id: Mapped[str | None] = mapped_column(Text)
    import_id: Mapped[int | None] = mapped_column(BigInteger)


class RolloutRow(Base):
    """The rollout of a segment, with the state of its current pass, which workers execute.

    The row is the outbox of its jobs: if a message is lost, the scheduler finds the work here.
    """

    __tablename__ = "rollouts"
    __table_args__ = (
        CheckConstraint(
            "state = 'FAILED' OR"
            " (paused_at IS NOT NULL) = (state IN ('PAUSED', 'WITHDRAWING', 'CANCELLED'))",
            name="paused_when_stopped",
        ),
        CheckConstraint("(failure IS NOT NULL) = (state = 'FAILED')", name="failure_when_failed"),
        Index(  # for the scheduler
            "ix_rollouts_unfinished",
            "segment_id",
            postgresql_where=text("state IN ('ACTIVE', 'WITHDRAWING') AND finished_at IS NULL"),
        ),
        Index(  # read whenever a user is inserted
            "ix_rollouts_enrolling",
            "segment_id",
            postgresql_where=text("enroll_new_users AND state IN ('ACTIVE', 'PAUSED', 'FAILED')"),
        ),
    )

    segment_id: Mapped[int] = mapped_column(
        BigInteger, ForeignKey("segments.id"), primary_key=True, autoincrement=False
    )
    state: Mapped[RolloutState] = mapped_column(ROLLOUT_STATE)
    enroll_new_users: Mapped[bool]
    expires_at: Mapped[Timestamp | None]
    actor: Mapped[str | None] = mapped_column(Text)
    api_key_id: Mapped[str | None] = mapped_column(Text)
    paused_at: Mapped[Timestamp | None]
    """The time of the pause or the cancellation, at which the schedule is frozen.

    In state FAILED, it means that the rollout failed while withdrawing.
    """

    started_at: Mapped[Timestamp | None]
    finished_at: Mapped[Timestamp | None]
    failure: Mapped[str | None] = mapped_column(Text)
    failures: Mapped[int] = mapped_column(Integer, server_default=text("0"))
    """The number of attempts that failed since the last progress."""

    max_percent: Mapped[Decimal] = mapped_column(PERCENT)
    """The highest percent of a pass by which a current member may have joined. A pass that is not
    above it removes members."""

    pass_number: Mapped[int] = mapped_column(BigInteger)
    """The number of the current pass. A worker stops if its pass is no longer the current one."""

    phase: Mapped[PassPhase] = mapped_column(PASS_PHASE)
    stage: Mapped[int] = mapped_column(Integer)
    """The stage of the pass: 0 before the first stage, -1 before the plan's first pass."""

    percent: Mapped[Decimal] = mapped_column(PERCENT)
    removes_members: Mapped[bool]
    last_insert_seq: Mapped[int] = mapped_column(BigInteger)
    bound_hash: Mapped[int] = mapped_column(BigInteger)
    bound_user_id: Mapped[UserId]
    cursor_user_id: Mapped[UserId]
    users_total: Mapped[int] = mapped_column(BigInteger)
    users_seen: Mapped[int] = mapped_column(BigInteger)
    heartbeat_at: Mapped[Timestamp]


class RolloutStageRow(Base):
    """A stage of a rollout plan. Stages are numbered from 1 in order of their start."""

    __tablename__ = "rollout_stages"
    __table_args__ = (
        CheckConstraint("number BETWEEN 1 AND 50", name="number_range"),
        CheckConstraint("percent BETWEEN 0 AND 100", name="percent_range"),
    )

    segment_id: Mapped[int] = mapped_column(
        BigInteger, ForeignKey("rollouts.segment_id"), primary_key=True, autoincrement=False
    )
    number: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    percent: Mapped[Decimal] = mapped_column(PERCENT)
    starts_at: Mapped[Timestamp]
    done_at: Mapped[Timestamp | None]


class RolloutEventRow(Base):
    """A plan that was set, a pause, a resumption, a cancellation or a failure. Never changed.

    The columns from `state` on are the rollout and its plan as they are after the event.
    """

    __tablename__ = "rollout_events"

    segment_id: Mapped[int] = mapped_column(
        BigInteger, ForeignKey("segments.id"), primary_key=True, autoincrement=False
    )
    id: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    at: Mapped[Timestamp]
    event: Mapped[RolloutEvent] = mapped_column(ROLLOUT_EVENT)
    actor: Mapped[str | None] = mapped_column(Text)
    api_key_id: Mapped[str | None] = mapped_column(Text)
    state: Mapped[RolloutState] = mapped_column(ROLLOUT_STATE)
    enroll_new_users: Mapped[bool]
    expires_at: Mapped[Timestamp | None]
    paused_at: Mapped[Timestamp | None]
    failure: Mapped[str | None] = mapped_column(Text)
    percents: Mapped[list[Decimal]] = mapped_column(ARRAY(PERCENT))
    start_times: Mapped[list[datetime]] = mapped_column(ARRAY(TIMESTAMPTZ))


class RolloutPassRow(Base):
    """A pass of a rollout. The row stays after the pass, which `rollouts` overwrites."""

    __tablename__ = "rollout_passes"
    __table_args__ = (
        CheckConstraint(
            "num_nulls(sampled_at, last_insert_seq, bound_hash, bound_user_id, users_total)"
            " IN (0, 5)",
            name="sample_complete",
        ),
        CheckConstraint(
            "finished_at IS NULL OR sampled_at IS NOT NULL", name="finished_after_sampled"
        ),
    )

    segment_id: Mapped[int] = mapped_column(
        BigInteger, ForeignKey("segments.id"), primary_key=True, autoincrement=False
    )
    pass_number: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    stage: Mapped[int] = mapped_column(Integer)
    percent: Mapped[Decimal] = mapped_column(PERCENT)
    removes_members: Mapped[bool]
    is_withdrawal: Mapped[bool]
    started_at: Mapped[Timestamp]
    sampled_at: Mapped[Timestamp | None]
    last_insert_seq: Mapped[int | None] = mapped_column(BigInteger)
    bound_hash: Mapped[int | None] = mapped_column(BigInteger)
    bound_user_id: Mapped[int | None] = mapped_column(BigInteger)
    users_total: Mapped[int | None] = mapped_column(BigInteger)
    finished_at: Mapped[Timestamp | None]
    """Null if the pass has not finished, or if another pass replaced it."""


class HistoryRow(Base):
    """A join or a leave. Only triggers write it. Partitioned by the month of `at` in UTC.

    There are no foreign keys, because history outlives users. A membership has exactly one join and
    at most one leave.
    """

    __tablename__ = "history"
    __table_args__ = (
        Index(None, "at", "user_id"),
        Index(None, "segment_id", "at", "user_id"),
        Index(None, "position"),  # for readers that follow the changes
        {"postgresql_partition_by": "RANGE (at)"},
    )

    user_id: Mapped[UserId] = mapped_column(primary_key=True, autoincrement=False)
    at: Mapped[Timestamp] = mapped_column(primary_key=True)
    segment_id: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    operation: Mapped[Operation] = mapped_column(OPERATION, primary_key=True)
    membership_id: Mapped[int] = mapped_column(BigInteger)
    cause: Mapped[Cause] = mapped_column(CAUSE)
    actor: Mapped[str | None] = mapped_column(Text)
    recorded_at: Mapped[Timestamp]
    api_key_id: Mapped[str | None] = mapped_column(Text)
    import_id: Mapped[int | None] = mapped_column(BigInteger)
    position: Mapped[int] = mapped_column(BigInteger)
    """The position in the order of recording, with gaps. The trigger takes it from a sequence.

    It is unique. A constraint cannot say so, because it would need the partition key.
    """


class MemberCountHourRow(Base):
    """The number of joins and leaves of a segment in an hour, without those after the roll-up.

    The hour `-infinity` has the joins of partitions of history that were dropped before the table
    existed.
    """

    __tablename__ = "member_count_hours"

    segment_id: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    hour: Mapped[Timestamp] = mapped_column(primary_key=True)
    """The start of the hour, in UTC."""

    joins: Mapped[int] = mapped_column(BigInteger)
    leaves: Mapped[int] = mapped_column(BigInteger)
    has_seconds: Mapped[bool]
    """Whether `member_count_seconds` has the hour as well, because it has many joins or leaves."""


class MemberCountSecondRow(Base):
    """The number of joins and leaves of a segment in a second of an hour that has many."""

    __tablename__ = "member_count_seconds"

    segment_id: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    second: Mapped[Timestamp] = mapped_column(primary_key=True)
    joins: Mapped[int] = mapped_column(BigInteger)
    leaves: Mapped[int] = mapped_column(BigInteger)


class MemberCountRollupRow(Base):
    """The position of history up to which the sums of member counts include it. The only row."""

    __tablename__ = "member_count_rollup"
    __table_args__ = (CheckConstraint("only", name="only_row"),)

    only: Mapped[bool] = mapped_column(primary_key=True, server_default=text("true"))
    position: Mapped[int] = mapped_column(BigInteger)


class ReportRow(Base):
    """A report: a month of history as a file. No foreign key, because users can be deleted."""

    __tablename__ = "reports"
    __table_args__ = (
        CheckConstraint("month BETWEEN 1 AND 12", name="month_range"),
        CheckConstraint(
            "(finished_at IS NOT NULL) = (status IN ('READY', 'FAILED'))",
            name="finished_when_over",
        ),
        CheckConstraint("(failure IS NOT NULL) = (status = 'FAILED')", name="failure_when_failed"),
        Index(None, "user_id", "id"),
        Index(None, "created_at"),  # for the removal of old reports
        Index(  # for the scheduler
            "ix_reports_unfinished",
            "next_attempt_at",
            postgresql_where=text("status IN ('QUEUED', 'RUNNING')"),
        ),
    )

    id: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    user_id: Mapped[int | None] = mapped_column(BigInteger)
    year: Mapped[int]
    month: Mapped[int]
    status: Mapped[ReportStatus] = mapped_column(REPORT_STATUS)
    row_count: Mapped[int | None] = mapped_column(BigInteger)
    size_bytes: Mapped[int | None] = mapped_column(BigInteger)
    created_at: Mapped[Timestamp]
    finished_at: Mapped[Timestamp | None]
    failure: Mapped[str | None] = mapped_column(Text)
    attempts: Mapped[int] = mapped_column(Integer, server_default=text("0"))
    object_key: Mapped[str | None] = mapped_column(Text)
    next_attempt_at: Mapped[Timestamp]
    """The time of the next attempt. While a worker makes the report, the end of its lease."""

    actor: Mapped[str | None] = mapped_column(Text)
    with_keys: Mapped[bool] = mapped_column(server_default=text("false"))
    """Whether the file has the users' keys."""

    remade_at: Mapped[Timestamp | None]
    """The time of the first erasure of a key since the file was ready. Null if there was none."""


class ObjectToDeleteRow(Base):
    """An object of the store that workers delete, because no row refers to it.

    It is a replaced or removed file, or an upload that no transaction has kept yet.
    """

    __tablename__ = "objects_to_delete"
    __table_args__ = (Index(None, "next_attempt_at"),)  # for the scheduler

    object_key: Mapped[str] = mapped_column(Text, primary_key=True)
    delete_after: Mapped[Timestamp]
    """The time from which the object should not exist."""

    written_until: Mapped[Timestamp]
    """The time until which the object may still be written. A deletion before it is repeated."""

    attempts: Mapped[int] = mapped_column(Integer, server_default=text("0"))
    """The number of deletions that workers began. From the first on, the object cannot be kept."""

    next_attempt_at: Mapped[Timestamp]


class ApiKeyRow(Base):
    """An API key. Only a hash of its secret is stored. The row remains after revocation."""

    __tablename__ = "api_keys"
    __table_args__ = (
        UniqueConstraint("public_id"),
        CheckConstraint("public_id ~ '^[a-z0-9]{12}$'", name="public_id_form"),
        CheckConstraint("length(name) BETWEEN 1 AND 255", name="name_length"),
        CheckConstraint("length(secret_hash) = 32", name="secret_hash_length"),
    )

    number: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    public_id: Mapped[str] = mapped_column(Text(collation="C"))
    """The part of the key that is not secret and may be logged."""

    name: Mapped[str] = mapped_column(Text)
    role: Mapped[Role] = mapped_column(KEY_ROLE)
    secret_hash: Mapped[bytes] = mapped_column(LargeBinary)
    """SHA-256 of the secret. A slower hash is not needed: 256 random bits cannot be guessed."""

    created_at: Mapped[Timestamp]
    created_by: Mapped[str | None] = mapped_column(Text)
    revoked_at: Mapped[Timestamp | None]
    revoked_by: Mapped[str | None] = mapped_column(Text)
    last_used_at: Mapped[Timestamp | None]


class AuditRow(Base):
    """A change of a segment, a rollout or a key, or a request for a report. Never changed."""

    __tablename__ = "audit_log"
    __table_args__ = (
        CheckConstraint("jsonb_typeof(before) = 'object'", name="before_object"),
        CheckConstraint("jsonb_typeof(after) = 'object'", name="after_object"),
        # For `auditLog`: all entries, and those of an actor or a segment.
        Index(None, "at", "id"),
        Index(None, "actor", "at", "id"),
        Index(None, "segment_id", "at", "id"),
        # For the role EDITOR, which sees only the entries of segments.
        Index(
            "ix_audit_log_of_segments",
            "at",
            "id",
            postgresql_where=text("segment_id IS NOT NULL"),
        ),
        Index(
            "ix_audit_log_actor_of_segments",
            "actor",
            "at",
            "id",
            postgresql_where=text("segment_id IS NOT NULL"),
        ),
    )

    id: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    at: Mapped[Timestamp] = mapped_column(server_default=text("clock_timestamp()"))
    actor: Mapped[str | None] = mapped_column(Text)
    """The name of the API key. Null for commands and workers."""

    api_key_id: Mapped[str | None] = mapped_column(Text)
    request_id: Mapped[str | None] = mapped_column(Text)
    action: Mapped[str] = mapped_column(Text)
    target: Mapped[str] = mapped_column(Text)
    """The id by which clients know the changed object."""

    segment_id: Mapped[int | None] = mapped_column(BigInteger)
    """The segment of the target. Null for keys and reports."""

    before: Mapped[dict[str, object] | None] = mapped_column(JSONB)
    after: Mapped[dict[str, object] | None] = mapped_column(JSONB)


class LeaseRow(Base):
    """A lease, which makes one process at a time responsible for a task."""

    __tablename__ = "leases"

    name: Mapped[str] = mapped_column(Text, primary_key=True)
    holder: Mapped[str] = mapped_column(Text)
    expires_at: Mapped[Timestamp]
