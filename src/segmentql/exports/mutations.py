"""GraphQL mutations of exports, with their input and payload."""

from datetime import datetime

import strawberry

from segmentql import validators
from segmentql.exports import service
from segmentql.exports.api import Export
from segmentql.exports.loaders import ExportById, FinishedExport
from segmentql.exports.records import ExportRecord
from segmentql.exports.start import read_start
from segmentql.graphql.context import Info
from segmentql.graphql.cost.field_cost import cost
from segmentql.graphql.types.errors import MutationError
from segmentql.graphql.types.idempotency import Work
from segmentql.graphql.types.mutations import run_prepared_mutation
from segmentql.graphql.types.permissions import NeedsReader
from segmentql.graphql.types.validation import InputValidator
from segmentql.graphql.types.waiting import wait_until_finished


@strawberry.input(description="Input of `createExport`.")
class CreateExportInput:
    slug: str = strawberry.field(description="The slug of an existing segment.")
    as_of: datetime | None = strawberry.field(
        default=strawberry.UNSET,
        description="The time of the members. It must not be in the future. If null or omitted, it"
        " is now.",
    )
    gzip: bool | None = strawberry.field(
        default=False, description="Whether the file is compressed with gzip."
    )
    wait_seconds: int | None = strawberry.field(
        default=5,
        description="The maximum time to wait until the export is finished: 0 to 60 seconds. The"
        " worker makes the export even if this wait ends first.",
    )


@strawberry.type(description="Result of `createExport`.")
class CreateExportPayload:
    export: ExportRecord | None = strawberry.field(
        default=None,
        graphql_type=Export | None,
        description="The export, which may be unfinished. Null if the mutation was rejected.",
    )
    errors: list[MutationError] = strawberry.field(
        default_factory=list,
        description="Why the mutation was rejected. Empty if it succeeded.",
        metadata=cost(size=1),
    )


@strawberry.type
class ExportMutations:
    @strawberry.mutation(
        permission_classes=[NeedsReader],
        description="Request the members of a segment, now or at a past time, as CSV. A worker"
        " makes the file. `deleteUser` with `eraseKey` deletes the files that may have the key."
        " Needs READER.",
    )
    async def create_export(
        self,
        info: Info,
        input: CreateExportInput,  # noqa: A002
    ) -> CreateExportPayload | None:
        validator = InputValidator()
        slug = validator.value(validators.slug, input.slug, "slug")
        wait = input.wait_seconds
        wait_seconds = validator.value(
            validators.wait_seconds,
            validators.DEFAULT_WAIT_SECONDS if wait is None else wait,
            "waitSeconds",
        )
        as_of = None if input.as_of is strawberry.UNSET else input.as_of

        async def prepare() -> Work[ExportRecord]:
            start = await read_start(info.context.database, slug, as_of)
            return lambda session: service.create_export(
                session, start, is_gzip=bool(input.gzip), actor=info.context.actor
            )

        payload = await run_prepared_mutation(
            info,
            CreateExportPayload,
            validator,
            prepare,
            lambda export: CreateExportPayload(export=export),
            # Many exports that are requested at once must not block the event loop.
            limiter=info.context.background,
        )
        if payload.export:
            payload.export = await wait_until_finished(
                info.context,
                payload.export,
                payload.export.export_id,
                finished=FinishedExport,
                current=ExportById,
                seconds=wait_seconds,
            )
        return payload
