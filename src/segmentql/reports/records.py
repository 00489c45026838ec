"""Records of reports."""

from dataclasses import dataclass
from datetime import datetime

from segmentql.tables import ReportStatus


@dataclass(frozen=True, slots=True)
class ReportScope:
    """The entries of a report: a month in UTC, of one user or of all users."""

    year: int
    month: int
    user_id: int | None
    """None for all users."""
    with_keys: bool = False
    """Whether the file also has the users' keys."""

    @property
    def file_name(self) -> str:
        """The name of the CSV file."""
        owner = "all" if self.user_id is None else str(self.user_id)
        return f"segments-{owner}-{self.year:04}-{self.month:02}.csv"


@dataclass(frozen=True, slots=True)
class ReportRecord:
    """A report, finished or not."""

    report_id: int
    scope: ReportScope
    status: ReportStatus
    row_count: int | None
    size_bytes: int | None
    created_at: datetime
    finished_at: datetime | None
    failure: str | None
    object_key: str | None
    """The key of the file in the store."""

    @property
    def global_id(self) -> str:
        """The opaque id by which clients know the report."""
        return f"rep_{self.report_id}"

    @property
    def year(self) -> int:
        """The year, in UTC."""
        return self.scope.year

    @property
    def month(self) -> int:
        """The month, 1 to 12."""
        return self.scope.month

    @property
    def user_id(self) -> int | None:
        """The id of the user; None for all users."""
        return self.scope.user_id

    @property
    def with_keys(self) -> bool:
        """Whether the file also has the users' keys."""
        return self.scope.with_keys

    @property
    def file_name(self) -> str:
        """The name of the CSV file."""
        return self.scope.file_name
