"""The jobs of imports."""

from typing import Final

from segmentql.adapters.jobs import Job

ADVANCE_IMPORT: Final = Job(
    "advance_import", queue="imports", time_limit_seconds=3600, max_retries=0
)
"""Dramatiq does not retry it: the import's row counts the attempts and schedules the next one."""

FINISH_IMPORT: Final = Job("finish_import", queue="imports", time_limit_seconds=2400, max_retries=3)
FILTER_IMPORT_RESULT: Final = Job(
    "filter_import_result", queue="imports", time_limit_seconds=2400, max_retries=3
)
CLEAN_UP_IMPORTS: Final = Job(
    "clean_up_imports", queue="imports", time_limit_seconds=600, max_retries=3
)

JOBS: Final = (ADVANCE_IMPORT, FINISH_IMPORT, FILTER_IMPORT_RESULT, CLEAN_UP_IMPORTS)
