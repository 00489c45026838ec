"""GraphQL mutations of imports, with their payloads and errors."""

from datetime import datetime

import strawberry

from segmentql import errors, validators
from segmentql.adapters.stored_file import UploadLink
from segmentql.graphql.context import Info
from segmentql.graphql.cost.field_cost import cost
from segmentql.graphql.types.errors import (
    ErrorCode,
    MutationError,
    as_mutation_error,
    mutation_errors,
)
from segmentql.graphql.types.mutations import run_mutation
from segmentql.graphql.types.permissions import NeedsEditor, require
from segmentql.graphql.types.validation import InputValidator
from segmentql.graphql.types.waiting import wait_until_finished
from segmentql.imports import reads, service, uploads
from segmentql.imports.api import Import
from segmentql.imports.inputs import (
    ApplyImportInput,
    CancelImportInput,
    CreateImportInput,
    StartImportInput,
    read_options,
    read_source,
)
from segmentql.imports.loaders import ImportById, StoppedImport
from segmentql.imports.records import ImportMode, ImportRecord
from segmentql.tables import ImportStatus, Role


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


@strawberry.type(description="Result of `createImport`.")
class CreateImportPayload:
    import_: ImportRecord | None = strawberry.field(
        name="import",
        default=None,
        graphql_type=Import | None,
        description="The import. Null if the mutation was rejected.",
    )
    upload: Upload | None = strawberry.field(
        default=None,
        description="How to upload the file. Null if the list comes from segments, or if the"
        " mutation was rejected.",
    )
    errors: list[MutationError] = strawberry.field(
        default_factory=list,
        description="Why the mutation was rejected. Empty if it succeeded.",
        metadata=cost(size=1),
    )


@strawberry.type(description="Result of `startImport`.")
class StartImportPayload:
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


@strawberry.type(description="Result of `applyImport`.")
class ApplyImportPayload:
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


@strawberry.type(description="Result of `cancelImport`.")
class CancelImportPayload:
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


@strawberry.type
class ImportMutations:
    @strawberry.mutation(
        permission_classes=[NeedsEditor],
        description="Create an import of a list of users into a segment. Upload the file as"
        " `upload` says, then call `startImport`. A list that is computed from segments needs"
        " neither. Needs EDITOR, and ADMIN for the mode REPLACE.",
    )
    async def create_import(
        self,
        info: Info,
        input: CreateImportInput,  # noqa: A002
    ) -> CreateImportPayload | None:
        mode = input.mode or ImportMode.ADD
        _require_role(info, mode)
        validator = InputValidator()
        slug = validator.value(validators.slug, input.slug, "slug")
        options = read_options(validator, input, mode)
        source = read_source(validator, input.source)
        payload = await run_mutation(
            info,
            CreateImportPayload,
            validator,
            lambda session: service.create_import(
                session, slug, mode, options, source, actor=info.context.actor
            ),
            lambda record: CreateImportPayload(import_=record),
        )
        if payload.import_ and payload.import_.upload_key:
            payload.upload = _upload(
                await uploads.upload_link(info.context.storage, payload.import_)
            )
        return payload

    @strawberry.mutation(
        permission_classes=[NeedsEditor],
        description="Start an import whose file is uploaded. A worker reads the file and applies"
        " it. Needs EDITOR, and ADMIN for the mode REPLACE.",
    )
    async def start_import(
        self,
        info: Info,
        input: StartImportInput,  # noqa: A002
    ) -> StartImportPayload | None:
        validator = InputValidator()
        import_id = validator.value(validators.import_id, input.id, "id")
        wait_seconds = validator.value(
            validators.wait_seconds, input.wait_seconds or 0, "waitSeconds"
        )
        try:
            validator.raise_errors()
            record = await _load(info, import_id)
            file_key = await uploads.copy_upload(
                info.context.database, info.context.storage, record
            )
        except errors.MutationRejected as rejected:
            return StartImportPayload(errors=mutation_errors(rejected))
        payload = await run_mutation(
            info,
            StartImportPayload,
            validator,
            lambda session: service.start_import(
                session, import_id, file_key, actor=info.context.actor
            ),
            lambda record: StartImportPayload(import_=record),
        )
        if payload.import_:
            payload.import_ = await wait_until_finished(
                info.context,
                payload.import_,
                import_id,
                finished=StoppedImport,
                current=ImportById,
                seconds=wait_seconds,
            )
        return payload

    @strawberry.mutation(
        permission_classes=[NeedsEditor],
        description="Apply an import after its dry run, or confirm the removals of a HELD one."
        " Needs EDITOR, and ADMIN for the mode REPLACE.",
    )
    async def apply_import(
        self,
        info: Info,
        input: ApplyImportInput,  # noqa: A002
    ) -> ApplyImportPayload | None:
        validator = InputValidator()
        import_id = validator.value(validators.import_id, input.id, "id")
        allowed = validator.optional(
            validators.row_count, input.allow_removals, "allowRemovals", absent=None
        )
        try:
            validator.raise_errors()
            await _load(info, import_id)
        except errors.MutationRejected as rejected:
            return ApplyImportPayload(errors=mutation_errors(rejected))
        return await run_mutation(
            info,
            ApplyImportPayload,
            validator,
            lambda session: service.apply_import(
                session, import_id, allowed_removals=allowed, actor=info.context.actor
            ),
            lambda record: ApplyImportPayload(import_=record),
        )

    @strawberry.mutation(
        permission_classes=[NeedsEditor],
        description="Cancel an import. What was applied stays and is counted. Needs EDITOR.",
    )
    async def cancel_import(
        self,
        info: Info,
        input: CancelImportInput,  # noqa: A002
    ) -> CancelImportPayload | None:
        validator = InputValidator()
        import_id = validator.value(validators.import_id, input.id, "id")
        return await run_mutation(
            info,
            CancelImportPayload,
            validator,
            lambda session: service.cancel_import(session, import_id, actor=info.context.actor),
            lambda record: CancelImportPayload(import_=record),
        )


def _require_role(info: Info, mode: ImportMode) -> None:
    if mode is ImportMode.REPLACE:
        require(info, Role.ADMIN, "an import with the mode REPLACE")


async def _load(info: Info, import_id: int) -> ImportRecord:
    """Return an import, and check that the caller may start or apply it.

    Raises:
        MutationRejected: the import does not exist.
        GraphQLError: the caller needs another role.
    """
    async with info.context.database.read() as session:
        record = (await reads.imports_by_id(session, [import_id])).get(import_id)
    if record is None:
        raise errors.MutationRejected(errors.ImportNotFound(("id",)))
    _require_role(info, record.mode)
    return record


def _upload(link: UploadLink) -> Upload:
    return Upload(
        url=link.url,
        method=link.method,
        headers=[Header(name=name, value=value) for name, value in link.headers.items()],
        expires_at=link.expires_at,
    )
