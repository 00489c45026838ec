"""Explains why a user is or is not in a segment."""

from datetime import datetime

from segmentql.adapters.sessions import ReadSession
from segmentql.explain.facts import Facts
from segmentql.explain.reading import read_facts
from segmentql.explain.reasons import find_reason
from segmentql.explain.records import ExplanationRecord
from segmentql.explain.rollout_view import rollout_view
from segmentql.explain.sentences import steps, summary
from segmentql.users.service import user_id_by_key_at


async def explain(
    session: ReadSession,
    *,
    user_id: int | None = None,
    user_key: str | None = None,
    slug: str,
    as_of: datetime | None = None,
) -> ExplanationRecord | None:
    """Explain why a user is or is not in the segment with a slug.

    Args:
        session: The session.
        user_id: The user's id. The user may be stored or not. Set either `user_id` or `user_key`.
        user_key: The key that the user had at the time, or last before it.
        slug: The slug. It may have had several segments, or none.
        as_of: A time in the past; None for now.

    Returns:
        The explanation, or None if `as_of` is in the future.

    Raises:
        HistoryDropped: `as_of` is before the beginning of history.
    """
    if user_key is not None:
        user_id = await user_id_by_key_at(session, user_key, as_of)
    facts = await read_facts(session, user_id=user_id, slug=slug, as_of=as_of)
    return explain_facts(facts) if facts else None


def explain_facts(facts: Facts) -> ExplanationRecord:
    """Return the explanation that follows from the facts."""
    rollout = rollout_view(facts)
    result = find_reason(facts, rollout)
    return ExplanationRecord(
        is_in=facts.is_in,
        reason=result.reason,
        summary=summary(facts, result, rollout),
        at=facts.at,
        segment=facts.segment,
        since=result.since,
        until=result.until,
        actor=result.actor,
        membership=facts.membership,
        last_entry=facts.last_entry,
        rollout=rollout.position if rollout and facts.is_stored else None,
        steps=steps(facts, rollout),
    )
