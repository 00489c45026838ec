"""The jobs of reports."""

from typing import Final

from segmentql.adapters.jobs import Job

MAKE_REPORT: Final = Job("make_report", queue="reports", time_limit_seconds=2400, max_retries=0)
"""Dramatiq does not retry it: the report's row counts the attempts and schedules the next one."""

REMOVE_OLD_REPORTS: Final = Job(
    "remove_old_reports", queue="cleanup", time_limit_seconds=600, max_retries=3
)

JOBS: Final = (MAKE_REPORT, REMOVE_OLD_REPORTS)
