"""Imports: lists of users that are read into a segment, and their staged rows."""

import enum
from typing import Any

from sqlalchemy import BigInteger, CheckConstraint, Enum, ForeignKey, Identity, Index, Text, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from segmentql.tables.columns import USER_KEY_TEXT, Base, Timestamp


class ImportStatus(enum.StrEnum):
    """The status of an import."""

    AWAITING_UPLOAD = "AWAITING_UPLOAD"
    QUEUED = "QUEUED"
    VALIDATING = "VALIDATING"
    VALIDATED = "VALIDATED"
    HELD = "HELD"
    APPLYING = "APPLYING"
    COMPLETED = "COMPLETED"
    REFUSED = "REFUSED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"


class RowOutcome(enum.StrEnum):
    """What became of one row of a list of users."""

    HEADER = "HEADER"
    BLANK = "BLANK"
    JOINED = "JOINED"
    END_CHANGED = "END_CHANGED"
    ALREADY_IN = "ALREADY_IN"
    LEFT = "LEFT"
    NOT_IN = "NOT_IN"
    DUPLICATE = "DUPLICATE"
    EXCLUDED = "EXCLUDED"
    UNKNOWN_USER = "UNKNOWN_USER"
    MALFORMED = "MALFORMED"
    OUT_OF_RANGE = "OUT_OF_RANGE"
    NOT_REACHED = "NOT_REACHED"


IMPORT_STATUS = Enum(ImportStatus, name="import_status")
ROW_OUTCOME = Enum(RowOutcome, name="row_outcome")


class ImportRow(Base):
    """An import of a list of users into a segment."""

    __tablename__ = "imports"
    __table_args__ = (
        CheckConstraint("mode IN ('ADD', 'REMOVE', 'REPLACE')", name="mode_known"),
        CheckConstraint(
            "(finished_at IS NOT NULL)"
            " = (status IN ('COMPLETED', 'REFUSED', 'FAILED', 'CANCELLED'))",
            name="finished_when_over",
        ),
        CheckConstraint(
            "(deadline_at IS NOT NULL) = (status IN ('AWAITING_UPLOAD', 'VALIDATED', 'HELD'))",
            name="deadline_while_waiting",
        ),
        CheckConstraint(
            "(next_attempt_at IS NOT NULL) = (status IN ('QUEUED', 'VALIDATING', 'APPLYING'))",
            name="attempt_while_working",
        ),
        Index(None, "segment_id", "id"),
        Index(  # for the removal of old results
            "ix_imports_with_result", "finished_at", postgresql_where=text("result_key IS NOT NULL")
        ),
        # For the scheduler.
        Index(None, "next_attempt_at", postgresql_where=text("next_attempt_at IS NOT NULL")),
        Index(None, "deadline_at", postgresql_where=text("deadline_at IS NOT NULL")),
        Index(
            "ix_imports_to_clean_up",
            "id",
            postgresql_where=text("needs_cleanup AND finished_at IS NOT NULL"),
        ),
    )

    id: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    segment_id: Mapped[int] = mapped_column(BigInteger, ForeignKey("segments.id"))
    status: Mapped[ImportStatus] = mapped_column(IMPORT_STATUS)
    mode: Mapped[str] = mapped_column(Text)
    options: Mapped[dict[str, Any]] = mapped_column(JSONB)
    """The other fields of `CreateImportInput`."""

    source: Mapped[dict[str, Any]] = mapped_column(JSONB)
    """The upload, or the segments whose members are the list."""

    actor: Mapped[str | None] = mapped_column(Text)
    api_key_id: Mapped[str | None] = mapped_column(Text)
    created_at: Mapped[Timestamp]
    queued_at: Mapped[Timestamp | None]
    """When the import was started, or applied after a dry run or a hold. Imports of one segment are
    applied in this order."""

    finished_at: Mapped[Timestamp | None]
    deadline_at: Mapped[Timestamp | None]
    """When the import is cancelled if its caller does nothing."""

    failure: Mapped[str | None] = mapped_column(Text)
    attempts: Mapped[int] = mapped_column(server_default=text("0"))
    """The number of the current attempt to read the list, and later of failed attempts to apply a
    chunk."""

    next_attempt_at: Mapped[Timestamp | None]
    """The time of the next attempt. While a worker reads the list, the end of its lease."""

    upload_key: Mapped[str | None] = mapped_column(Text)
    """The key of the object that the caller uploads."""

    file_key: Mapped[str | None] = mapped_column(Text)
    """The key of the private copy of the uploaded object."""

    result_key: Mapped[str | None] = mapped_column(Text)
    """The key of the file with the outcome of each row."""

    filtered_keys: Mapped[dict[str, str]] = mapped_column(JSONB, server_default=text("'{}'"))
    """The keys of the files with some outcomes, see `imports/result.py`."""

    row_count: Mapped[int | None] = mapped_column(BigInteger)
    listed_users: Mapped[int] = mapped_column(BigInteger, server_default=text("0"))
    """The number of different users in the list: the rows of `import_users` with these numbers."""

    total_users: Mapped[int] = mapped_column(BigInteger, server_default=text("0"))
    """The number of rows of `import_users`: the users of the list, then the planned removals."""

    applied_users: Mapped[int] = mapped_column(BigInteger, server_default=text("0"))
    """The number of the last row of `import_users` that was applied."""

    removals: Mapped[int | None] = mapped_column(BigInteger)
    """The planned removals, and when the import was applied, the number of removals."""

    removed_users: Mapped[int] = mapped_column(BigInteger, server_default=text("0"))
    """The number of users that the import has removed so far."""

    allowed_removals: Mapped[int | None] = mapped_column(BigInteger)
    counts: Mapped[dict[str, int]] = mapped_column(JSONB, server_default=text("'{}'"))
    """The number of rows by outcome."""

    rejections: Mapped[list[Any]] = mapped_column(JSONB, server_default=text("'[]'"))
    """The first rejected rows."""

    has_staged_rows: Mapped[bool] = mapped_column(server_default=text("true"))
    """Whether no staged row is deleted, so that the result can be made of them."""

    rows_version: Mapped[int] = mapped_column(server_default=text("0"))
    """The number of times that keys were erased from the staged rows."""

    needs_cleanup: Mapped[bool] = mapped_column(server_default=text("true"))
    """Whether the import may have staged rows or uploaded files. They are removed, and the result
    is made, when the import is finished."""

    cleanup_after: Mapped[Timestamp | None]
    """The time of the next attempt to do so. Null before the first one has failed."""


class ImportListRow(Base):
    """One row of the list of an import. A foreign key would double the time of its COPY."""

    __tablename__ = "import_rows"
    __table_args__ = (
        # For the erasure of keys. Rows that name a user by id are in none of these indexes.
        Index(None, "user_key", postgresql_where=text("user_key IS NOT NULL")),
        Index(
            "ix_import_rows_other_values",
            "import_id",
            postgresql_where=text("user_id IS NULL AND user_key IS NULL AND value <> ''"),
        ),
    )

    import_id: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    line: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    """The line of the file where the row begins, from 1."""

    value: Mapped[str | None] = mapped_column(Text)
    """The value in the file. Null if it is the user's id or key."""

    user_id: Mapped[int | None] = mapped_column(BigInteger)
    user_key: Mapped[str | None] = mapped_column(USER_KEY_TEXT)
    outcome: Mapped[RowOutcome | None] = mapped_column(ROW_OUTCOME)
    """Null if the row is the first one of its user, whose outcome `import_users` has."""

    detail: Mapped[str | None] = mapped_column(Text)
    """Why the row was rejected."""


class ImportUserRow(Base):
    """A user that an import adds or removes."""

    __tablename__ = "import_users"
    __table_args__ = (
        Index(None, "user_key", postgresql_where=text("user_key IS NOT NULL")),  # for erasures
    )

    import_id: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    number: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    """From 1, in the order of the users' ids. Planned removals come after the users of the list."""

    line: Mapped[int | None] = mapped_column(BigInteger)
    """The first row of the user. Null for a member who is not in the list."""

    user_id: Mapped[int | None] = mapped_column(BigInteger)
    user_key: Mapped[str | None] = mapped_column(USER_KEY_TEXT)
    membership_id: Mapped[int | None] = mapped_column(BigInteger)
    """The membership that a planned removal ends."""

    membership_updated_at: Mapped[Timestamp | None]
    """When that membership was last changed. If it has changed since, it does not end."""

    outcome: Mapped[RowOutcome] = mapped_column(ROW_OUTCOME)
    """The outcome that is expected, and after the user was applied, the outcome."""
