"""Uploads of lists: the link for the client, and the private copy that workers read."""

import uuid
from datetime import UTC, datetime, timedelta

from segmentql.adapters.database import Database
from segmentql.adapters.storage import Storage
from segmentql.adapters.stored_file import UploadLink
from segmentql.errors import (
    ImportStateConflict,
    InvalidInput,
    MutationRejected,
    ObjectMissing,
    StoreFailed,
)
from segmentql.imports.records import ImportRecord, UploadSource
from segmentql.imports.service import UPLOAD_HOURS
from segmentql.objects import service as objects
from segmentql.tables import ImportStatus

MAX_COPY_SECONDS = 600
"""The maximum time from the record of a copy until the import refers to it."""


async def find_failure(storage: Storage) -> StoreFailed | None:
    """Return why no link can be signed now; None if one can."""
    try:
        await storage.check_credentials()
    except StoreFailed as failed:
        return failed
    return None


async def upload_link(storage: Storage, record: ImportRecord) -> UploadLink | None:
    """Return a link with which the client uploads the list of an import.

    The link expires before the import is cancelled.

    Returns:
        The link; None if the import's deadline has passed.
    """
    assert isinstance(record.source, UploadSource)  # noqa: S101 - the import awaits its upload
    assert record.upload_key is not None  # noqa: S101
    assert record.deadline_at is not None  # noqa: S101
    # The store measures the lifetime in whole seconds since the signing, by the clock of this
    # process. A second less, because the signing may be in the next second.
    left = record.deadline_at - datetime.now(UTC) - timedelta(seconds=1)
    seconds = min(int(left.total_seconds()), UPLOAD_HOURS * 3600)
    if seconds < 1:
        return None
    return await storage.upload_link(
        record.upload_key,
        size_bytes=record.source.size_bytes,
        expires_in_seconds=seconds,
    )


async def copy_upload(database: Database, storage: Storage, record: ImportRecord) -> str:
    """Copy the uploaded file to a key without a link; return the key.

    The client can replace its file until the link expires. So its size is checked after the copy,
    and the worker checks the hash of the copy.

    Raises:
        MutationRejected: the import does not wait for its upload, or the file was not uploaded.
    """
    if record.status is not ImportStatus.AWAITING_UPLOAD or record.upload_key is None:
        raise MutationRejected(ImportStateConflict(("id",), status=record.status))
    assert isinstance(record.source, UploadSource)  # noqa: S101 - the import awaits its upload
    expected_bytes = record.source.size_bytes
    file_key = f"imports/files/{uuid.uuid4()}"
    await database.transaction(
        lambda session: objects.begin_upload(session, file_key, max_seconds=MAX_COPY_SECONDS)
    )
    try:
        size_bytes = await storage.copy(record.upload_key, file_key)
    except ObjectMissing:
        raise MutationRejected(
            InvalidInput(
                ("id",),
                "the file was not uploaded",
                f"an import whose file of {expected_bytes} bytes was uploaded as `upload` says",
            )
        ) from None
    if size_bytes != expected_bytes:
        raise MutationRejected(
            InvalidInput(
                ("id",),
                f"the uploaded file has {size_bytes} bytes, not {expected_bytes}",
                "an upload of `sizeBytes` bytes",
            )
        )
    return file_key
