"""The result of a finished import: a CSV with each row of the list and its outcome.

A file with some of the outcomes is made from the whole file when a client asks for it.
"""

import csv
import io
from collections.abc import AsyncGenerator, AsyncIterator, Collection
from typing import Final

from sqlalchemy import text

from segmentql.adapters.csv_stream import CsvStream
from segmentql.adapters.database import Database
from segmentql.adapters.jobs import Message
from segmentql.adapters.sessions import ReadSession, WriteSession
from segmentql.imports.jobs import FILTER_IMPORT_RESULT
from segmentql.objects import service as objects
from segmentql.tables import RowOutcome

RESULT_TIMEOUT_SECONDS: Final = 1800
"""The time limit of the query that reads the rows of one file, and of its upload."""

FILTER_CHARACTERS: Final = 262_144
"""The size of the pieces in which a filtered file is written."""

# A user that was not applied has an expected outcome only.
_ROWS: Final = """
SELECT r.line, coalesce(r.value, r.user_key, CAST(r.user_id AS text)) AS value,
    coalesce(r.user_id, u.user_id) AS user_id,
    coalesce(r.outcome, CASE WHEN u.number <= i.applied_users THEN u.outcome END, 'NOT_REACHED')
        AS outcome,
    r.detail
FROM imports i
JOIN import_rows r ON r.import_id = i.id
LEFT JOIN import_users u ON u.import_id = i.id AND u.line = r.line
WHERE i.id = $1
ORDER BY r.line
"""

# The statistics may be from before the rows were staged, and a nested loop would take hours.
_SETTINGS = text("""
SELECT set_config('enable_nestloop', 'off', true), set_config('work_mem', '64MB', true),
    set_config('max_parallel_workers_per_gather', '0', true)
""")

_MISSING_RESULT = text("""
SELECT rows_version FROM imports
WHERE id = :import_id AND finished_at IS NOT NULL AND row_count IS NOT NULL
  AND has_staged_rows AND result_key IS NULL
""")

_PUBLISH = text("""
UPDATE imports SET result_key = :object_key
WHERE id = :import_id AND has_staged_rows AND result_key IS NULL AND rows_version = :version
RETURNING id
""")

_PUBLISH_FILTERED = text("""
UPDATE imports SET filtered_keys = filtered_keys || jsonb_build_object(
    CAST(:name AS text), CAST(:object_key AS text))
WHERE id = :import_id AND result_key = :result_key AND NOT filtered_keys ? CAST(:name AS text)
RETURNING id
""")


MAX_FILTERED_FILES: Final = 20
"""The maximum number of files with some outcomes that one import has."""


def outcome_mask(outcomes: Collection[RowOutcome]) -> int:
    """Return a set of outcomes as a number, one bit for each in the order of the enum."""
    return sum(1 << index for index, outcome in enumerate(RowOutcome) if outcome in outcomes)


def masked_outcomes(mask: int) -> frozenset[RowOutcome]:
    """Return the set of outcomes of a number."""
    return frozenset(outcome for index, outcome in enumerate(RowOutcome) if mask & 1 << index)


async def missing_result(session: ReadSession, import_id: int) -> int | None:
    """Return the version of the staged rows of a finished import if its result is not made.

    Another version begins when a key is erased from the rows.
    """
    found = await session.execute(_MISSING_RESULT, {"import_id": import_id})
    version: int | None = found.scalar_one_or_none()
    return version


async def result_csv(session: ReadSession, import_id: int) -> CsvStream:
    """Return the CSV of the result of an import whose rows are staged.

    The session is in a transaction of its own.
    """
    await session.execute(_SETTINGS)
    return CsvStream(session, _ROWS, (import_id,))


async def publish_result(
    session: WriteSession, import_id: int, object_key: str, *, version: int
) -> None:
    """Store the key of an uploaded result that was made from a version of the staged rows.

    If the import has a result already or its rows have another version now, the file is deleted.
    """
    values = {"import_id": import_id, "object_key": object_key, "version": version}
    if (await session.execute(_PUBLISH, values)).one_or_none():
        await _keep(session, object_key)


def request_filtered(database: Database, import_id: int, mask: int) -> None:
    """Let a worker make the file with the outcomes of a mask. If it exists, nothing happens."""
    database.publish([Message(FILTER_IMPORT_RESULT, (import_id, mask))])


async def publish_filtered(
    session: WriteSession, import_id: int, mask: int, object_key: str, *, result_key: str
) -> None:
    """Store the key of an uploaded file with some outcomes, made from the file `result_key`.

    If the import has another result now, or has this file already, the new one is deleted.
    """
    values = {
        "import_id": import_id,
        "name": str(mask),
        "object_key": object_key,
        "result_key": result_key,
    }
    if (await session.execute(_PUBLISH_FILTERED, values)).one_or_none():
        await _keep(session, object_key)


class UploadDiscarded(Exception):
    """The upload took too long, so its object is being deleted."""


async def _keep(session: WriteSession, object_key: str) -> None:
    if not await objects.keep_upload(session, object_key):
        raise UploadDiscarded


async def filter_csv(
    chunks: AsyncIterator[bytes], outcomes: Collection[RowOutcome]
) -> AsyncGenerator[bytes]:
    """Yield the header and the rows with the given outcomes of a result."""
    rest = b""
    output = io.StringIO()
    writer = csv.writer(output, lineterminator="\n")
    is_header = True
    async for chunk in chunks:
        data = rest + chunk
        # PostgreSQL quotes line ends in values. A piece ends after an even number of quotes.
        end = _complete_end(data)
        rest = data[end:]
        for row in csv.reader(io.StringIO(data[:end].decode(), newline="")):
            if is_header or row[3] in outcomes:
                writer.writerow(row)
            is_header = False
        if output.tell() >= FILTER_CHARACTERS:
            yield output.getvalue().encode()
            output.seek(0)
            output.truncate()
    yield output.getvalue().encode()


def _complete_end(data: bytes) -> int:
    """Return the end of the last row that is complete, which begins outside of quotes."""
    end = data.rfind(b"\n") + 1
    while end and data.count(b'"', 0, end) % 2:
        end = data.rfind(b"\n", 0, end - 1) + 1
    return end
