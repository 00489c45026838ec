"""The results of the GraphQL mutations of imports, and their errors."""

from datetime import datetime

import strawberry

from segmentql import errors
from segmentql.adapters.stored_file import UploadLink
from segmentql.graphql.cost.field_cost import cost
from segmentql.graphql.types.errors import ErrorCode, MutationError, as_mutation_error
from segmentql.graphql.types.stored_results import NOT_STORED
from segmentql.imports.api import Import
from segmentql.imports.records import ImportRecord
from segmentql.tables import ImportStatus


@strawberry.type(description="No import has this id.")
class ImportNotFound(MutationError):
    pass


@strawberry.type(description="The import's status does not allow this mutation.")
class ImportStateConflict(MutationError):
    status: ImportStatus = strawberry.field(description="The current status of the import.")


@as_mutation_error.register
def _(reason: errors.ImportNotFound) -> MutationError:
    return ImportNotFound(
        code=ErrorCode.IMPORT_NOT_FOUND,
        message="No import has this id.",
        path=list(reason.path),
    )


@as_mutation_error.register
def _(reason: errors.ImportStateConflict) -> MutationError:
    return ImportStateConflict(
        code=ErrorCode.IMPORT_STATE_CONFLICT,
        message=f"The import's status {reason.status} does not allow this mutation.",
        path=list(reason.path),
        status=ImportStatus(reason.status),
    )


@strawberry.type(description="A header of an HTTP request.")
class Header:
    name: str = strawberry.field(description="The name.")
    value: str = strawberry.field(description="The value.")


@strawberry.type(
    description="A request that uploads the file, to the object store. Anyone with the URL can"
    " upload the file until it expires."
)
class Upload:
    url: str = strawberry.field(description="The signed URL.")
    method: str = strawberry.field(description="The HTTP method.")
    headers: list[Header] = strawberry.field(
        description="Headers that the request must have. The store rejects a file of another size.",
        metadata=cost(size=2),
    )
    expires_at: datetime = strawberry.field(description="When the URL expires.")


@strawberry.type
class _ImportPayload:
    """The fields of the results of all mutations of imports."""

    import_: ImportRecord | None = strawberry.field(
        name="import",
        default=None,
        graphql_type=Import | None,
        description="The import. Null if the mutation was rejected.",
    )
    errors: list[MutationError] = strawberry.field(
        default_factory=list,
        description="Why the mutation was rejected. Empty if it succeeded.",
        metadata=cost(size=1),
    )


@strawberry.type(description="Result of `createImport`.")
class CreateImportPayload(_ImportPayload):
    upload: Upload | None = strawberry.field(
        default=None,
        description="How to upload the file. Null if the list comes from segments, or if the"
        " mutation was rejected.",
        metadata=NOT_STORED,
    )


@strawberry.type(description="Result of `startImport`.")
class StartImportPayload(_ImportPayload):
    pass


@strawberry.type(description="Result of `applyImport`.")
class ApplyImportPayload(_ImportPayload):
    pass


@strawberry.type(description="Result of `cancelImport`.")
class CancelImportPayload(_ImportPayload):
    pass


def upload_of(link: UploadLink) -> Upload:
    """Return an upload link as the API's type."""
    return Upload(
        url=link.url,
        method=link.method,
        headers=[Header(name=name, value=value) for name, value in link.headers.items()],
        expires_at=link.expires_at,
    )
