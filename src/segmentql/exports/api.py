"""GraphQL types and queries of exports."""

from datetime import datetime
from typing import Annotated

import strawberry
from strawberry import Parent

import segmentql.reports.api  # noqa: F401 - it describes the enum `ReportStatus`
from segmentql import validators
from segmentql.adapters.storage import CSV_TYPE, GZIP_TYPE
from segmentql.exports import service
from segmentql.exports.loaders import ExportById
from segmentql.exports.records import ExportRecord
from segmentql.graphql.context import Info
from segmentql.graphql.cost.field_cost import cost
from segmentql.graphql.types.nodes import register_node
from segmentql.graphql.types.pagination import (
    After,
    Connection,
    First,
    is_row_id,
    parse_page_arguments,
)
from segmentql.graphql.types.scalars import BigInt
from segmentql.graphql.types.stored_results import register_entity
from segmentql.graphql.types.validation import argument_value, optional_argument
from segmentql.segments.api import Segment
from segmentql.segments.records import SegmentRecord
from segmentql.tables import ReportStatus


def _export_id(export: Parent[ExportRecord]) -> strawberry.ID:
    return strawberry.ID(export.global_id)


@strawberry.type(
    description="The members of a segment at a time, as a CSV file with the columns"
    " `user_id,user_key,joined_at,expires_at,cause`, by user id. Times are in UTC. `expires_at` is"
    " the end as it was known when the file was made. The file can be imported again. Exports are"
    " removed after a retention period."
)
class Export:
    id: strawberry.ID = strawberry.field(resolver=_export_id, description="Opaque id.")

    segment: SegmentRecord = strawberry.field(graphql_type=Segment, description="The segment.")
    status: ReportStatus = strawberry.field(description="The status of the export.")
    row_count: BigInt | None = strawberry.field(
        description="Number of members in the file. Null until the export is READY."
    )
    size_bytes: BigInt | None = strawberry.field(
        description="Size of the file in bytes. Null until the export is READY."
    )
    as_of: datetime = strawberry.field(description="The time at which the users were members.")
    cursor: str = strawberry.field(
        description="A position in the changes of all segments. A consumer that loads the file, and"
        " then applies the changes after this position, has the current members. Some of these"
        " changes may be in the file already."
    )
    created_at: datetime = strawberry.field(description="When the export was requested.")
    finished_at: datetime | None = strawberry.field(
        description="When the export became READY or FAILED."
    )
    failure: str | None = strawberry.field(
        description="Why the export failed. Null unless the status is FAILED."
    )

    file_name: str = strawberry.field(description="The name of the downloaded file.")

    @strawberry.field(
        description="A link to the file, newly signed at each read. Anyone with the link can"
        " download the file until the link expires. Null until the export is READY.",
        metadata=cost(5),
    )
    @staticmethod
    async def download_url(
        export: Parent[ExportRecord],
        info: Info,
        expires_in_seconds: Annotated[
            int | None,
            strawberry.argument(description="Seconds until the link expires: 1 to 604800."),
        ] = 900,
    ) -> str | None:
        seconds = argument_value(
            validators.link_seconds,
            validators.DEFAULT_LINK_SECONDS if expires_in_seconds is None else expires_in_seconds,
            "expiresInSeconds",
        )
        if export.status is not ReportStatus.READY or export.object_key is None:
            return None
        return await info.context.storage.download_url(
            export.object_key,
            seconds=seconds,
            file_name=export.file_name,
            content_type=GZIP_TYPE if export.is_gzip else CSV_TYPE,
        )


@strawberry.type
class ExportQueries:
    @strawberry.field(
        description="One export. Null if it does not exist or was removed.",
        graphql_type=Export | None,
    )
    async def export(
        self,
        info: Info,
        id: Annotated[  # noqa: A002 - the name of the GraphQL argument
            strawberry.ID, strawberry.argument(description="The export's id.")
        ],
    ) -> ExportRecord | None:
        export_id = argument_value(validators.export_id, id, "id")
        return await info.context.loader(ExportById).load(export_id)

    @strawberry.field(
        description="The stored exports, newest first.", graphql_type=Connection[Export] | None
    )
    async def exports(
        self,
        info: Info,
        first: First = 20,
        after: After = strawberry.UNSET,
        slug: Annotated[
            str | None,
            strawberry.argument(
                description="Return only exports of segments that have or had this slug."
            ),
        ] = strawberry.UNSET,
    ) -> Connection[ExportRecord]:
        known_slug = optional_argument(validators.slug, slug, "slug")
        page = parse_page_arguments(
            "exports", (is_row_id,), first, after, filters=(known_slug,), default=20
        )
        before = int(page.after[0]) if page.after else validators.MAX_USER_ID
        exports = await info.context.read(
            lambda session: service.export_page(
                session, before=before, slug=known_slug, rows=page.first + 1
            )
        )
        return page.page(exports, lambda export: (export.export_id,))


register_entity(
    ExportRecord,
    "export",
    lambda export: export.export_id,
    lambda context, key: context.loader(ExportById).load(key),
)
register_node(
    Export,
    ExportRecord,
    "exp_",
    lambda info, export_id: info.context.loader(ExportById).load(export_id),
)
