"""The bodies of responses of OFREP.

Values of `metadata` that do not exist are omitted, because the protocol does not allow null. Each
flag has `variant` and each failure `errorDetails`, because the provider for Python fails without.
"""

from functools import lru_cache
from typing import Any, Final

import orjson

from segmentql.ofrep.failures import ErrorCode
from segmentql.ofrep.records import FlagRecord, FlagsRecord
from segmentql.tables import Cause

_REASONS: Final = {Cause.MANUAL: "TARGETING_MATCH", Cause.ROLLOUT: "SPLIT"}
"""The `reason` of a true flag by the cause of the membership."""

_NOT_IN_REASON: Final = "STATIC"


def flag_answer(slug: str, flag: FlagRecord) -> dict[str, Any]:
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
        "reason": _REASONS.get(flag.cause, _NOT_IN_REASON),
        "variant": "in",
        "metadata": metadata,
    }


def flags_answer(record: FlagsRecord) -> bytes:
    """Return the body of all flags of a user, in the order of their slugs."""
    flags = record.flags
    parts = [
        orjson.dumps(flag_answer(slug, flags[slug])) if slug in flags else _false_flag(slug)
        for slug in sorted(record.slugs)
    ]
    metadata = orjson.dumps({"truncated": record.is_truncated})
    return b'{"flags":[%b],"metadata":%b}' % (b",".join(parts), metadata)


@lru_cache(maxsize=4_000)
def _false_flag(slug: str) -> bytes:
    return orjson.dumps(flag_answer(slug, FlagRecord()))


def failure_answer(slug: str | None, code: ErrorCode, details: str) -> dict[str, Any]:
    """Return the body of a failure; `slug` is None for a request of all flags."""
    failure = {"errorCode": code.value, "errorDetails": details}
    return failure if slug is None else {"key": slug, **failure}
