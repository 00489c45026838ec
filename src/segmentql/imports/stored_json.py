"""The values of an import as JSON, in the columns `options`, `source` and `counts`."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

import orjson

from segmentql.imports.file_format import Delimiter, HeaderMode, Identity, ListFormat
from segmentql.imports.records import (
    ImportOptions,
    OnUnknownUser,
    SegmentAlgebra,
    UploadSource,
)
from segmentql.memberships.records import OnExcluded, OnExisting
from segmentql.tables import RowOutcome


def options_to_json(options: ImportOptions) -> str:
    """Return the options as a JSON object."""
    values = {
        "identity": options.list_format.identity,
        "column": options.list_format.column,
        "column_number": options.list_format.column_number,
        "header": options.list_format.header,
        "delimiter": options.list_format.delimiter,
        "ttl_seconds": None if options.ttl is None else options.ttl.total_seconds(),
        "expires_at": options.expires_at,
        "on_existing": options.on_existing,
        "on_excluded": options.on_excluded,
        "on_unknown_user": options.on_unknown_user,
        "exclude": options.exclude,
        "max_rejected": options.max_rejected,
        "max_removed_percent": options.max_removed_percent,
        "allow_empty": options.allow_empty,
        "dry_run": options.dry_run,
    }
    return orjson.dumps(values).decode()


def options_from_json(values: Mapping[str, Any]) -> ImportOptions:
    """Return the options that `options_to_json` has stored."""
    ttl_seconds = values["ttl_seconds"]
    return ImportOptions(
        list_format=ListFormat(
            Identity(values["identity"]),
            values["column"],
            values["column_number"],
            HeaderMode(values["header"]),
            Delimiter(values["delimiter"]),
        ),
        ttl=None if ttl_seconds is None else timedelta(seconds=ttl_seconds),
        expires_at=_time(values["expires_at"]),
        on_existing=OnExisting(values["on_existing"]),
        on_excluded=OnExcluded(values["on_excluded"]),
        on_unknown_user=OnUnknownUser(values["on_unknown_user"]),
        exclude=values["exclude"],
        max_rejected=values["max_rejected"],
        max_removed_percent=values["max_removed_percent"],
        allow_empty=values["allow_empty"],
        dry_run=values["dry_run"],
    )


def source_to_json(source: UploadSource | SegmentAlgebra) -> str:
    """Return the source as a JSON object."""
    if isinstance(source, UploadSource):
        values: dict[str, Any] = {
            "file_name": source.file_name,
            "size_bytes": source.size_bytes,
            "sha256": source.sha256,
        }
    else:
        values = {
            "any_of": source.any_of,
            "all_of": source.all_of,
            "none_of": source.none_of,
            "as_of": source.as_of,
        }
    return orjson.dumps(values).decode()


def source_from_json(values: Mapping[str, Any]) -> UploadSource | SegmentAlgebra:
    """Return the source that `source_to_json` has stored."""
    if "size_bytes" in values:
        return UploadSource(values["file_name"], values["size_bytes"], values["sha256"])
    return SegmentAlgebra(
        values["any_of"], values["all_of"], values["none_of"], _time(values["as_of"])
    )


def counts_to_json(counts: Mapping[RowOutcome, int]) -> str:
    """Return numbers of rows by outcome as a JSON object, without zeros."""
    return orjson.dumps({outcome.value: rows for outcome, rows in counts.items() if rows}).decode()


def counts_from_json(values: Mapping[str, int]) -> dict[RowOutcome, int]:
    """Return the numbers that `counts_to_json` has stored."""
    return {RowOutcome(outcome): rows for outcome, rows in values.items()}


def _time(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)
