"""The job of history."""

from typing import Final

from segmentql.adapters.jobs import Job

ROLL_UP_MEMBER_COUNTS: Final = Job(
    "roll_up_member_counts", queue="cleanup", time_limit_seconds=600, max_retries=0
)
"""It is not retried, because the periodic check sends it again."""

DROP_OLD_HISTORY: Final = Job(
    "drop_old_history", queue="cleanup", time_limit_seconds=7200, max_retries=0
)
"""It is not retried, because the periodic check sends it again."""

JOBS: Final = (ROLL_UP_MEMBER_COUNTS, DROP_OLD_HISTORY)
