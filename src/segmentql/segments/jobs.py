"""The job that the deletion of a segment enqueues. `memberships/actors.py` runs it."""

from typing import Final

from segmentql.adapters.jobs import Job

RECORD_SEGMENT_LEAVES: Final = Job(
    "record_segment_leaves", queue="cleanup", time_limit_seconds=120, max_retries=3
)

JOBS: Final = (RECORD_SEGMENT_LEAVES,)
