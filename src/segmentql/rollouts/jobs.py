"""The jobs of rollouts."""

from typing import Final

from segmentql.adapters.jobs import Job

ADVANCE_ROLLOUT: Final = Job(
    "advance_rollout", queue="rollouts", time_limit_seconds=900, max_retries=3
)

START_ROLLOUT_STAGE: Final = Job(
    "start_rollout_stage", queue="stages", time_limit_seconds=900, max_retries=3
)
"""The same work as `ADVANCE_ROLLOUT`, sent when a stage is due.

The job has its own queue, so that its delayed messages do not wait behind others.
"""

JOBS: Final = (ADVANCE_ROLLOUT, START_ROLLOUT_STAGE)
