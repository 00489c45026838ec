"""Objects of the store that wait for their deletion."""

from sqlalchemy import Index, Text, text
from sqlalchemy.orm import Mapped, mapped_column

from segmentql.tables.columns import Base, Timestamp


class ObjectToDeleteRow(Base):
    """An object of the store that workers delete, because no row refers to it.

    It is a replaced or removed file, or an upload that no transaction has kept yet.
    """

    __tablename__ = "objects_to_delete"
    __table_args__ = (Index(None, "next_attempt_at"),)  # for the scheduler

    object_key: Mapped[str] = mapped_column(Text, primary_key=True)
    delete_after: Mapped[Timestamp]
    """The time from which the object should not exist."""

    writable_until: Mapped[Timestamp]
    """The time until which the object may still be written. A deletion before it is repeated."""

    attempts: Mapped[int] = mapped_column(server_default=text("0"))
    """The number of deletions that workers began. From the first on, the object cannot be kept."""

    next_attempt_at: Mapped[Timestamp]
