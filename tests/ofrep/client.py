"""Requests of OFREP, and segments to evaluate."""

from typing import Any

import httpx

from tests.back_dating import NOON, insert_membership
from tests.conftest import Api, Sql
from tests.operations import make_segments

FLAGS = "/ofrep/v1/evaluate/flags"
UNSTORED = "99"


async def store_memberships(api: Api, sql: Sql) -> None:
    """Store segments: user 1 is in A by hand, in B by a rollout until 2099, and not in C any more.

    The user has the key `ada`.
    """
    await make_segments(api, "B", "A", "C")
    await insert_membership(sql, 1, "A")
    end = NOON.replace(year=2099, microsecond=123456)
    await insert_membership(sql, 1, "B", expires_at=end, cause="ROLLOUT")
    await insert_membership(sql, 1, "C", expires_at=NOON.replace(hour=13))
    await sql.execute("UPDATE users SET key = 'ada' WHERE id = 1")


def body_of(targeting_key: object) -> dict[str, Any]:
    """Return the body of a request with the context of SDKs, which send attributes, too."""
    return {"context": {"targetingKey": targeting_key, "plan": "free", "nested": {"a": [1]}}}


async def evaluate(
    api: Api, slug: str | None, targeting_key: object, **headers: str
) -> httpx.Response:
    """Evaluate one flag, or all flags if `slug` is None."""
    path = FLAGS if slug is None else f"{FLAGS}/{slug}"
    return await api.http.post(path, json=body_of(targeting_key), headers=headers)


def true_flag(slug: str, reason: str, **metadata: str) -> dict[str, Any]:
    return {"key": slug, "value": True, "reason": reason, "variant": "in", "metadata": metadata}


def false_flag(slug: str) -> dict[str, Any]:
    return {"key": slug, "value": False, "reason": "STATIC", "variant": "out", "metadata": {}}


BY_HAND = true_flag("A", "TARGETING_MATCH", cause="MANUAL", joinedAt="2024-03-01T12:00:00.000000Z")
BY_ROLLOUT = true_flag(
    "B",
    "SPLIT",
    cause="ROLLOUT",
    joinedAt="2024-03-01T12:00:00.000000Z",
    expiresAt="2099-03-01T12:00:00.123456Z",
)
EXPIRED = false_flag("C")
