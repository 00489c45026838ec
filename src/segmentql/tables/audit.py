"""The audit log."""

from sqlalchemy import BigInteger, CheckConstraint, Identity, Index, Text, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from segmentql.tables.columns import Base, Timestamp


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
