"""The input of `createImport`, and its validation."""

from collections.abc import Sequence
from datetime import datetime

import strawberry

from segmentql import validators
from segmentql.graphql.types.enums import describe_enum
from segmentql.graphql.types.scalars import BigInt
from segmentql.graphql.types.validation import InputValidator
from segmentql.imports.file_format import Delimiter, HeaderMode, Identity, ListFormat
from segmentql.imports.records import ImportMode, ImportOptions, OnUnknownUser, UploadSource
from segmentql.imports.service import SlugAlgebra
from segmentql.memberships.inputs import ON_EXCLUDED, ON_EXISTING, read_expiry
from segmentql.memberships.records import NO_EXPIRY, OnExcluded, OnExisting

DEFAULT_MAX_REMOVED_PERCENT = 20.0

describe_enum(
    Identity,
    "What the list holds of each user.",
    {Identity.ID: "The user's id.", Identity.KEY: "The user's key."},
)
describe_enum(
    HeaderMode,
    "Whether the first row of a file is a header.",
    {
        HeaderMode.AUTO: "The first row decides, see docs/import-files.md.",
        HeaderMode.PRESENT: "The first row is a header.",
        HeaderMode.ABSENT: "The file has no header.",
    },
)
describe_enum(
    Delimiter,
    "The character between the columns of a file.",
    {
        Delimiter.AUTO: "The first row decides, see docs/import-files.md.",
        Delimiter.COMMA: "A comma.",
        Delimiter.SEMICOLON: "A semicolon.",
        Delimiter.TAB: "A tab.",
    },
)
describe_enum(
    OnUnknownUser,
    "The effect of adding a user who is not stored.",
    {
        OnUnknownUser.STORE: "The user is stored and joins.",
        OnUnknownUser.SKIP: "The user is not stored and does not join.",
    },
)


@strawberry.input(description="A file that you upload.")
class UploadInput:
    file_name: str | None = strawberry.field(
        default=strawberry.UNSET,
        description="The name of the file, for people: 1 to 255 characters. It has no effect.",
    )
    size_bytes: BigInt = strawberry.field(
        description="The exact size of the file: 0 to 268435456 bytes."
    )
    sha256: str | None = strawberry.field(
        default=strawberry.UNSET,
        description="The SHA-256 of the file, in hexadecimal. If the uploaded file has another, the"
        " import is REFUSED.",
    )


@strawberry.input(
    description="A list of users that is computed from the members of segments: those in any of"
    " `anyOf`, in all of `allOf` and in none of `noneOf`. An absent list does not restrict. `anyOf`"
    " or `allOf` has a slug. All lists together have at most 100 slugs."
)
class SegmentAlgebraInput:
    any_of: list[str] | None = strawberry.field(
        default=strawberry.UNSET, description="Slugs of segments."
    )
    all_of: list[str] | None = strawberry.field(
        default=strawberry.UNSET, description="Slugs of segments."
    )
    none_of: list[str] | None = strawberry.field(
        default=strawberry.UNSET, description="Slugs of segments."
    )
    as_of: datetime | None = strawberry.field(
        default=strawberry.UNSET,
        description="A time in the past, at which the members are read. If omitted, now. For users"
        " who were deleted since, see `onUnknownUser`.",
    )


@strawberry.input(one_of=True, description="Where the list of users comes from.")
class ImportSource:
    upload: UploadInput | None = strawberry.field(
        default=strawberry.UNSET, description="From a file that you upload."
    )
    segments: SegmentAlgebraInput | None = strawberry.field(
        default=strawberry.UNSET, description="From the members of segments."
    )


@strawberry.input(description="Input of `createImport`.")
class CreateImportInput:
    slug: str = strawberry.field(description="The slug of the segment that the import changes.")
    source: ImportSource = strawberry.field(description="Where the list of users comes from.")
    mode: ImportMode | None = strawberry.field(
        default=ImportMode.ADD, description="What the import does with the listed users."
    )
    identity: Identity | None = strawberry.field(
        default=Identity.ID, description="What the file's column holds."
    )
    column: str | None = strawberry.field(
        default=strawberry.UNSET,
        description="The name of the column in the file's header. If neither it nor `columnNumber`"
        " is set, the column is `user_id` or `user_key`, or the only one.",
    )
    column_number: int | None = strawberry.field(
        default=strawberry.UNSET,
        description="The number of the column, from 1. Use it instead of `column`.",
    )
    header: HeaderMode | None = strawberry.field(
        default=HeaderMode.AUTO, description="Whether the first row of the file is a header."
    )
    delimiter: Delimiter | None = strawberry.field(
        default=Delimiter.AUTO, description="The character between the columns of the file."
    )
    ttl_seconds: int | None = strawberry.field(
        default=strawberry.UNSET,
        description="Seconds until the memberships end, from each user's join: 1 to 315360000. Not"
        " with REMOVE.",
    )
    expires_at: datetime | None = strawberry.field(
        default=strawberry.UNSET,
        description="When the memberships end. Use it instead of `ttlSeconds`. Not with REMOVE.",
    )
    on_existing: OnExisting | None = strawberry.field(
        default=OnExisting.EXTEND,
        description=ON_EXISTING,
    )
    on_excluded: OnExcluded | None = strawberry.field(
        default=OnExcluded.SKIP,
        description=ON_EXCLUDED,
    )
    on_unknown_user: OnUnknownUser | None = strawberry.field(
        default=OnUnknownUser.STORE,
        description="The effect of adding a user who is not stored. This includes a user who was"
        " deleted after a list was computed from segments, or after its `asOf`.",
    )
    exclude: bool | None = strawberry.field(
        default=True,
        description="Whether REMOVE also excludes the users from the segment's rollout. REPLACE"
        " never excludes.",
    )
    max_rejected: BigInt | None = strawberry.field(
        default=0,
        description="The largest number of rejected rows that you accept. A file with more is"
        " REFUSED before anything is applied.",
    )
    max_removed_percent: float | None = strawberry.field(
        default=DEFAULT_MAX_REMOVED_PERCENT,
        description="The largest percentage of the members that the import may remove without a"
        " confirmation: 0 to 100. An import that would remove more is HELD. It applies to segments"
        " with at least 100 members.",
    )
    allow_empty: bool | None = strawberry.field(
        default=False,
        description="Whether REPLACE accepts a list without users. If false, such an import is"
        " HELD.",
    )
    dry_run: bool | None = strawberry.field(
        default=False,
        description="Whether the import stops at VALIDATED, with a forecast of the counts.",
    )


def read_options(
    validator: InputValidator, fields: CreateImportInput, mode: ImportMode
) -> ImportOptions:
    """Decode all fields but `slug`, `source` and `mode`."""
    column = validator.optional(validators.column, fields.column, "column", absent=None)
    column_number = validator.optional(
        validators.column_number, fields.column_number, "columnNumber", absent=None
    )
    if column is not None and column_number is not None:
        validator.add_error(
            "both `column` and `columnNumber` are set",
            "at most one of `column` and `columnNumber`",
            "columnNumber",
        )
    expiry = read_expiry(validator, fields)
    if mode is ImportMode.REMOVE and expiry != NO_EXPIRY:
        field = "ttlSeconds" if expiry.ttl is not None else "expiresAt"
        validator.add_error(
            "the mode REMOVE adds no user",
            "no `ttlSeconds` and no `expiresAt` with the mode REMOVE",
            field,
        )
    percent = fields.max_removed_percent
    return ImportOptions(
        list_format=ListFormat(
            identity=fields.identity or Identity.ID,
            column=column,
            column_number=column_number,
            header=fields.header or HeaderMode.AUTO,
            delimiter=fields.delimiter or Delimiter.AUTO,
        ),
        ttl=expiry.ttl,
        expires_at=expiry.expires_at,
        on_existing=fields.on_existing or OnExisting.EXTEND,
        on_excluded=fields.on_excluded or OnExcluded.SKIP,
        on_unknown_user=fields.on_unknown_user or OnUnknownUser.STORE,
        exclude=fields.exclude is not False,
        max_rejected=validator.value(validators.row_count, fields.max_rejected or 0, "maxRejected"),
        max_removed_percent=validator.value(
            validators.removed_percent,
            DEFAULT_MAX_REMOVED_PERCENT if percent is None else percent,
            "maxRemovedPercent",
        ),
        allow_empty=fields.allow_empty or False,
        dry_run=fields.dry_run or False,
    )


def read_source(validator: InputValidator, source: ImportSource) -> UploadSource | SlugAlgebra:
    """Decode the source."""
    upload = source.upload
    if upload:
        path = ("source", "upload")
        return UploadSource(
            file_name=validator.optional(
                validators.file_name, upload.file_name, *path, "fileName", absent=None
            ),
            size_bytes=validator.value(
                validators.upload_bytes, upload.size_bytes, *path, "sizeBytes"
            ),
            sha256=validator.optional(
                validators.sha256, upload.sha256, *path, "sha256", absent=None
            ),
        )
    assert source.segments  # noqa: S101 - exactly one field is set
    return _read_algebra(validator, source.segments)


def _read_algebra(validator: InputValidator, segments: SegmentAlgebraInput) -> SlugAlgebra:
    lists = {
        "anyOf": segments.any_of or None,
        "allOf": segments.all_of or None,
        "noneOf": segments.none_of or None,
    }
    path = ("source", "segments")
    total = sum(len(slugs or ()) for slugs in lists.values())
    if total > validators.MAX_SLUGS_OF_SOURCE:
        validator.add_error(
            f"{total} slugs", f"at most {validators.MAX_SLUGS_OF_SOURCE} slugs together", *path
        )
    elif not lists["anyOf"] and not lists["allOf"]:
        validator.add_error(
            "both `anyOf` and `allOf` are empty", "a slug in `anyOf` or `allOf`", *path
        )
    else:
        for field, slugs in lists.items():
            _check_slugs(validator, slugs or (), *path, field)
    return SlugAlgebra(lists["anyOf"], lists["allOf"], lists["noneOf"], segments.as_of or None)


def _check_slugs(validator: InputValidator, slugs: Sequence[str], *path: str) -> None:
    for position, slug in enumerate(slugs):
        validator.value(validators.slug, slug, *path, str(position))


@strawberry.input(description="Input of `startImport`.")
class StartImportInput:
    id: strawberry.ID = strawberry.field(description="The import's id.")
    wait_seconds: int | None = strawberry.field(
        default=0,
        description="The maximum time to wait until the import is finished, VALIDATED or HELD: 0 to"
        " 60 seconds.",
    )


@strawberry.input(description="Input of `applyImport`.")
class ApplyImportInput:
    id: strawberry.ID = strawberry.field(description="The import's id.")
    allow_removals: BigInt | None = strawberry.field(
        default=strawberry.UNSET,
        description="The largest number of removals that you accept. If `removals`, the forecast,"
        " is larger, the import is HELD. If more listed users are members when it is applied, it"
        " stops as FAILED before it removes more. A HELD import needs this field.",
    )


@strawberry.input(description="Input of `cancelImport`.")
class CancelImportInput:
    id: strawberry.ID = strawberry.field(description="The import's id.")
