"""GraphQL of reports."""

import asyncio
import contextlib
import enum
from datetime import datetime
from typing import Annotated, Any

import strawberry

from segmentql import errors, validators
from segmentql.graphql.context import Context, Info
from segmentql.graphql.cost.field_cost import cost
from segmentql.graphql.types.errors import MutationError, mutation_errors
from segmentql.graphql.types.pagination import (
    After,
    Connection,
    First,
    is_row_id,
    parse_page_arguments,
)
from segmentql.graphql.types.permissions import NeedsReader, require
from segmentql.graphql.types.scalars import BigInt
from segmentql.graphql.types.validation import InputValidator, argument_value, optional_argument
from segmentql.reports import service
from segmentql.reports.csv_export import ReportScope
from segmentql.reports.loaders import ReportById, ReportFinished
from segmentql.tables import Role
from segmentql.users.api import User
from segmentql.users.loaders import UserById


@strawberry.enum(description="How far a report is.")
class ReportStatus(enum.Enum):
    QUEUED = strawberry.enum_value("QUEUED", description="A worker will make it.")
    RUNNING = strawberry.enum_value("RUNNING", description="A worker is making it.")
    READY = strawberry.enum_value("READY", description="It can be downloaded.")
    FAILED = strawberry.enum_value("FAILED", description="It could not be made; see `failure`.")


@strawberry.type(
    description="A month of joins and leaves as a CSV file, kept for a while and then removed."
)
class Report:
    id: strawberry.ID = strawberry.field(description="Opaque.")
    user_id: strawberry.ID | None = strawberry.field(
        description="The number of the user whose history it is; null: all users'."
    )
    year: int = strawberry.field(description="The year, in UTC.")
    month: int = strawberry.field(description="The month, 1 to 12.")
    status: ReportStatus = strawberry.field(description="How far it is.")
    row_count: BigInt | None = strawberry.field(
        description="Joins and leaves in the file; null until READY."
    )
    size_bytes: BigInt | None = strawberry.field(
        description="The file's size in bytes; null until READY."
    )
    created_at: datetime = strawberry.field(description="When it was asked for.")
    finished_at: datetime | None = strawberry.field(description="When it became READY or FAILED.")
    failure: str | None = strawberry.field(description="Why it failed; null unless it did.")
    file_name: str = strawberry.field(description="What the downloaded file is called.")
    number: strawberry.Private[int]
    user_number: strawberry.Private[int | None]
    object_key: strawberry.Private[str | None]

    @classmethod
    def from_row(cls, row: Any) -> "Report":
        return cls(
            id=strawberry.ID(f"rep_{row.report_id}"),
            user_id=None if row.user_id is None else strawberry.ID(str(row.user_id)),
            year=row.year,
            month=row.month,
            status=ReportStatus(row.status),
            row_count=row.row_count,
            size_bytes=row.size_bytes,
            created_at=row.report_created_at,
            finished_at=row.finished_at,
            failure=row.failure,
            file_name=ReportScope(row.year, row.month, row.user_id).file_name,
            number=row.report_id,
            user_number=row.user_id,
            object_key=row.object_key,
        )

    @strawberry.field(description="The user, where it is one's and the user is stored now.")
    async def user(self, info: Info) -> User | None:
        if self.user_number is None:
            return None
        return await info.context.loader(UserById).load(self.user_number)

    @strawberry.field(
        description="A link to the file, signed anew at each read; whoever has it can download"
        " until it expires. Null until READY.",
        metadata=cost(5),
    )
    async def download_url(
        self,
        info: Info,
        expires_in_seconds: Annotated[
            int | None,
            strawberry.argument(description="How long the link works: 1 to 604800 seconds."),
        ] = 900,
    ) -> str | None:
        seconds = argument_value(
            validators.link_seconds,
            validators.DEFAULT_LINK_SECONDS if expires_in_seconds is None else expires_in_seconds,
            "expiresInSeconds",
        )
        if self.status is not ReportStatus.READY or self.object_key is None:
            return None
        return await info.context.storage.download_url(
            self.object_key, seconds=seconds, file_name=self.file_name
        )


@strawberry.type
class ReportQueries:
    @strawberry.field(
        description="One report; null where there is none, or it is not kept any more, or it is on"
        " all users and you are not ADMIN."
    )
    async def report(
        self,
        info: Info,
        id: Annotated[  # noqa: A002 - the argument's name in the contract
            strawberry.ID, strawberry.argument(description="The report's id.")
        ],
    ) -> Report | None:
        number = argument_value(validators.report_id, id, "id")
        report = await info.context.loader(ReportById).load(number)
        # Here and not in the loader, whose answers others share.
        is_hidden = report is not None and not _may_see(info, report.user_number)
        return None if is_hidden else report

    @strawberry.field(
        description="The reports that are kept, newest first; those on all users for ADMIN alone."
    )
    async def reports(
        self,
        info: Info,
        first: First = 20,
        after: After = strawberry.UNSET,
        user_id: Annotated[
            strawberry.ID | None, strawberry.argument(description="Only this user's.")
        ] = strawberry.UNSET,
    ) -> Connection[Report] | None:
        number = optional_argument(validators.user_id, user_id, "userId")
        page = parse_page_arguments(
            "reports", (is_row_id,), first, after, filters=(number,), default=20
        )
        before = int(page.after[0]) if page.after else validators.MAX_USER_ID
        rows = await info.context.read(
            lambda session: service.report_page(
                session,
                before=before,
                user_id=number,
                all_users_too=_may_see(info, None),
                rows=page.first + 1,
            )
        )
        return page.page(rows, Report.from_row, lambda row: (row.report_id,))


def _may_see(info: Info, user_number: int | None) -> bool:
    """Whether the caller may know of a report on that user, or with None on all users."""
    return user_number is not None or info.context.principal.has_role(Role.ADMIN)


@strawberry.input(description="Which month of whose history to report.")
class CreateReportInput:
    user_id: strawberry.ID | None = strawberry.field(
        default=strawberry.UNSET, description="Whose; null or absent: all users'."
    )
    year: int = strawberry.field(description="2000 to 9999, in UTC.")
    month: int = strawberry.field(description="1 to 12; not in the future.")
    wait_seconds: int | None = strawberry.field(
        default=5,
        description="Answer when the report is ready, or after so long: 0 to 60. It is made in any"
        " case.",
    )


@strawberry.type(description="What `createReport` did.")
class CreateReportPayload:
    report: Report | None = strawberry.field(
        description="The report, ready or as far as it is; null when refused."
    )
    errors: list[MutationError] = strawberry.field(
        description="Why it was refused.", metadata=cost(size=1)
    )


@strawberry.type
class ReportMutations:
    @strawberry.mutation(
        permission_classes=[NeedsReader],
        description="Ask for a month of joins and leaves as CSV; a worker makes the file."
        " Needs READER for one user's, ADMIN for all users'.",
    )
    async def create_report(
        self,
        info: Info,
        input: CreateReportInput,  # noqa: A002
    ) -> CreateReportPayload | None:
        if input.user_id in (None, strawberry.UNSET):
            require(info, Role.ADMIN, "a report on all users")
        try:
            check = InputValidator()
            user_id = check.optional(validators.user_id, input.user_id, "userId", absent=None)
            year = check.value(validators.year, input.year, "year")
            month = check.value(validators.month, input.month, "month")
            wait = input.wait_seconds
            wait_seconds = check.value(
                validators.wait_seconds,
                validators.DEFAULT_WAIT_SECONDS if wait is None else wait,
                "waitSeconds",
            )
            check.raise_errors()
            async with info.context.background.enter():
                row = await info.context.database.transaction(
                    lambda session: service.create_report(
                        session, user_id=user_id, year=year, month=month, actor=info.context.actor
                    )
                )
        except errors.MutationRejected as refused:
            return CreateReportPayload(report=None, errors=mutation_errors(refused))
        report = await _finished(info.context, Report.from_row(row), wait_seconds)
        return CreateReportPayload(report=report, errors=[])


async def _finished(context: Context, report: Report, wait_seconds: int) -> Report:
    """The report when it is finished, or as far as it is when the wait is over or we must end."""
    if not wait_seconds:
        return report
    finished: asyncio.Future[Any] = context.loader(ReportFinished).subscribe(report.number)
    stopping = asyncio.create_task(context.stopping.wait())
    try:
        with context.pause_deadline():
            await asyncio.wait(
                {finished, stopping}, timeout=wait_seconds, return_when=asyncio.FIRST_COMPLETED
            )
        if finished.done():
            ready: Report = finished.result()
            return ready
    finally:
        finished.cancel()
        stopping.cancel()
    # What cannot be read now was asked for all the same, and is told as it was then.
    with contextlib.suppress(errors.Unavailable, errors.TimedOut):
        report = await context.loader(ReportById).load(report.number) or report
    return report
