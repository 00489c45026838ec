"""The jobs of exports."""

from typing import Final

from segmentql.adapters.jobs import Job

MAKE_EXPORT: Final = Job("make_export", queue="reports", time_limit_seconds=2400, max_retries=0)
"""Dramatiq does not retry it: the export's row counts the attempts and schedules the next one."""

REMOVE_OLD_EXPORTS: Final = Job(
    "remove_old_exports", queue="cleanup", time_limit_seconds=600, max_retries=3
)

JOBS: Final = (MAKE_EXPORT, REMOVE_OLD_EXPORTS)
