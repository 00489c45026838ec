"""GraphQL mutations of imports."""

import strawberry

from segmentql import errors, validators
from segmentql.adapters.sessions import WriteSession
from segmentql.adapters.stored_file import UploadLink
from segmentql.graphql.context import Info
from segmentql.graphql.types.idempotency import Work
from segmentql.graphql.types.mutations import run_mutation, run_prepared_mutation
from segmentql.graphql.types.permissions import NeedsEditor, require
from segmentql.graphql.types.validation import InputValidator
from segmentql.graphql.types.waiting import wait_until_finished
from segmentql.imports import cleanup, reads, service, uploads
from segmentql.imports.inputs import (
    ApplyImportInput,
    CancelImportInput,
    CreateImportInput,
    StartImportInput,
    read_options,
    read_source,
)
from segmentql.imports.loaders import ImportById, StoppedImport
from segmentql.imports.payloads import (
    ApplyImportPayload,
    CancelImportPayload,
    CreateImportPayload,
    StartImportPayload,
    upload_of,
)
from segmentql.imports.records import ImportMode, ImportRecord, UploadSource
from segmentql.tables import ImportStatus, Role


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
        is_upload = isinstance(source, UploadSource)
        storage = info.context.storage
        links: dict[int, UploadLink | None] = {}

        async def prepare() -> Work[ImportRecord]:
            # Credentials that expire soon are renewed before the transaction, which is then short.
            failed = await uploads.find_failure(storage) if is_upload else None

            async def work(session: WriteSession) -> ImportRecord:
                record = await service.create_import(
                    session, slug, mode, options, source, actor=info.context.actor
                )
                if failed:
                    raise failed
                if is_upload:  # without a link, no import is stored
                    links[record.import_id] = await uploads.upload_link(storage, record)
                return record

            return work

        payload = await run_prepared_mutation(
            info,
            CreateImportPayload,
            validator,
            prepare,
            lambda record: CreateImportPayload(import_=record),
        )
        # A retry returns an import that may have been started or cancelled since.
        if payload.import_ and payload.import_.status is ImportStatus.AWAITING_UPLOAD:
            link = links.get(payload.import_.import_id) or await uploads.upload_link(
                storage, payload.import_
            )
            payload.upload = upload_of(link) if link else None
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

        async def prepare() -> Work[ImportRecord]:
            record = await _load(info, import_id)
            file_key = await uploads.copy_upload(
                info.context.database, info.context.storage, record
            )
            return lambda session: service.start_import(
                session, import_id, file_key, actor=info.context.actor
            )

        payload = await run_prepared_mutation(
            info,
            StartImportPayload,
            validator,
            prepare,
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

        async def prepare() -> Work[ImportRecord]:
            await _load(info, import_id)
            return lambda session: service.apply_import(
                session, import_id, allowed_removals=allowed, actor=info.context.actor
            )

        return await run_prepared_mutation(
            info,
            ApplyImportPayload,
            validator,
            prepare,
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

    An import whose deadline has passed is cancelled, so that the mutation is rejected.

    Raises:
        MutationRejected: the import does not exist, or its deadline has passed.
        GraphQLError: the caller needs another role.
    """
    database = info.context.database
    async with database.read() as session:
        record = (await reads.imports_by_id(session, [import_id])).get(import_id)
        is_overdue = await service.is_overdue(session, import_id)
    if record is None:
        raise errors.MutationRejected(errors.ImportNotFound(("id",)))
    _require_role(info, record.mode)
    if is_overdue:
        await database.transaction(lambda session: cleanup.cancel_overdue(session, import_id))
        async with database.read() as session:
            record = (await reads.imports_by_id(session, [import_id]))[import_id]
        raise errors.MutationRejected(errors.ImportStateConflict(("id",), status=record.status))
    return record
