"""Segments."""

from sqlalchemy import BigInteger, CheckConstraint, Identity, Index, Integer, Text, text
from sqlalchemy.orm import Mapped, mapped_column

from segmentql.tables.columns import SLUG_TEXT, Base, Timestamp


class SegmentRow(Base):
    """A segment. The row remains after deletion, because history shows its slug."""

    __tablename__ = "segments"
    __table_args__ = (
        CheckConstraint("slug ~ '^[A-Za-z0-9][A-Za-z0-9_.-]{0,254}$'", name="slug_form"),
        CheckConstraint("length(name) BETWEEN 1 AND 255", name="name_length"),
        CheckConstraint("length(description) <= 4096", name="description_length"),
        CheckConstraint("version >= 1", name="version_positive"),
        CheckConstraint(
            "leaves_recorded_at IS NULL OR deleted_at IS NOT NULL",
            name="leaves_recorded_when_deleted",
        ),
        # For `segment(slug:)` and `segments`. Only one existing segment can have a slug.
        Index(
            "uq_segments_slug_live",
            "slug",
            unique=True,
            postgresql_where=text("deleted_at IS NULL"),
        ),
        # For history by slug and for `segments(includeDeleted: true)`.
        Index(None, "slug", "id"),
        Index(  # for `segments(search:)`
            "ix_segments_search",
            text("segment_search_vector(slug, name)"),
            postgresql_using="gin",
            postgresql_with={"fastupdate": "off"},
        ),
        Index(  # deleted segments with unrecorded leaves
            "ix_segments_unrecorded",
            "id",
            postgresql_where=text("deleted_at IS NOT NULL AND leaves_recorded_at IS NULL"),
        ),
    )

    id: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    slug: Mapped[str] = mapped_column(SLUG_TEXT)
    name: Mapped[str | None] = mapped_column(Text)
    description: Mapped[str | None] = mapped_column(Text)
    version: Mapped[int] = mapped_column(Integer, server_default=text("1"))
    created_at: Mapped[Timestamp]
    updated_at: Mapped[Timestamp]
    deleted_at: Mapped[Timestamp | None]
    created_by: Mapped[str | None] = mapped_column(Text)
    updated_by: Mapped[str | None] = mapped_column(Text)
    deleted_by: Mapped[str | None] = mapped_column(Text)
    deleted_by_api_key_id: Mapped[str | None] = mapped_column(Text)
    leaves_recorded_at: Mapped[Timestamp | None]
