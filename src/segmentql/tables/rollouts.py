"""Rollouts with their stages, events and passes."""

import enum
from datetime import datetime
from decimal import Decimal

from sqlalchemy import (
    ARRAY,
    BigInteger,
    CheckConstraint,
    Enum,
    ForeignKey,
    Identity,
    Index,
    Integer,
    Numeric,
    Text,
    text,
)
from sqlalchemy.orm import Mapped, mapped_column

from segmentql.tables.columns import TIMESTAMPTZ, Base, Timestamp, UserId


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
    """What happened to a rollout: a decision or a failure."""

    BACKFILLED = "BACKFILLED"
    """The plan that existed when migration 0008 ran. It is not known when it was set."""
    SET = "SET"
    PAUSED = "PAUSED"
    RESUMED = "RESUMED"
    CANCELLED = "CANCELLED"
    FAILED = "FAILED"


ROLLOUT_STATE = Enum(RolloutState, name="rollout_state")
ROLLOUT_EVENT = Enum(RolloutEvent, name="rollout_event")
PASS_PHASE = Enum(PassPhase, name="pass_phase")
PERCENT = Numeric(6, 3)


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
