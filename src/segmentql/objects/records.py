"""Records of objects that wait for their deletion."""

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True)
class ClaimedObject:
    """An object that a worker deletes."""

    object_key: str
    next_attempt_at: datetime
    """The time of the next attempt if this one fails. It also identifies the claim."""
    is_final: bool
    """Whether the object cannot be written any more, so that one deletion is enough."""


@dataclass(frozen=True, slots=True)
class OverdueObjects:
    """The objects that should be deleted and may still exist, for the metrics."""

    number: int
    oldest_seconds: float
    """The time since the oldest of them should have been deleted; 0 if there is none."""
