"""The reason of an explanation: the first match of the table in `docs/explain.md`.

The functions are pure: they see only the facts, which were read in one snapshot.
"""

from dataclasses import dataclass
from datetime import datetime

from segmentql.explain.facts import Facts
from segmentql.explain.records import ExplanationReason
from segmentql.explain.rollout_view import RolloutView
from segmentql.history.records import HistoryEntryRecord
from segmentql.tables import Cause, Operation


@dataclass(frozen=True, slots=True)
class ReasonResult:
    """The reason, and what belongs to it."""

    reason: ExplanationReason
    since: datetime | None = None
    until: datetime | None = None
    actor: str | None = None
    import_id: int | None = None


def find_reason(facts: Facts, rollout: RolloutView | None) -> ReasonResult:
    """Return why the user is or is not in the segment.

    Args:
        facts: The facts.
        rollout: What `rollout_view` returns for the facts.
    """
    if facts.is_in:
        return _reason_in(facts)
    segment = facts.segment
    if segment is None:
        return ReasonResult(ExplanationReason.NO_SUCH_SEGMENT)
    if segment.deleted_at is not None and segment.deleted_at <= facts.at:
        return ReasonResult(
            ExplanationReason.SEGMENT_DELETED,
            since=segment.deleted_at,
            actor=facts.segment_deleted_by,
        )
    if not facts.is_stored:
        return _reason_not_stored(facts)
    return _reason_out(facts, rollout)


def _reason_in(facts: Facts) -> ReasonResult:
    join_entry, membership = facts.join_entry, facts.membership
    is_current = membership is not None and (
        not facts.is_past or join_entry is None or membership.updated_at <= facts.at
    )
    # The cause of a membership can change, which history does not record.
    source = membership if membership is not None and is_current else join_entry
    assert source is not None  # noqa: S101 - the join or the membership says that the user is in
    if source.cause == Cause.ROLLOUT:
        by_pass = was_added_by_pass(facts)
        reason = (
            ExplanationReason.ENROLLED_WHEN_STORED
            if by_pass is False
            else ExplanationReason.IN_SAMPLE
        )
    elif source.import_id is not None:
        reason = ExplanationReason.IMPORTED
    else:
        reason = ExplanationReason.ADDED_BY_HAND
    return ReasonResult(
        reason,
        since=facts.joined_at,
        until=membership.expires_at if membership else None,
        actor=source.actor,
        import_id=source.import_id,
    )


def was_added_by_pass(facts: Facts) -> bool | None:
    """Return whether a pass of the rollout added the user. None if it is not known.

    A pass adds only users that it counted. A user that is enrolled when stored joins in the
    transaction that stores the user. A pass waits for such transactions before it takes its
    sample. So when an enrolled user joins, the latest pass with a sample has not counted the user.
    """
    join_entry, lifetime = facts.join_entry, facts.lifetime
    if join_entry is None or join_entry.cause != Cause.ROLLOUT or lifetime is None:
        return None
    if not facts.is_join_pass_known:
        return None
    sampled = facts.join_pass
    if sampled is None or sampled.last_insert_seq is None:
        return False
    return lifetime.insert_seq <= sampled.last_insert_seq


def _reason_not_stored(facts: Facts) -> ReasonResult:
    entry, deleted_at = facts.last_entry, facts.user_deleted_at
    if (
        entry is not None
        and entry.cause == Cause.USER_DELETED
        and deleted_at is not None
        and entry.at >= deleted_at
    ):
        return ReasonResult(ExplanationReason.LEFT_WITH_USER, since=entry.at, actor=entry.actor)
    return ReasonResult(ExplanationReason.USER_NOT_STORED, since=deleted_at)


def _reason_out(facts: Facts, rollout: RolloutView | None) -> ReasonResult:
    leave = _leave(facts)
    if leave is not None and not (rollout and _has_decided_after(facts, rollout, leave.at)):
        return _reason_of_leave(facts, leave, rollout)
    if facts.exclusion is not None:
        return ReasonResult(
            ExplanationReason.EXCLUDED,
            since=facts.exclusion.at,
            actor=facts.exclusion.actor,
            import_id=facts.exclusion.import_id,
        )
    if rollout is None:
        entry = facts.last_entry
        if entry is not None and entry.cause == Cause.USER_DELETED:
            return ReasonResult(ExplanationReason.LEFT_WITH_USER, since=entry.at, actor=entry.actor)
        return ReasonResult(ExplanationReason.NEVER_ADDED)
    return _reason_of_rollout(facts, rollout)


def _leave(facts: Facts) -> HistoryEntryRecord | None:
    """Return the last leave, unless the user was deleted and stored again since."""
    entry, lifetime = facts.last_entry, facts.lifetime
    if entry is None or entry.operation != Operation.LEFT:
        return None
    if lifetime is None:
        return entry
    is_of_lifetime = entry.cause != Cause.USER_DELETED and entry.at >= lifetime.created_at
    return entry if is_of_lifetime else None


def _has_decided_after(facts: Facts, rollout: RolloutView, left_at: datetime) -> bool:
    """Return whether the plan was set, or a pass began or took its sample, after a leave."""
    decisions = (rollout.plan.set_at, facts.last_decision_at)
    return any(at is not None and at > left_at for at in decisions)


def _reason_of_leave(
    facts: Facts, leave: HistoryEntryRecord, rollout: RolloutView | None
) -> ReasonResult:
    if leave.cause == Cause.TTL:
        with_rollout = (
            rollout is not None
            and rollout.plan.expires_at == leave.at
            and facts.join_entry is not None
            and facts.join_entry.cause == Cause.ROLLOUT
        )
        reason = ExplanationReason.ROLLOUT_EXPIRED if with_rollout else ExplanationReason.EXPIRED
    elif leave.cause == Cause.ROLLOUT:
        reason = ExplanationReason.REMOVED_BY_ROLLOUT
    elif leave.cause == Cause.USER_DELETED:
        reason = ExplanationReason.LEFT_WITH_USER
    else:
        reason = ExplanationReason.REMOVED_BY_HAND
    return ReasonResult(reason, since=leave.at, actor=leave.actor, import_id=leave.import_id)


def _reason_of_rollout(facts: Facts, rollout: RolloutView) -> ReasonResult:
    """Return why the rollout has not added the user, who is stored and not excluded."""
    plan, stage_pass = rollout.plan, rollout.stage_pass
    if rollout.is_stopped:
        return ReasonResult(
            ExplanationReason.ROLLOUT_STOPPED, since=plan.changed_at, actor=plan.changed_by
        )
    if rollout.has_expired:
        return ReasonResult(
            ExplanationReason.ROLLOUT_EXPIRED, since=plan.expires_at, actor=plan.set_by
        )
    if rollout.stage == 0:
        if rollout.is_paused:
            return ReasonResult(
                ExplanationReason.ROLLOUT_PAUSED, since=plan.changed_at, actor=plan.changed_by
            )
        return ReasonResult(
            ExplanationReason.STAGE_NOT_STARTED,
            since=plan.changed_at,
            until=plan.start_times[0],
            actor=plan.set_by,
        )
    if stage_pass is not None and rollout.has_sample:
        if rollout.is_new_user and not plan.enroll_new_users:
            return ReasonResult(
                ExplanationReason.NEW_USERS_NOT_ENROLLED,
                since=facts.lifetime.created_at if facts.lifetime else None,
                actor=plan.set_by,
            )
        if not rollout.in_sample:
            return ReasonResult(
                ExplanationReason.ABOVE_BOUND, since=stage_pass.sampled_at, actor=plan.set_by
            )
    if rollout.is_paused:
        return ReasonResult(
            ExplanationReason.ROLLOUT_PAUSED, since=plan.changed_at, actor=plan.changed_by
        )
    if not rollout.is_pass_known:
        return ReasonResult(ExplanationReason.PASS_NOT_FINISHED, actor=plan.set_by)
    return ReasonResult(
        ExplanationReason.PASS_NOT_FINISHED,
        since=stage_pass.started_at if stage_pass else plan.start_times[rollout.stage - 1],
        actor=plan.set_by,
    )
