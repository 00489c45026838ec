"""The bodies of responses of OFREP.

Values of `metadata` that do not exist are omitted, because the protocol does not allow null. Each
flag has `variant` and each failure `errorDetails`, because the provider for Python fails without.
"""

from functools import lru_cache
from typing import Any, Final

import orjson

from segmentql.graphql.types.error_texts import shorten_value
from segmentql.ofrep.failures import ErrorCode
from segmentql.ofrep.records import FlagRecord, FlagsRecord
from segmentql.tables import Cause
from segmentql.validators import MAX_SLUG_LENGTH

_REASONS: Final = {Cause.MANUAL: "TARGETING_MATCH", Cause.ROLLOUT: "SPLIT"}
"""The `reason` of a true flag by the cause of the membership."""

_NOT_IN_REASON: Final = "STATIC"


def flag_body(slug: str, flag: FlagRecord) -> dict[str, Any]:
    """Return the body of one flag."""
    if flag.cause is None:
        return {
            "key": slug,
            "value": False,
            "reason": _NOT_IN_REASON,
            "variant": "out",
            "metadata": {},
        }
    metadata = {"cause": flag.cause.value, "joinedAt": flag.joined_at}
    if flag.expires_at is not None:
        metadata["expiresAt"] = flag.expires_at
    return {
        "key": slug,
        "value": True,
        "reason": _REASONS[flag.cause],
        "variant": "in",
        "metadata": metadata,
    }


def flags_body(record: FlagsRecord) -> bytes:
    """Return the body of all flags of a user, in the order of their slugs."""
    flags = record.flags
    parts = [
        orjson.dumps(flag_body(slug, flags[slug])) if slug in flags else _false_flag(slug)
        for slug in sorted(record.slugs)
    ]
    metadata = orjson.dumps({"truncated": record.is_truncated})
    return b'{"flags":[%b],"metadata":%b}' % (b",".join(parts), metadata)


@lru_cache(maxsize=4_000)
def _false_flag(slug: str) -> bytes:
    return orjson.dumps(flag_body(slug, FlagRecord()))


def failure_body(slug: str | None, code: ErrorCode, details: str) -> dict[str, Any]:
    """Return the body of a failure.

    Args:
        slug: The requested slug, of which a long one is shortened; None for all flags.
        code: The `errorCode`.
        details: The `errorDetails`.
    """
    failure = {"errorCode": code.value, "errorDetails": details}
    if slug is None:
        return failure
    # No segment has a longer slug, so that no client needs the whole of it.
    key = slug if len(slug) <= MAX_SLUG_LENGTH else shorten_value(slug)
    return {"key": key, **failure}
