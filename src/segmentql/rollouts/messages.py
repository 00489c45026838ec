"""Delayed messages of rollouts: the starts of stages, and the expiry."""

from segmentql.adapters.jobs import MAX_DELAY_SECONDS, Message
from segmentql.adapters.sessions import WriteSession
from segmentql.memberships.jobs import EXPIRE_DUE_MEMBERSHIPS
from segmentql.rollouts.jobs import START_ROLLOUT_STAGE
from segmentql.rollouts.records import RolloutRecord


def enqueue_stage_starts(session: WriteSession, rollout: RolloutRecord) -> None:
    """Enqueue a delayed message for each stage that starts within `MAX_DELAY_SECONDS`."""
    for start in rollout.start_times[rollout.current :]:
        delay = (start - rollout.read_at).total_seconds()
        if delay <= MAX_DELAY_SECONDS:
            session.after_commit(
                Message(START_ROLLOUT_STAGE, (rollout.segment_id,), delay_seconds=max(delay, 0))
            )


def enqueue_expiry(session: WriteSession, rollout: RolloutRecord) -> None:
    """Enqueue a delayed message for the expiry if it is within `MAX_DELAY_SECONDS`."""
    if rollout.expires_at is None:
        return
    delay = (rollout.expires_at - rollout.read_at).total_seconds()
    if 0 < delay <= MAX_DELAY_SECONDS:
        session.after_commit(Message(EXPIRE_DUE_MEMBERSHIPS, delay_seconds=delay))
