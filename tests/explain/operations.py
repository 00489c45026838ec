"""The `explain` query, as clients send it."""

from datetime import datetime
from typing import Any

from tests.conftest import Api

EXPLANATION = """
isIn reason summary at since until actor
segment { id slug deletedAt }
membership { id cause }
lastEntry { id operation cause actor at }
rollout { hash hashPercent boundHash inSample percent passFinishedAt }
steps { check passed detail }
"""
EXPLAIN = f"""
query($userId: ID!, $slug: String!, $asOf: DateTime) {{
  explain(userId: $userId, slug: $slug, asOf: $asOf) {{ {EXPLANATION} }}
}}
"""


async def explain(
    api: Api, user_id: int = 7, slug: str = "A", as_of: datetime | None = None
) -> Any:
    """Return the explanation of a user and a segment."""
    variables: dict[str, Any] = {"userId": str(user_id), "slug": slug}
    if as_of is not None:
        variables["asOf"] = as_of.isoformat()
    return (await api(EXPLAIN, **variables))["explain"]


def reason(explanation: Any) -> tuple[bool, str]:
    """Return whether the user is in the segment, and the reason."""
    return explanation["isIn"], explanation["reason"]


async def segments_as_of(api: Api, user_id: int, at: datetime, field: str = "slug") -> list[str]:
    """Return a field of each segment of `segments(asOf:)`; empty if the user is not stored."""
    selection = f"user(id: $id) {{ segments(asOf: $at) {{ {field} }} }}"
    query = f"query($id: ID!, $at: DateTime) {{ {selection} }}"
    user = (await api(query, id=str(user_id), at=at.isoformat()))["user"]
    return [segment[field] for segment in user["segments"]] if user else []
