"""GraphQL types and queries of imports."""

from datetime import datetime
from typing import Annotated

import strawberry
from strawberry import Parent

from segmentql import validators
from segmentql.graphql.context import Info
from segmentql.graphql.cost.field_cost import cost
from segmentql.graphql.types.enums import describe_enum
from segmentql.graphql.types.errors import bad_request, limit_exceeded
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
from segmentql.graphql.types.validation import argument_value, optional_argument, size_argument
from segmentql.imports import reads, result
from segmentql.imports.forecast_query import KEPT_REJECTIONS
from segmentql.imports.loaders import ImportById
from segmentql.imports.records import ImportMode, ImportRecord, RejectionRecord
from segmentql.memberships.api import OutcomeCount
from segmentql.memberships.records import OutcomeCount as OutcomeCountRecord
from segmentql.segments.api import Segment
from segmentql.segments.records import SegmentRecord
from segmentql.tables import ImportStatus, RowOutcome

describe_enum(
    ImportMode,
    "What an import does with the users of its list.",
    {
        ImportMode.ADD: "The users join the segment.",
        ImportMode.REMOVE: "The users leave the segment.",
        ImportMode.REPLACE: "Afterwards the list has exactly the members by hand. Listed users"
        " join. Other members by hand leave, except users in the finished sample of the rollout,"
        " who become its members. Members of the rollout who are not listed stay.",
    },
)

describe_enum(
    ImportStatus,
    "The status of an import.",
    {
        ImportStatus.AWAITING_UPLOAD: "The import waits for the upload and `startImport`, for 24"
        " hours.",
        ImportStatus.QUEUED: "The import waits for a worker.",
        ImportStatus.VALIDATING: "A worker reads the list.",
        ImportStatus.VALIDATED: "The dry run is done. `counts` is a forecast. The import waits for"
        " `applyImport`, for 7 days.",
        ImportStatus.HELD: "The import would remove too many members, or its list is empty; see"
        " `failure`. It waits for `applyImport` with `allowRemovals`, for 7 days.",
        ImportStatus.APPLYING: "A worker changes memberships, or another import of the segment"
        " does so first.",
        ImportStatus.COMPLETED: "Every row has its final outcome.",
        ImportStatus.REFUSED: "The file was refused, and nothing was applied; see `failure`.",
        ImportStatus.FAILED: "The import could not be completed, or stopped before it removed more"
        " members than allowed; see `failure`. What was applied stays.",
        ImportStatus.CANCELLED: "The import was cancelled. What was applied stays.",
    },
)


def _import_id(record: Parent[ImportRecord]) -> strawberry.ID:
    return strawberry.ID(record.global_id)


@strawberry.type(description="A row that was rejected.")
class Rejection:
    line: BigInt = strawberry.field(description="The line where the row begins, from 1.")
    value: str = strawberry.field(
        description="The value in the file. A long value is cut off after 255 characters."
    )
    reason: RowOutcome = strawberry.field(description="MALFORMED or OUT_OF_RANGE.")
    message: str = strawberry.field(description="What is wrong, for people.")


@strawberry.type(description="An import of a list of users into a segment.")
class Import:
    id: strawberry.ID = strawberry.field(resolver=_import_id, description="Opaque id.")

    segment: SegmentRecord = strawberry.field(graphql_type=Segment, description="The segment.")
    mode: ImportMode = strawberry.field(description="What the import does with the listed users.")
    status: ImportStatus = strawberry.field(description="The status.")
    progress: float = strawberry.field(
        description="The share of the users that are applied, 0 to 1. It is 1 for every finished"
        " import, including cancelled ones."
    )
    counts: list[OutcomeCountRecord] = strawberry.field(
        graphql_type=list[OutcomeCount],
        description="The number of rows by outcome. The sum is `rows`. While the import is"
        " VALIDATED or HELD, the counts are a forecast.",
    )
    rows: BigInt | None = strawberry.field(
        description="The number of rows of the list, with its header and its blank rows. Null"
        " until the list is read, and if the file could not be read."
    )
    removals: BigInt | None = strawberry.field(
        description="The number of members that the import will remove, and when it is finished,"
        " the number that it has removed. Null until the list is read."
    )

    @strawberry.field(
        description="The first rejected rows.",
        graphql_type=list[Rejection],
        metadata=cost(max_first=KEPT_REJECTIONS),
    )
    @staticmethod
    async def rejections(
        record: Parent[ImportRecord],
        first: Annotated[
            int | None, strawberry.argument(description="The number of rows, 1 to 100.")
        ] = 20,
    ) -> list[RejectionRecord]:
        # Asynchronous, because graphql-core does not await all siblings of a field that raises at
        # once.
        size = size_argument(first, "first", default=20, maximum=KEPT_REJECTIONS)
        return list(record.rejected_rows[:size])

    @strawberry.field(
        description="A link to a CSV with each row of the list and its outcome, newly signed at"
        " each read. Its columns are `line,value,user_id,outcome,detail`. Anyone with the link can"
        " download the file until the link expires. Null until the import is finished and a worker"
        " has made the file, after `SEGMENTQL_REPORT_RETENTION_DAYS`, if the list could not be"
        " read, and if a user's key in the file was erased. With `outcomes`, the first read"
        " requests the file from a worker and returns null: read the field again after a second.",
        metadata=cost(5),
    )
    @staticmethod
    async def result_url(
        record: Parent[ImportRecord],
        info: Info,
        outcomes: Annotated[
            list[RowOutcome] | None,
            strawberry.argument(
                description="The outcomes of the rows. If omitted, all rows. One import has at most"
                " 20 such files."
            ),
        ] = None,
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
        if outcomes is not None and not outcomes:
            raise bad_request("outcomes", "the list is empty", "at least one outcome, or no list")
        if record.result_key is None:
            return None
        object_key: str | None = record.result_key
        occurring = {count.outcome for count in record.counts}
        wanted = occurring.intersection(outcomes or occurring)
        mask = result.outcome_mask(wanted)
        if wanted != occurring:
            object_key = record.filtered_keys.get(str(mask))
        if object_key is None:
            if len(record.filtered_keys) >= result.MAX_FILTERED_FILES:
                limit = result.MAX_FILTERED_FILES
                raise limit_exceeded("outcomes", limit=limit, value=limit + 1)
            result.request_filtered(info.context.database, record.import_id, mask)
            return None
        return await info.context.storage.download_url(
            object_key, seconds=seconds, file_name=f"{record.global_id}.csv"
        )

    created_at: datetime = strawberry.field(description="When the import was created.")
    finished_at: datetime | None = strawberry.field(
        description="When the import was completed, refused, cancelled or failed."
    )
    actor: str | None = strawberry.field(
        description="The name of the API key that created the import."
    )
    failure: str | None = strawberry.field(
        description="Why the import is HELD, REFUSED, FAILED or CANCELLED. If it is VALIDATED, why"
        " `applyImport` needs `allowRemovals`. Null otherwise."
    )


@strawberry.type
class ImportQueries:
    @strawberry.field(
        name="import",
        description="One import. Null if it does not exist.",
        graphql_type=Import | None,
    )
    async def import_(
        self,
        info: Info,
        id: Annotated[  # noqa: A002 - the name of the GraphQL argument
            strawberry.ID, strawberry.argument(description="The import's id.")
        ],
    ) -> ImportRecord | None:
        import_id = argument_value(validators.import_id, id, "id")
        return await info.context.loader(ImportById).load(import_id)

    @strawberry.field(
        description="The imports, newest first.", graphql_type=Connection[Import] | None
    )
    async def imports(
        self,
        info: Info,
        first: First = 20,
        after: After = strawberry.UNSET,
        slug: Annotated[
            str | None,
            strawberry.argument(
                description="Return only imports into segments that have or had this slug."
            ),
        ] = strawberry.UNSET,
    ) -> Connection[ImportRecord]:
        known_slug = optional_argument(validators.slug, slug, "slug")
        page = parse_page_arguments(
            "imports", (is_row_id,), first, after, filters=(known_slug,), default=20
        )
        before = int(page.after[0]) if page.after else validators.MAX_USER_ID
        imports = await info.context.read(
            lambda session: reads.import_page(
                session, before=before, slug=known_slug, rows=page.first + 1
            )
        )
        return page.page(imports, lambda record: (record.import_id,))


register_entity(
    ImportRecord,
    "import",
    lambda record: record.import_id,
    lambda context, key: context.loader(ImportById).load(key),
)
register_node(
    Import,
    ImportRecord,
    "imp_",
    lambda info, import_id: info.context.loader(ImportById).load(import_id),
)
