"""Trusted documents."""

from sqlalchemy import CheckConstraint, LargeBinary, Text
from sqlalchemy.orm import Mapped, mapped_column

from segmentql.tables.columns import Base, Timestamp


class DocumentRow(Base):
    """A GraphQL document that clients may name by its id. A document never changes."""

    __tablename__ = "documents"
    __table_args__ = (CheckConstraint("id = sha256(convert_to(text, 'UTF8'))", name="id_is_hash"),)

    id: Mapped[bytes] = mapped_column(LargeBinary, primary_key=True)
    """SHA-256 of the text in UTF-8."""

    text: Mapped[str] = mapped_column(Text(collation="C"))
    created_at: Mapped[Timestamp]
    created_by: Mapped[str | None] = mapped_column(Text)
    """The name of the API key. Null for commands."""
