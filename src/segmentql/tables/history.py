"""History and the sums of member counts."""

import enum

from sqlalchemy import BigInteger, CheckConstraint, Enum, Index, Text, text
from sqlalchemy.orm import Mapped, mapped_column

from segmentql.tables.columns import Base, Timestamp, UserId


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


OPERATION = Enum(Operation, name="operation")
CAUSE = Enum(Cause, name="cause")


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


class DroppedHistoryRow(Base):
    """The beginning of history, and the highest position that was dropped. The only row."""

    __tablename__ = "dropped_history"
    __table_args__ = (CheckConstraint("only", name="only_row"),)

    only: Mapped[bool] = mapped_column(primary_key=True, server_default=text("true"))
    earliest_at: Mapped[Timestamp]
    """The earliest time of which the state is known. Of the entries before it, only the joins of
    memberships that were active at this time are kept. `-infinity` if nothing was dropped."""

    dropped_position: Mapped[int] = mapped_column(BigInteger)
    """Up to this position, entries may have been dropped. 0 if nothing was dropped."""


class MemberCountHourRow(Base):
    """The number of joins and leaves of a segment in an hour, without those after the roll-up.

    The hour `-infinity` has the sums of all hours before the beginning of history, and the joins of
    partitions that were dropped before the table existed.
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
