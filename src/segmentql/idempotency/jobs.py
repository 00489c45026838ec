"""The job of idempotency keys."""

from typing import Final

from segmentql.adapters.jobs import Job

DELETE_IDEMPOTENCY_KEYS: Final = Job(
    "delete_idempotency_keys", queue="cleanup", time_limit_seconds=600, max_retries=0
)
"""It is not retried, because the periodic check sends it again."""

JOBS: Final = (DELETE_IDEMPOTENCY_KEYS,)
