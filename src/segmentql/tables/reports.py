"""Reports."""

import enum

from sqlalchemy import BigInteger, CheckConstraint, Enum, Identity, Index, Integer, Text, text
from sqlalchemy.orm import Mapped, mapped_column

from segmentql.tables.columns import Base, Timestamp


class ReportStatus(enum.StrEnum):
    """The status of a report."""

    QUEUED = "QUEUED"
    RUNNING = "RUNNING"
    READY = "READY"
    FAILED = "FAILED"


REPORT_STATUS = Enum(ReportStatus, name="report_status")


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
