"""The record of a segment."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Final

MAX_CACHED_SEGMENTS: Final = 4_000
"""The number of records that each of `active_segment` and `shared_segment` keeps."""

MAX_CACHED_TEXT: Final = 200
"""The maximum length of a name and a description, together, of a record that is kept or shared.

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
        """Whether plans keep the written fields of the record: many users are in few segments."""
        return _is_short(self.name, self.description)

    @property
    def global_id(self) -> str:
        """The opaque id by which clients know the segment."""
        return segment_global_id(self.segment_id)


def _is_short(name: str | None, description: str | None) -> bool:
    return len(name or "") + len(description or "") <= MAX_CACHED_TEXT


def active_segment(columns: Sequence[Any]) -> SegmentRecord:
    """Return the record of an existing segment.

    Equal rows share a record, except long ones, because many users are in few segments.

    Args:
        columns: The id, the slug, the name, the description, the version, and the times of the
            creation and of the last update in seconds since 1970-01-01 00:00 UTC. These
            floating-point numbers are exact to the microsecond until the year 2242.
    """
    name, description = columns[2:4]
    return (_cached_active if _is_short(name, description) else _new_active)(tuple(columns))


def _new_active(columns: tuple[Any, ...]) -> SegmentRecord:
    segment_id, slug, name, description, version, created_at, updated_at = columns
    return SegmentRecord(
        segment_id=segment_id,
        slug=slug,
        name=name,
        description=description,
        created_at=datetime.fromtimestamp(created_at, UTC),
        updated_at=datetime.fromtimestamp(updated_at, UTC),
        deleted_at=None,
        version=version,
    )


_cached_active: Final = lru_cache(MAX_CACHED_SEGMENTS)(_new_active)


def shared_segment(columns: tuple[Any, ...]) -> SegmentRecord:
    """Return the record of a segment. Equal rows share a record, except long ones.

    Args:
        columns: The values of the fields, in their order.
    """
    name, description = columns[2:4]
    return (_cached_segment if _is_short(name, description) else _new_segment)(columns)


def _new_segment(columns: tuple[Any, ...]) -> SegmentRecord:
    return SegmentRecord(*columns)


_cached_segment: Final = lru_cache(MAX_CACHED_SEGMENTS)(_new_segment)


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
