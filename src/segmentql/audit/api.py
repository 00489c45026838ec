"""GraphQL types and queries of the audit log."""

from datetime import datetime
from typing import Annotated, Final

import strawberry
from strawberry import Parent

from segmentql import validators
from segmentql.audit.loaders import AuditPages
from segmentql.audit.records import AuditEntryRecord, AuditPage, AuditPosition
from segmentql.graphql.context import Info
from segmentql.graphql.cost.field_cost import HISTORY_SCAN, cost
from segmentql.graphql.types.pagination import (
    After,
    Connection,
    First,
    is_row_id,
    is_timestamp_sort_key,
    parse_page_arguments,
    timestamp_of_sort_key,
    timestamp_sort_key,
)
from segmentql.graphql.types.permissions import NeedsEditor
from segmentql.graphql.types.times import From, To, check_time_range, time_filter
from segmentql.graphql.types.validation import optional_argument
from segmentql.tables import Role

STATE_CHARACTERS: Final = 2 * validators.MAX_DESCRIPTION_LENGTH
"""About the length of a state with the longest description and a rollout of 50 stages."""


def _entry_id(entry: Parent[AuditEntryRecord]) -> strawberry.ID:
    return strawberry.ID(f"aud_{entry.entry_id}")


@strawberry.type(
    description="A change of a segment, a rollout or an API key, a request for a report or an"
    " export, or a step of an import. The entry is stored together with the change and never"
    " changes."
)
class AuditEntry:
    id: strawberry.ID = strawberry.field(resolver=_entry_id, description="Opaque id.")

    at: datetime = strawberry.field(description="When the change was made.")
    actor: str | None = strawberry.field(
        description="The name of the API key that made the change. Null if a command or a worker"
        " made it, or if authentication was off."
    )
    action: str = strawberry.field(
        description="The kind of change, such as `segment.updated`. Later versions may add kinds."
    )
    target: str = strawberry.field(
        description="The id of the segment, rollout, API key, report, export or import."
    )
    before: str | None = strawberry.field(
        description="The state before the change, as a JSON object whose fields depend on `action`."
        " Null if the target did not exist before.",
        metadata=cost(characters=STATE_CHARACTERS),
    )
    after: str | None = strawberry.field(
        description="The state after the change, as a JSON object whose fields depend on `action`."
        " Null if the target was deleted or revoked.",
        metadata=cost(characters=STATE_CHARACTERS),
    )
    request_id: str | None = strawberry.field(
        description="The id of the request that made the change, as in the header `X-Request-Id` of"
        " its response and in the service's logs. A client may choose the id and use it again. Null"
        " if a command or a worker made the change."
    )


@strawberry.type
class AuditQueries:
    @strawberry.field(
        permission_classes=[NeedsEditor],
        description="The audit log, newest first: changes of segments, rollouts and API keys,"
        " requests for reports and exports, and steps of imports. EDITOR sees the entries of"
        " segments, rollouts, imports and exports, ADMIN sees all. Needs EDITOR.",
        graphql_type=Connection[AuditEntry] | None,
        metadata=cost(if_given={"slug": HISTORY_SCAN}),
    )
    async def audit_log(
        self,
        info: Info,
        first: First = 50,
        after: After = strawberry.UNSET,
        slug: Annotated[
            str | None,
            strawberry.argument(
                description="Return only entries of segments with this slug, deleted ones included,"
                " and of their rollouts, imports and exports."
            ),
        ] = strawberry.UNSET,
        actor: Annotated[
            str | None,
            strawberry.argument(
                description="Return only entries whose `actor` is exactly this name of an API key."
                " Several API keys may have had the same name."
            ),
        ] = strawberry.UNSET,
        from_: From = strawberry.UNSET,
        to: To = strawberry.UNSET,
    ) -> Connection[AuditEntryRecord]:
        known_slug = optional_argument(validators.slug, slug, "slug")
        known_actor = optional_argument(validators.name, actor, "actor")
        page = parse_page_arguments(
            "audit log",
            (is_timestamp_sort_key, is_row_id),
            first,
            after,
            filters=(known_slug, known_actor, time_filter(from_), time_filter(to)),
        )
        check_time_range(from_, to)
        entries = await info.context.loader(AuditPages).load(
            AuditPage(
                rows=page.first + 1,
                segments_only=not info.context.principal.has_role(Role.ADMIN),
                after=_position(*page.after) if page.after else None,
                since=from_ or None,  # UNSET is false
                until=to or None,
                actor=known_actor,
                slug=known_slug,
            )
        )
        return page.page(entries, lambda entry: (timestamp_sort_key(entry.at), entry.entry_id))


def _position(at: int | str, entry_id: int | str) -> AuditPosition:
    return AuditPosition(timestamp_of_sort_key(int(at)), int(entry_id))
