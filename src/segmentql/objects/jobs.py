"""The job of objects."""

from typing import Final

from segmentql.adapters.jobs import Job

DELETE_OBJECTS: Final = Job(
    "delete_objects", queue="objects", time_limit_seconds=1800, max_retries=0
)
"""Dramatiq does not retry it: each object's row has the time of the next attempt."""

JOBS: Final = (DELETE_OBJECTS,)
