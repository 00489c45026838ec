"""GraphQL types, queries and mutations of reports."""

from collections.abc import Awaitable
from datetime import datetime
from typing import Annotated

import strawberry
from strawberry import Parent

from segmentql import validators
from segmentql.graphql.context import Info
from segmentql.graphql.cost.field_cost import cost
from segmentql.graphql.types.enums import describe_enum
from segmentql.graphql.types.errors import MutationError
from segmentql.graphql.types.mutations import run_mutation
from segmentql.graphql.types.nodes import register_node
from segmentql.graphql.types.pagination import (
    After,
    Connection,
    First,
    is_row_id,
    parse_page_arguments,
)
from segmentql.graphql.types.permissions import NeedsReader, require
from segmentql.graphql.types.scalars import BigInt
from segmentql.graphql.types.stored_results import register_entity
from segmentql.graphql.types.validation import InputValidator, argument_value, optional_argument
from segmentql.graphql.types.waiting import wait_until_finished
from segmentql.reports import service
from segmentql.reports.loaders import FinishedReport, ReportById
from segmentql.reports.records import ReportRecord, ReportScope
from segmentql.tables import ReportStatus, Role
from segmentql.users.api import User
from segmentql.users.loaders import UserById
from segmentql.users.records import UserRecord

describe_enum(
    ReportStatus,
    "The status of a report.",
    {
        ReportStatus.QUEUED: "The report waits for a worker.",
        ReportStatus.RUNNING: "A worker is making the report.",
        ReportStatus.READY: "The file can be downloaded.",
        ReportStatus.FAILED: "The report could not be made; see `failure`.",
    },
)


def _report_id(report: Parent[ReportRecord]) -> strawberry.ID:
    return strawberry.ID(report.global_id)


@strawberry.type(
    description="A month of joins and leaves as a CSV file. Reports are removed after a retention"
    " period."
)
class Report:
    id: strawberry.ID = strawberry.field(resolver=_report_id, description="Opaque id.")

    user_id: strawberry.ID | None = strawberry.field(
        description="The id of the user whose history the report contains. Null for all users."
    )
    year: int = strawberry.field(description="The year, in UTC.")
    month: int = strawberry.field(description="The month, 1 to 12.")
    with_keys: bool = strawberry.field(
        description="Whether the file has a fifth column with the users' keys."
    )
    status: ReportStatus = strawberry.field(description="The status of the report.")
    row_count: BigInt | None = strawberry.field(
        description="Number of joins and leaves in the file. Null until the report is READY."
    )
    size_bytes: BigInt | None = strawberry.field(
        description="Size of the file in bytes. Null until the report is READY."
    )
    created_at: datetime = strawberry.field(description="When the report was requested.")
    finished_at: datetime | None = strawberry.field(
        description="When the report became READY or FAILED."
    )
    failure: str | None = strawberry.field(
        description="Why the report failed. Null unless the status is FAILED."
    )

    file_name: str = strawberry.field(description="The name of the downloaded file.")

    @strawberry.field(
        description="The user. Null for all users, or if the user is not stored.",
        graphql_type=User | None,
    )
    @staticmethod
    def user(report: Parent[ReportRecord], info: Info) -> Awaitable[UserRecord | None] | None:
        user_id = report.user_id
        return None if user_id is None else info.context.loader(UserById).load(user_id)

    @strawberry.field(
        description="A link to the file, newly signed at each read. Anyone with the link can"
        " download the file until the link expires. Null until the report is READY.",
        metadata=cost(5),
    )
    @staticmethod
    async def download_url(
        report: Parent[ReportRecord],
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
        if report.status is not ReportStatus.READY or report.object_key is None:
            return None
        return await info.context.storage.download_url(
            report.object_key, seconds=seconds, file_name=report.file_name
        )


@strawberry.type
class ReportQueries:
    @strawberry.field(
        description="One report. Null if it does not exist or was removed, and for a report on all"
        " users unless the caller is ADMIN.",
        graphql_type=Report | None,
    )
    async def report(
        self,
        info: Info,
        id: Annotated[  # noqa: A002 - the name of the GraphQL argument
            strawberry.ID, strawberry.argument(description="The report's id.")
        ],
    ) -> ReportRecord | None:
        report_id = argument_value(validators.report_id, id, "id")
        return await _visible_report(info, report_id)

    @strawberry.field(
        description="The stored reports, newest first. Callers without the role ADMIN see"
        " only reports on single users.",
        graphql_type=Connection[Report] | None,
    )
    async def reports(
        self,
        info: Info,
        first: First = 20,
        after: After = strawberry.UNSET,
        user_id: Annotated[
            strawberry.ID | None,
            strawberry.argument(description="Return only reports on this user."),
        ] = strawberry.UNSET,
    ) -> Connection[ReportRecord]:
        known_user_id = optional_argument(validators.user_id, user_id, "userId")
        page = parse_page_arguments(
            "reports", (is_row_id,), first, after, filters=(known_user_id,), default=20
        )
        before = int(page.after[0]) if page.after else validators.MAX_USER_ID
        reports = await info.context.read(
            lambda session: service.report_page(
                session,
                before=before,
                user_id=known_user_id,
                with_all_users=_may_read(info, None),
                rows=page.first + 1,
            )
        )
        return page.page(reports, lambda report: (report.report_id,))


async def _visible_report(info: Info, report_id: int) -> ReportRecord | None:
    """Return a report; None if it does not exist or the caller may not read it."""
    report = await info.context.loader(ReportById).load(report_id)
    # The check is not in the loader, because requests of other callers share its results.
    is_hidden = report is not None and not _may_read(info, report.user_id)
    return None if is_hidden else report


def _may_read(info: Info, user_id: int | None) -> bool:
    """Return whether the caller may read reports on this user, or if None on all users."""
    return user_id is not None or info.context.principal.has_role(Role.ADMIN)


@strawberry.input(description="Input of `createReport`.")
class CreateReportInput:
    user_id: strawberry.ID | None = strawberry.field(
        default=strawberry.UNSET,
        description="The user's id. If null or omitted, the report is on all users.",
    )
    year: int = strawberry.field(description="The year in UTC, 2000 to 9999.")
    month: int = strawberry.field(description="The month, 1 to 12. It must not be in the future.")
    with_keys: bool | None = strawberry.field(
        default=False,
        description="Whether the file has a fifth column, `user_key`: the key that"
        " `HistoryEntry.userKey` has for the entry, or nothing if it is null. If `deleteUser`"
        " erases one of the keys, the file is deleted and made again.",
    )
    wait_seconds: int | None = strawberry.field(
        default=5,
        description="The maximum time to wait until the report is finished: 0 to 60 seconds. The"
        " worker generates the report even if this wait ends first.",
    )


@strawberry.type(description="Result of `createReport`.")
class CreateReportPayload:
    report: ReportRecord | None = strawberry.field(
        default=None,
        graphql_type=Report | None,
        description="The report, which may be unfinished. Null if the mutation was rejected.",
    )
    errors: list[MutationError] = strawberry.field(
        default_factory=list,
        description="Why the mutation was rejected. Empty if it succeeded.",
        metadata=cost(size=1),
    )


@strawberry.type
class ReportMutations:
    @strawberry.mutation(
        permission_classes=[NeedsReader],
        description="Request a month of joins and leaves as CSV. A worker makes the file. Needs"
        " READER for a report on one user and ADMIN for a report on all users.",
    )
    async def create_report(
        self,
        info: Info,
        input: CreateReportInput,  # noqa: A002
    ) -> CreateReportPayload | None:
        if input.user_id in (None, strawberry.UNSET):
            require(info, Role.ADMIN, "a report on all users")
        validator = InputValidator()
        user_id = validator.optional(validators.user_id, input.user_id, "userId", absent=None)
        year = validator.value(validators.year, input.year, "year")
        month = validator.value(validators.month, input.month, "month")
        wait = input.wait_seconds
        wait_seconds = validator.value(
            validators.wait_seconds,
            validators.DEFAULT_WAIT_SECONDS if wait is None else wait,
            "waitSeconds",
        )
        scope = ReportScope(year, month, user_id, input.with_keys or False)
        # Many reports that are requested at once must not block the event loop.
        payload = await run_mutation(
            info,
            CreateReportPayload,
            validator,
            lambda session: service.create_report(session, scope, actor=info.context.actor),
            lambda report: CreateReportPayload(report=report),
            limiter=info.context.background,
        )
        if payload.report:
            payload.report = await wait_until_finished(
                info.context,
                payload.report,
                payload.report.report_id,
                finished=FinishedReport,
                current=ReportById,
                seconds=wait_seconds,
            )
        return payload


register_entity(
    ReportRecord,
    "report",
    lambda report: report.report_id,
    lambda context, key: context.loader(ReportById).load(key),
)
register_node(Report, ReportRecord, "rep_", _visible_report)
