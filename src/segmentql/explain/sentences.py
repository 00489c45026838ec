"""The sentences of an explanation: a summary that support can send on, and the steps."""

from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal

from segmentql.explain.facts import Facts, UnknownPlan
from segmentql.explain.reasons import ReasonResult, was_added_by_pass
from segmentql.explain.records import ExplanationReason, ExplanationStep
from segmentql.explain.rollout_view import RolloutView
from segmentql.imports.records import import_global_id
from segmentql.tables import Cause, RolloutState


def format_time(at: datetime) -> str:
    """Return a time to the second, in UTC."""
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def _on(at: datetime | None) -> str:
    return f" on {format_time(at)}" if at else ""


def _by(actor: str | None) -> str:
    return f' by the API key "{actor}"' if actor else ""


def _set_by(actor: str | None) -> str:
    return f' (set by the API key "{actor}")' if actor else ""


def _by_hand_or_import(import_id: int | None) -> str:
    return " by hand" if import_id is None else f" by import {import_global_id(import_id)}"


def _percent(percent: Decimal) -> str:
    return f"{percent.normalize():f} %"


def summary(facts: Facts, result: ReasonResult, rollout: RolloutView | None) -> str:
    """Return one or two sentences that state the reason."""
    since, actor, reason = result.since, result.actor, result.reason
    slug = f'"{facts.slug}"'
    user = "The user" if facts.user_id is None else f"User {facts.user_id}"
    if facts.is_in:
        end = f"; the membership ends{_on(result.until)}" if result.until else ""
        return f"{_summary_in(facts, result)}{end}."
    match reason:
        case ExplanationReason.NO_SUCH_SEGMENT:
            return f"No segment {'had' if facts.is_past else 'has'} the slug {slug}."
        case ExplanationReason.SEGMENT_DELETED:
            return f"The segment {slug} was deleted{_on(since)}{_by(actor)}."
        case ExplanationReason.USER_NOT_STORED:
            stored = f"{user} {'was' if facts.is_past else 'is'} not stored"
            return f"{stored}, because the user was deleted{_on(since)}." if since else f"{stored}."
        case ExplanationReason.LEFT_WITH_USER:
            return f"{user} left when the user was deleted{_on(since)}{_by(actor)}."
        case ExplanationReason.REMOVED_BY_HAND:
            return f"Removed{_by_hand_or_import(result.import_id)}{_on(since)}{_by(actor)}."
        case ExplanationReason.EXCLUDED:
            return (
                "Excluded from rollouts, because the user was removed"
                f"{_by_hand_or_import(result.import_id)}{_on(since)}{_by(actor)}."
            )
        case ExplanationReason.EXPIRED:
            return f"The membership ended by its TTL{_on(since)}."
        case ExplanationReason.REMOVED_BY_ROLLOUT:
            return f"Removed by the rollout{_on(since)}{_why_removed(facts)}."
        case ExplanationReason.NEVER_ADDED:
            if facts.unknown_plan is not None:
                return f"{_never_added(facts)}. The rollout's {_unknown_plan(facts.unknown_plan)}."
            return f"{_never_added(facts)}, and the segment has no rollout."
        case _:
            assert rollout is not None  # noqa: S101 - all other reasons are about a rollout
            return _summary_of_rollout(facts, result, rollout)


def _never_added(facts: Facts) -> str:
    has = f"User {facts.user_id} {'had' if facts.is_past else 'has'}"
    since = facts.history_since
    if facts.last_entry is None and since and facts.segment and facts.segment.created_at < since:
        stored_at = facts.lifetime.created_at if facts.lifetime else None
        if stored_at is None or stored_at < since:
            return (
                f'{has} not been added to "{facts.slug}" since {format_time(since)},'
                " the beginning of history"
            )
    if facts.last_entry is None or facts.lifetime is None:
        return f'{has} never been added to "{facts.slug}"'
    stored_on = _on(facts.lifetime.created_at)
    return f'{has} not been added to "{facts.slug}" since the user was stored{stored_on}'


def _unknown_plan(plan: UnknownPlan) -> str:
    since = f"after {format_time(plan.since)}" if plan.since else ""
    until = f"before {format_time(plan.until)}" if plan.until else ""
    return f"plan is not known {' and '.join(filter(None, (since, until)))}".rstrip()


def _summary_in(facts: Facts, result: ReasonResult) -> str:
    since, actor = result.since, result.actor
    match result.reason:
        case ExplanationReason.ADDED_BY_HAND | ExplanationReason.IMPORTED:
            return f"Added{_by_hand_or_import(result.import_id)}{_on(since)}{_by(actor)}"
        case ExplanationReason.ENROLLED_WHEN_STORED:
            return f"Added by the rollout{_set_by(actor)} when the user was stored{_on(since)}"
        case _:
            if facts.join_entry is not None and facts.join_entry.cause != Cause.ROLLOUT:
                return f"Added{_on(since)} and kept by the rollout{_set_by(actor)}"
            added = "Added by the rollout"
            if was_added_by_pass(facts) is None or facts.join_pass is None:
                return f"{added}{_set_by(actor)}{_on(since)}; the pass is not known"
            return f"{added} at {_percent(facts.join_pass.percent)}{_set_by(actor)}{_on(since)}"


def _why_removed(facts: Facts) -> str:
    removal = facts.removal_pass
    if removal is None:
        return "; the pass is not known"
    if removal.is_withdrawal:
        return ", because the rollout was withdrawn"
    return f", because its percent was lowered to {_percent(removal.percent)}"


def _summary_of_rollout(facts: Facts, result: ReasonResult, rollout: RolloutView) -> str:
    since, actor, plan = result.since, result.actor, rollout.plan
    percent = _percent(rollout.percent)
    match result.reason:
        case ExplanationReason.ROLLOUT_STOPPED:
            if plan.state == RolloutState.FAILED:
                return f"The rollout failed{_on(since)} before it added the user: {plan.failure}"
            return f"The rollout was cancelled{_on(since)}{_by(actor)} before it added the user."
        case ExplanationReason.ROLLOUT_EXPIRED:
            return f"The memberships of the rollout{_set_by(actor)} ended{_on(since)}."
        case ExplanationReason.STAGE_NOT_STARTED:
            return f"The first stage of the rollout{_set_by(actor)} starts{_on(result.until)}."
        case ExplanationReason.ROLLOUT_PAUSED:
            return f"The rollout was paused{_on(since)}{_by(actor)} before it added the user."
        case ExplanationReason.NEW_USERS_NOT_ENROLLED:
            return (
                f"The user was stored{_on(since)}, after the rollout{_set_by(actor)} had selected"
                " its users, and the rollout does not enroll new users."
            )
        case ExplanationReason.ABOVE_BOUND:
            return (
                f"Not in the sample of the rollout at {percent}{_set_by(actor)}: the user's hash is"
                f" at {rollout.hash_percent:.3f} % of the range."
            )
        case _:
            if not rollout.is_pass_known:
                return (
                    f"The rollout at {percent}{_set_by(actor)} has not added the user. Its pass is"
                    " not known."
                )
            return f"The rollout at {percent}{_set_by(actor)} has not added the user yet."


def _passed(check: str, detail: str) -> ExplanationStep:
    return ExplanationStep(check, passed=True, detail=detail)


def _failed(check: str, detail: str) -> ExplanationStep:
    return ExplanationStep(check, passed=False, detail=detail)


def steps(facts: Facts, rollout: RolloutView | None) -> list[ExplanationStep]:
    """Return the checks in the order of the table, until the first that decides."""
    return list(_steps(facts, rollout))


def _steps(facts: Facts, rollout: RolloutView | None) -> Iterator[ExplanationStep]:
    segment = facts.segment
    if segment is None:
        yield _failed("segment exists", f'No segment has the slug "{facts.slug}".')
        return
    if segment.deleted_at is not None and segment.deleted_at <= facts.at:
        detail = f"It was deleted{_on(segment.deleted_at)}{_by(facts.segment_deleted_by)}."
        yield _failed("segment exists", detail)
        return
    yield _passed("segment exists", f"It was created{_on(segment.created_at)}.")
    yield _stored_step(facts)
    if not facts.is_stored:
        return
    yield _member_step(facts)
    if facts.is_in:
        return
    exclusion = facts.exclusion
    if exclusion is not None:
        removed = f"The user was removed{_by_hand_or_import(exclusion.import_id)}"
        detail = f"{removed}{_on(exclusion.at)}{_by(exclusion.actor)}."
        yield _failed("user is not excluded", detail)
        return
    yield _passed("user is not excluded", "There is no exclusion.")
    yield from _rollout_steps(facts, rollout)


def _stored_step(facts: Facts) -> ExplanationStep:
    if facts.lifetime is not None:
        detail = f"The user was stored{_on(facts.lifetime.created_at)}."
        return _passed("user is stored", detail)
    if facts.user_deleted_later_at is not None:
        detail = (
            f"The user was deleted later,{_on(facts.user_deleted_later_at)}. It is not known when"
            " the user was stored."
        )
        return _passed("user is stored", detail)
    if facts.user_deleted_at is not None:
        detail = f"The user was deleted{_on(facts.user_deleted_at)}."
        return _failed("user is stored", detail)
    if facts.user_id is None:
        return _failed("user is stored", "No user is known to have had the key.")
    return _failed("user is stored", "The user was never stored.")


def _member_step(facts: Facts) -> ExplanationStep:
    entry = facts.last_entry
    if facts.is_in:
        return _passed("user is a member", f"The user joined{_on(facts.joined_at)}.")
    if entry is None:
        return _failed("user is a member", "The user has never joined.")
    detail = f"The user left{_on(entry.at)}{_by(entry.actor)}, with the cause {entry.cause}."
    return _failed("user is a member", detail)


def _rollout_steps(facts: Facts, rollout: RolloutView | None) -> Iterator[ExplanationStep]:
    if rollout is None:
        unknown_plan = facts.unknown_plan
        detail = (
            f"Its {_unknown_plan(unknown_plan)}." if unknown_plan else "The segment has no rollout."
        )
        yield _failed("rollout is active", detail)
        return
    plan = rollout.plan
    is_active = not rollout.is_stopped and not rollout.has_expired
    if plan.set_at is not None:
        set_ = f"Its plan was set{_on(plan.set_at)}{_by(plan.set_by)}."
    else:
        set_ = "It is not known when its plan was set."
    detail = f"{set_} Its state is {plan.state}"
    expiry = f", and its memberships end{_on(plan.expires_at)}" if plan.expires_at else ""
    yield ExplanationStep("rollout is active", is_active, f"{detail}{expiry}.")
    if not is_active:
        return
    if rollout.stage == 0:
        detail = f"The first stage starts{_on(plan.start_times[0])}."
        yield _failed("stage has started", detail)
        return
    start = plan.start_times[rollout.stage - 1]
    detail = f"Stage {rollout.stage} at {_percent(rollout.percent)} started{_on(start)}."
    yield _passed("stage has started", detail)
    yield _sample_step(rollout)
    stage_pass = rollout.stage_pass
    if not rollout.is_pass_known:
        yield _failed("pass has finished", "The pass is not known.")
    elif stage_pass is None:
        yield _failed("pass has finished", "The pass has not begun.")
    elif stage_pass.finished_at is None:
        detail = f"The pass began{_on(stage_pass.started_at)}."
        yield _failed("pass has finished", detail)
    else:
        detail = f"The pass finished{_on(stage_pass.finished_at)}."
        yield _passed("pass has finished", detail)


def _sample_step(rollout: RolloutView) -> ExplanationStep:
    stage_pass = rollout.stage_pass
    hash_text = f"The user's hash is {rollout.user_hash}"
    if not rollout.is_pass_known:
        detail = f"{hash_text}. The pass is not known."
    elif stage_pass is None or stage_pass.bound_hash is None:
        detail = f"{hash_text}. The pass has no sample yet."
    elif not rollout.is_new_user:
        detail = f"{hash_text}. The largest hash of the sample is {stage_pass.bound_hash}."
    elif rollout.plan.enroll_new_users:
        detail = (
            f"{hash_text}, at {rollout.hash_percent:.3f} % of the range. New users join below"
            f" {_percent(rollout.percent)}."
        )
    else:
        detail = "The user was stored after the pass had begun. New users do not join."
    return ExplanationStep("user is in the sample", passed=rollout.in_sample, detail=detail)
