"""Every table, as `alembic/versions` makes it; a test holds the two equal.

The triggers that write `history`, and the functions that make its partitions, are in the
migrations and in `docs/database.md`: SQLAlchemy does not see them.
"""

import enum
from datetime import datetime
from decimal import Decimal
from typing import Annotated

from sqlalchemy import (
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
from sqlalchemy.dialects.postgresql import TIMESTAMP
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

SLUG = Text(collation="C")
MOMENT = TIMESTAMP(timezone=True)

Moment = Annotated[datetime, mapped_column(MOMENT)]
UserId = Annotated[int, mapped_column(BigInteger)]


class Operation(enum.StrEnum):
    """What history records. The database sorts them in this order: leaves before joins."""

    LEFT = "LEFT"
    JOINED = "JOINED"


class Cause(enum.StrEnum):
    """Why a membership began or ended."""

    MANUAL = "MANUAL"
    ROLLOUT = "ROLLOUT"
    TTL = "TTL"
    SEGMENT_DELETED = "SEGMENT_DELETED"
    USER_DELETED = "USER_DELETED"


class RolloutState(enum.StrEnum):
    """What people made of a rollout; how far it is, the schedule and the clock say."""

    ACTIVE = "ACTIVE"
    PAUSED = "PAUSED"
    WITHDRAWING = "WITHDRAWING"
    CANCELLED = "CANCELLED"
    FAILED = "FAILED"


class PassPhase(enum.StrEnum):
    """How far a rollout's pass is."""

    DUE = "DUE"
    SAMPLING = "SAMPLING"
    WORKING = "WORKING"
    DONE = "DONE"


class Role(enum.StrEnum):
    """What a key may do, each also all that those before it may."""

    READER = "READER"
    EDITOR = "EDITOR"
    ADMIN = "ADMIN"


class ReportStatus(enum.StrEnum):
    """How far a report is."""

    QUEUED = "QUEUED"
    RUNNING = "RUNNING"
    READY = "READY"
    FAILED = "FAILED"


OPERATION = Enum(Operation, name="operation")
CAUSE = Enum(Cause, name="cause")
ROLLOUT_STATE = Enum(RolloutState, name="rollout_state")
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
    """A user who is stored now."""

    __tablename__ = "users"
    __table_args__ = (CheckConstraint("id > 0", name="id_positive"),)

    id: Mapped[UserId] = mapped_column(primary_key=True, autoincrement=False)
    created_at: Mapped[Moment]
    insert_seq: Mapped[int] = mapped_column(BigInteger, Identity(always=True))
    """A number that grows with each stored user. A rollout's pass covers the users up to one."""


class DeletedUserRow(Base):
    """A number that a user once had, so that it is never picked for another."""

    __tablename__ = "deleted_users"

    id: Mapped[UserId] = mapped_column(primary_key=True, autoincrement=False)
    deleted_at: Mapped[Moment]


class IdAllocatorRow(Base):
    """The id that `createUser` allocated last: one row, which each allocation locks."""

    __tablename__ = "id_allocator"
    __table_args__ = (CheckConstraint("only", name="only_row"),)

    only: Mapped[bool] = mapped_column(primary_key=True, server_default=text("true"))
    user_id: Mapped[UserId]


class SegmentRow(Base):
    """A segment, kept after its deletion because history shows its slug."""

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
        # `segment(slug:)`, `segments`, and that a slug is borne by one at a time.
        Index(
            "uq_segments_slug_live",
            "slug",
            unique=True,
            postgresql_where=text("deleted_at IS NULL"),
        ),
        Index(None, "slug"),  # history by slug: every segment that bore it
        Index(  # the deleted whose leaves are not all recorded
            "ix_segments_unrecorded",
            "id",
            postgresql_where=text("deleted_at IS NOT NULL AND leaves_recorded_at IS NULL"),
        ),
    )

    id: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    slug: Mapped[str] = mapped_column(SLUG)
    name: Mapped[str | None] = mapped_column(Text)
    description: Mapped[str | None] = mapped_column(Text)
    version: Mapped[int] = mapped_column(Integer, server_default=text("1"))
    created_at: Mapped[Moment]
    updated_at: Mapped[Moment]
    deleted_at: Mapped[Moment | None]
    deleted_by: Mapped[str | None] = mapped_column(Text)
    leaves_recorded_at: Mapped[Moment | None]


class MembershipRow(Base):
    """One user in one segment, from `joined_at` on; a re-join is a row with a new `id`."""

    __tablename__ = "memberships"
    __table_args__ = (
        CheckConstraint("expires_at > joined_at", name="expires_after_join"),
        # `members`, `memberCount` (index only), and the leaves of a deleted segment.
        Index(None, "segment_id", "user_id", postgresql_include=["expires_at", "cause"]),
        # What is due, in the order in which history shows it.
        Index(None, "expires_at", "user_id", postgresql_where=text("expires_at IS NOT NULL")),
    )

    user_id: Mapped[UserId] = mapped_column(ForeignKey("users.id"), primary_key=True)
    segment_id: Mapped[int] = mapped_column(BigInteger, ForeignKey("segments.id"), primary_key=True)
    id: Mapped[int] = mapped_column(BigInteger, Identity())
    joined_at: Mapped[Moment]
    updated_at: Mapped[Moment]
    expires_at: Mapped[Moment | None]
    cause: Mapped[Cause] = mapped_column(CAUSE)
    actor: Mapped[str | None] = mapped_column(Text)


class ExclusionRow(Base):
    """A user whom somebody took out of a segment by hand: rollouts leave this user out."""

    __tablename__ = "exclusions"
    __table_args__ = (Index(None, "segment_id", "user_id"),)

    user_id: Mapped[UserId] = mapped_column(ForeignKey("users.id"), primary_key=True)
    segment_id: Mapped[int] = mapped_column(BigInteger, ForeignKey("segments.id"), primary_key=True)
    excluded_at: Mapped[Moment]


class RolloutRow(Base):
    """A segment's rollout: its plan, and the pass under way, which workers carry out.

    The row is the job's outbox: whatever becomes of messages, the scheduler finds it here.
    """

    __tablename__ = "rollouts"
    __table_args__ = (
        CheckConstraint(
            "state = 'FAILED' OR"
            " (paused_at IS NOT NULL) = (state IN ('PAUSED', 'WITHDRAWING', 'CANCELLED'))",
            name="paused_when_stopped",
        ),
        CheckConstraint("(failure IS NOT NULL) = (state = 'FAILED')", name="failure_when_failed"),
        Index(  # what the scheduler looks through
            "ix_rollouts_unfinished",
            "segment_id",
            postgresql_where=text("state IN ('ACTIVE', 'WITHDRAWING') AND finished_at IS NULL"),
        ),
        Index(  # what is looked through whenever a user is stored
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
    expires_at: Mapped[Moment | None]
    actor: Mapped[str | None] = mapped_column(Text)
    paused_at: Mapped[Moment | None]
    """When it was paused or cancelled: where the schedule's clock stands still.

    Of a failed rollout: it failed while withdrawing.
    """

    started_at: Mapped[Moment | None]
    finished_at: Mapped[Moment | None]
    failure: Mapped[str | None] = mapped_column(Text)
    failures: Mapped[int] = mapped_column(Integer, server_default=text("0"))
    """The number of attempts that failed since the last progress."""

    max_percent: Mapped[Decimal] = mapped_column(PERCENT)
    """The highest percent that somebody may be in for; a pass to less takes out those beyond."""

    pass_number: Mapped[int] = mapped_column(BigInteger)
    """Counts passes; whoever worked on an earlier one finds that here and lets it be."""

    phase: Mapped[PassPhase] = mapped_column(PASS_PHASE)
    stage: Mapped[int] = mapped_column(Integer)
    """The stage that the pass is for: 0 before the first, -1 before the plan's first pass."""

    percent: Mapped[Decimal] = mapped_column(PERCENT)
    removes_members: Mapped[bool]
    last_insert_seq: Mapped[int] = mapped_column(BigInteger)
    bound_hash: Mapped[int] = mapped_column(BigInteger)
    bound_user_id: Mapped[UserId]
    cursor_user_id: Mapped[UserId]
    users_total: Mapped[int] = mapped_column(BigInteger)
    users_seen: Mapped[int] = mapped_column(BigInteger)
    heartbeat_at: Mapped[Moment]


class RolloutStageRow(Base):
    """One stage of a rollout's plan, numbered from 1 in order of time."""

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
    starts_at: Mapped[Moment]
    done_at: Mapped[Moment | None]


class HistoryRow(Base):
    """A join or a leave, written by triggers alone; partitioned by month of `at`, in UTC.

    No foreign keys: history outlives users. One membership has one join and at most one leave.
    """

    __tablename__ = "history"
    __table_args__ = (
        Index(None, "at", "user_id"),
        Index(None, "segment_id", "at", "user_id"),
        {"postgresql_partition_by": "RANGE (at)"},
    )

    user_id: Mapped[UserId] = mapped_column(primary_key=True, autoincrement=False)
    at: Mapped[Moment] = mapped_column(primary_key=True)
    segment_id: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    operation: Mapped[Operation] = mapped_column(OPERATION, primary_key=True)
    membership_id: Mapped[int] = mapped_column(BigInteger)
    cause: Mapped[Cause] = mapped_column(CAUSE)
    actor: Mapped[str | None] = mapped_column(Text)
    recorded_at: Mapped[Moment]


class ReportRow(Base):
    """A month of history that somebody asked for as a file. No foreign key: users may go."""

    __tablename__ = "reports"
    __table_args__ = (
        CheckConstraint("month BETWEEN 1 AND 12", name="month_range"),
        CheckConstraint(
            "(finished_at IS NOT NULL) = (status IN ('READY', 'FAILED'))",
            name="finished_when_over",
        ),
        CheckConstraint("(failure IS NOT NULL) = (status = 'FAILED')", name="failure_when_failed"),
        Index(None, "user_id", "id"),
        Index(None, "created_at"),  # the old ones
        Index(  # what the scheduler looks through
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
    created_at: Mapped[Moment]
    finished_at: Mapped[Moment | None]
    failure: Mapped[str | None] = mapped_column(Text)
    attempts: Mapped[int] = mapped_column(Integer, server_default=text("0"))
    object_key: Mapped[str | None] = mapped_column(Text)
    next_attempt_at: Mapped[Moment]
    """When the next attempt is due. While a worker makes the report, the end of its lease."""

    actor: Mapped[str | None] = mapped_column(Text)


class ApiKeyRow(Base):
    """A key that lets its bearer in, kept after it was revoked; of its secret only a hash."""

    __tablename__ = "api_keys"
    __table_args__ = (
        UniqueConstraint("public_id"),
        CheckConstraint("public_id ~ '^[a-z0-9]{12}$'", name="public_id_form"),
        CheckConstraint("length(name) BETWEEN 1 AND 255", name="name_length"),
        CheckConstraint("length(secret_hash) = 32", name="secret_hash_length"),
    )

    number: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    public_id: Mapped[str] = mapped_column(Text(collation="C"))
    """The part of the key that is no secret; in logs it may be."""

    name: Mapped[str] = mapped_column(Text)
    role: Mapped[Role] = mapped_column(KEY_ROLE)
    secret_hash: Mapped[bytes] = mapped_column(LargeBinary)
    """SHA-256. The secret has 256 random bits: no slower hash makes guessing them any slower."""

    created_at: Mapped[Moment]
    created_by: Mapped[str | None] = mapped_column(Text)
    revoked_at: Mapped[Moment | None]
    revoked_by: Mapped[str | None] = mapped_column(Text)
    last_used_at: Mapped[Moment | None]


class LeaseRow(Base):
    """Who does what only one process may do at a time, and until when."""

    __tablename__ = "leases"

    name: Mapped[str] = mapped_column(Text, primary_key=True)
    holder: Mapped[str] = mapped_column(Text)
    expires_at: Mapped[Moment]
