"""Reads of explanations. They are not batched, because people ask for one at a time."""

from datetime import datetime

from segmentql.errors import HistoryDropped
from segmentql.explain import service
from segmentql.explain.records import ExplanationRecord
from segmentql.graphql.context import Context
from segmentql.graphql.types.times import time_out_of_range


async def load_explanation(
    context: Context,
    *,
    user_id: int | None,
    user_key: str | None,
    slug: str,
    as_of: datetime | None,
) -> ExplanationRecord:
    """Read an explanation.

    Raises:
        GraphQLError: with code BAD_REQUEST, if the time is in the future of the database's clock,
            or before the beginning of history.
    """
    earliest_at = None
    try:
        explanation = await context.read(
            lambda session: service.explain(
                session, user_id=user_id, user_key=user_key, slug=slug, as_of=as_of
            )
        )
    except HistoryDropped as error:
        explanation, earliest_at = None, error.earliest_at
    if explanation is None:
        assert as_of is not None  # noqa: S101 - the present can be explained
        raise time_out_of_range("asOf", as_of, earliest_at)
    return explanation
