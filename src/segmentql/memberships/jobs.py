"""The job of memberships."""

from typing import Final

from segmentql.adapters.jobs import Job

EXPIRE_DUE_MEMBERSHIPS: Final = Job(
    "expire_due_memberships", queue="expiry", time_limit_seconds=60, max_retries=3
)
"""The job has its own queue, so that its delayed messages do not wait behind others."""

JOBS: Final = (EXPIRE_DUE_MEMBERSHIPS,)
