"""The description of a kind of file: its table, its job and its metrics."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, Generic, TypeVar

from prometheus_client import Counter, Histogram
from sqlalchemy import Row, TextClause, text

from segmentql.adapters.jobs import Job

ContentT = TypeVar("ContentT")
"""The record that says what a file contains."""


@dataclass(frozen=True, eq=False)
class FileKind(Generic[ContentT]):
    """A kind of file that workers make. Each row of its table is the request for one file.

    The table has the columns `id`, `status` (of the type `report_status`), `attempts`,
    `next_attempt_at`, `object_key`, `row_count`, `size_bytes`, `failure`, `created_at` and
    `finished_at`.
    """

    table: str
    """The name of the table. Object keys begin with it."""
    job: Job
    """The job that makes one file. Its argument is the id of the row."""
    extension_sql: str
    """The SQL expression of the extension of object keys."""
    content_sql: str
    """The columns from which `read_content` makes the record of the content."""
    read_content: Callable[[Row[Any]], ContentT]
    requested_at_sql: str
    """The SQL expression of the time from which the age of an unfinished file counts."""
    final_next_attempt_sql: str
    """The SQL expression of `next_attempt_at` of a finished file."""
    key_erasure_lock: int
    """The class of the advisory lock of the transactions that erase keys. A claim waits for them,
    so that the attempt reads no erased key."""
    outcomes: Counter
    """The counter of finished files. Its label is `ready` or `failed`."""
    durations: Histogram
    """The histogram of the seconds from `requested_at_sql` until a file was ready."""

    @property
    def max_upload_seconds(self) -> float:
        """How long an attempt may write its object, also after it lost its lease.

        The time limit of the job ends it, perhaps late.
        """
        return 2 * self.job.time_limit_seconds


@cache
def statement(template: str, kind: FileKind[Any]) -> TextClause:
    """Return a statement for the table of a kind of file.

    Args:
        template: The statement, with `{kind.table}` and other fields of the kind.
        kind: The kind of file.
    """
    return text(template.format(kind=kind))
