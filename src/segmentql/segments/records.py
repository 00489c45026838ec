"""The records of segments."""

from dataclasses import dataclass
from datetime import datetime
from typing import Final

MAX_CACHED_TEXT: Final = 200
"""The maximum length of a name and a description, together, of a record that is cached.

A record with its key in the cache then takes at most about 2 KB, because a character takes up to
four bytes. So the two caches of a process take at most about 16 MB, and usually less than 6 MB. A
record with a description of 4,096 characters would take up to 17 KB.
"""


def segment_global_id(segment_id: int) -> str:
    """Return the opaque id by which clients know a segment."""
    return f"seg_{segment_id}"


@dataclass(frozen=True, slots=True)
class SegmentRecord:
    """A segment. A deleted segment is kept, because history shows its slug."""

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
    def is_shared(self) -> bool:
        """Whether plans cache the written fields of the record: many users are in few segments."""
        return is_short(self.name, self.description)

    @property
    def global_id(self) -> str:
        """The opaque id by which clients know the segment."""
        return segment_global_id(self.segment_id)


def is_short(name: str | None, description: str | None) -> bool:
    """Return whether a record with this name and this description is small enough for caches."""
    return len(name or "") + len(description or "") <= MAX_CACHED_TEXT


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
