"""The records of flags."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from segmentql.tables import Cause


@dataclass(slots=True)
class FlagRecord:
    """The value of the flag of an existing segment for one user.

    If the flag is false, all fields are None.
    """

    cause: Cause | None = None
    """The cause of the active membership."""
    joined_at: str | None = None
    """When the user joined, as the API writes timestamps."""
    expires_at: str | None = None
    """When the membership ends by its TTL. None if it has none."""


NOT_IN: Final = FlagRecord()
"""The value of a flag for a user who is not in the segment, or who is not stored."""


@dataclass(slots=True)
class FlagsRecord:
    """The values of the flags of many segments for one user."""

    slugs: Sequence[str]
    """The slugs of the segments, in order of their creation."""
    is_truncated: bool
    """Whether there are more segments, whose flags are omitted."""
    flags: Mapping[str, FlagRecord]
    """The flags that are true, by slug."""
