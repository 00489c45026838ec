"""Memberships and exclusions."""

import enum

from sqlalchemy import BigInteger, CheckConstraint, Enum, ForeignKey, Identity, Index, Text, text
from sqlalchemy.orm import Mapped, mapped_column

from segmentql.tables.columns import Base, Timestamp, UserId
from segmentql.tables.history import CAUSE, Cause


class ExclusionOperation(enum.StrEnum):
    """The operation of an entry of the exclusion log."""

    EXCLUDED = "EXCLUDED"
    ADMITTED = "ADMITTED"


EXCLUSION_OPERATION = Enum(ExclusionOperation, name="exclusion_operation")


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
