"""The record of a segment."""

from dataclasses import dataclass
from datetime import datetime


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
