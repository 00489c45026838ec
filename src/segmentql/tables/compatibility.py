"""The versions that work on the schema."""

from sqlalchemy import CheckConstraint, Text, text
from sqlalchemy.orm import Mapped, mapped_column

from segmentql.tables.columns import Base


class SchemaCompatibilityRow(Base):
    """The oldest revision whose code works on the schema. The only row."""

    __tablename__ = "schema_compatibility"
    __table_args__ = (CheckConstraint("only", name="only_row"),)

    only: Mapped[bool] = mapped_column(primary_key=True, server_default=text("true"))
    oldest_revision: Mapped[str] = mapped_column(Text)
    """The `oldest_compatible` of the newest migration that was applied."""
