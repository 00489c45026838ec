"""Leases."""

from sqlalchemy import Text
from sqlalchemy.orm import Mapped, mapped_column

from segmentql.tables.columns import Base, Timestamp


class LeaseRow(Base):
    """A lease, which makes one process at a time responsible for a task."""

    __tablename__ = "leases"

    name: Mapped[str] = mapped_column(Text, primary_key=True)
    holder: Mapped[str] = mapped_column(Text)
    expires_at: Mapped[Timestamp]
