"""Exports."""

from sqlalchemy import BigInteger, CheckConstraint, ForeignKey, Identity, Index, Text, text
from sqlalchemy.orm import Mapped, mapped_column

from segmentql.tables.columns import Base, Timestamp
from segmentql.tables.reports import REPORT_STATUS, ReportStatus


class ExportRow(Base):
    """An export: the members of a segment at a time, as a file."""

    __tablename__ = "exports"
    __table_args__ = (
        CheckConstraint(
            "(finished_at IS NOT NULL) = (status IN ('READY', 'FAILED'))",
            name="finished_when_over",
        ),
        CheckConstraint("(failure IS NOT NULL) = (status = 'FAILED')", name="failure_when_failed"),
        CheckConstraint(
            "(next_attempt_at IS NOT NULL) = (status IN ('QUEUED', 'RUNNING'))",
            name="attempt_while_working",
        ),
        Index(None, "segment_id", "id"),
        Index(None, "created_at"),  # for the removal of old exports
        # For the scheduler.
        Index(None, "next_attempt_at", postgresql_where=text("next_attempt_at IS NOT NULL")),
    )

    id: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    segment_id: Mapped[int] = mapped_column(BigInteger, ForeignKey("segments.id"))
    status: Mapped[ReportStatus] = mapped_column(REPORT_STATUS)
    as_of: Mapped[Timestamp]
    cursor: Mapped[str] = mapped_column(Text)
    """The position in history from which a reader of changes continues."""

    gzip: Mapped[bool]
    actor: Mapped[str | None] = mapped_column(Text)
    created_at: Mapped[Timestamp]
    finished_at: Mapped[Timestamp | None]
    failure: Mapped[str | None] = mapped_column(Text)
    row_count: Mapped[int | None] = mapped_column(BigInteger)
    size_bytes: Mapped[int | None] = mapped_column(BigInteger)
    attempts: Mapped[int] = mapped_column(server_default=text("0"))
    next_attempt_at: Mapped[Timestamp | None]
    """The time of the next attempt. While a worker makes the file, the end of its lease."""

    object_key: Mapped[str | None] = mapped_column(Text)
