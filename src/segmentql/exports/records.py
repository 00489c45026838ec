"""Records of exports."""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from segmentql.history.settled import HistoryCursor
from segmentql.segments.records import SegmentRecord
from segmentql.tables import ReportStatus

MAX_SLUG_IN_FILE_NAME: Final = 100
"""File systems allow names of 255 bytes."""


@dataclass(frozen=True, slots=True)
class ExportStart:
    """The segment, the time and the cursor of a new export."""

    segment_id: int
    slug: str
    as_of: datetime
    cursor: HistoryCursor


@dataclass(frozen=True, slots=True)
class ExportContent:
    """The content and the format of the file of an export."""

    segment_id: int
    as_of: datetime
    is_gzip: bool


@dataclass(frozen=True, slots=True)
class ExportRecord:
    """An export, finished or not."""

    export_id: int
    segment: SegmentRecord
    status: ReportStatus
    as_of: datetime
    """The time at which the members were in the segment."""
    cursor: str
    """The position in history from which a reader of changes continues, as `HistoryCursor.encode`
    writes it."""
    is_gzip: bool
    row_count: int | None
    size_bytes: int | None
    created_at: datetime
    finished_at: datetime | None
    failure: str | None
    object_key: str | None
    """The key of the file in the store."""

    @property
    def global_id(self) -> str:
        """The opaque id by which clients know the export."""
        return f"exp_{self.export_id}"

    @property
    def file_name(self) -> str:
        """The name of the downloaded file."""
        slug = self.segment.slug[:MAX_SLUG_IN_FILE_NAME]
        moment = self.as_of.astimezone(UTC).strftime("%Y%m%dT%H%M%SZ")
        return f"{slug}-{moment}.csv" + (".gz" if self.is_gzip else "")
