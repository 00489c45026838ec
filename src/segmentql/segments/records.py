"""The records of segments."""

from dataclasses import dataclass
from datetime import datetime
from typing import ClassVar


def segment_global_id(segment_id: int) -> str:
    """Return the opaque id by which clients know a segment."""
    return f"seg_{segment_id}"


@dataclass(frozen=True, slots=True)
class SegmentRecord:
    """A segment. A deleted segment is kept, because history shows its slug."""

    is_shared: ClassVar[bool] = True
    """Plans cache the written fields of the record, because many users are in few segments."""

    segment_id: int
    slug: str
    name: str | None
    description: str | None
    created_at: datetime
    updated_at: datetime
    deleted_at: datetime | None
    version: int
    """Starts at 1 and increases by 1 when the name, the description or the rollout's plan
    changes."""

    @property
    def global_id(self) -> str:
        """The opaque id by which clients know the segment."""
        return segment_global_id(self.segment_id)


@dataclass(frozen=True, slots=True)
class SegmentPage:
    """A page of segments: up to `rows` segments that follow `after` and match the filters."""

    rows: int
    after_slug: str = ""
    """The slug of the last segment of the page before; "" for the first page."""
    after_id: int = 0
    """The id of that segment. It matters only with deleted segments, which may share a slug."""
    prefix: str = ""
    """The prefix of all slugs of the page; "" for no filter."""
    search: str = ""
    """A text that the slug or the name contains, in any case; "" for no filter."""
    include_deleted: bool = False
    """Whether the page has deleted segments, too."""
