"""The evaluation context in the body of a request: which user it is about."""

import enum
from typing import Any

from segmentql import validators
from segmentql.errors import BadValue
from segmentql.ofrep.failures import ErrorCode, EvaluationFailure


class TargetingKey(enum.StrEnum):
    """What the `targetingKey` of a context is."""

    ID = "id"
    KEY = "key"


def targeting_key_of(body: Any) -> object:
    """Return the `targetingKey` of the context in a body.

    Raises:
        EvaluationFailure: The body has no context with a `targetingKey`.
    """
    if not isinstance(body, dict):
        raise EvaluationFailure(
            ErrorCode.PARSE_ERROR, "The body must be a JSON object.", "the body is not an object"
        )
    context = body.get("context")
    if context is not None and not isinstance(context, dict):
        raise EvaluationFailure(
            ErrorCode.INVALID_CONTEXT,
            "`context` must be a JSON object.",
            "the context is not an object",
        )
    targeting_key = context.get("targetingKey") if context else None
    if targeting_key is None or targeting_key == "":
        raise EvaluationFailure(
            ErrorCode.TARGETING_KEY_MISSING,
            "The context has no `targetingKey`, which names the user.",
            "the context has no targetingKey",
        )
    return targeting_key


def user_id_of(targeting_key: object) -> int:
    """Return the user id in a `targetingKey`, which is a string or an integer.

    Raises:
        EvaluationFailure: The value is not a user id.
    """
    is_integer = isinstance(targeting_key, int) and not isinstance(targeting_key, bool)
    if not is_integer and not isinstance(targeting_key, str):
        raise _invalid("the value is not a string", validators.USER_ID_ALLOWED)
    try:
        return validators.user_id(str(targeting_key))
    except BadValue as bad:
        raise _invalid(bad.problem, bad.allowed) from None


def user_key_of(targeting_key: object) -> str:
    """Return the user key in a `targetingKey`.

    Raises:
        EvaluationFailure: The value is not a user key.
    """
    if not isinstance(targeting_key, str):
        raise _invalid("the value is not a string", validators.USER_KEY_ALLOWED)
    try:
        return validators.user_key(targeting_key)
    except BadValue as bad:
        raise _invalid(bad.problem, bad.allowed) from None


def _invalid(problem: str, allowed: str) -> EvaluationFailure:
    return EvaluationFailure(
        ErrorCode.INVALID_CONTEXT,
        validators.invalid_value_message("targetingKey", problem, allowed),
        "the targetingKey is not valid",
    )
