"""GraphQL operations that several tests send."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from tests.conftest import Api

ERRORS = """
errors {
  __typename code message path
  ... on InvalidInput { allowed }
  ... on SegmentNotFound { slugs }
  ... on SegmentAlreadyExists { segment { id slug name version } }
  ... on UserAlreadyExists { user { id createdAt key } }
  ... on VersionConflict { current { id slug name version } }
}
"""

UPDATE_USER_SEGMENTS = f"""
mutation Update($input: UpdateUserSegmentsInput!) {{
  updateUserSegments(input: $input) {{
    user {{
      id key
      segments {{ slug }}
      memberships {{ id joinedAt updatedAt expiresAt cause segment {{ slug }} }}
    }}
    segmentsAdded segmentsRemoved segmentsExtended
    {ERRORS}
  }}
}}
"""

CREATE_USER = f"""
mutation Create($input: CreateUserInput!) {{
  createUser(input: $input) {{ user {{ id key createdAt segments {{ slug }} }} {ERRORS} }}
}}
"""

UPDATE_USER = f"""
mutation Update($input: UpdateUserInput!) {{
  updateUser(input: $input) {{ user {{ id key createdAt }} {ERRORS} }}
}}
"""

DELETE_USER = f"""
mutation Delete($input: DeleteUserInput!) {{
  deleteUser(input: $input) {{ deletedId {ERRORS} }}
}}
"""

SEGMENT = "id slug name description createdAt updatedAt deletedAt version"

CREATE_SEGMENT = f"""
mutation Create($input: CreateSegmentInput!) {{
  createSegment(input: $input) {{ segment {{ {SEGMENT} }} {ERRORS} }}
}}
"""

UPDATE_SEGMENT = f"""
mutation Update($input: UpdateSegmentInput!) {{
  updateSegment(input: $input) {{ segment {{ {SEGMENT} }} {ERRORS} }}
}}
"""

DELETE_SEGMENT = f"""
mutation Delete($input: DeleteSegmentInput!) {{
  deleteSegment(input: $input) {{ deletedId {ERRORS} }}
}}
"""


async def make_segments(api: Api, *slugs: str) -> None:
    """Create segments, whose ids start at 1 in an empty database."""
    for slug in slugs:
        payload = await create_segment(api, slug=slug)
        assert payload["errors"] == []


async def create_segment(api: Api, **fields: Any) -> Any:
    return (await api(CREATE_SEGMENT, input=fields))["createSegment"]


async def update_segment(api: Api, **fields: Any) -> Any:
    return (await api(UPDATE_SEGMENT, input=fields))["updateSegment"]


async def delete_segment(api: Api, slug: str, **fields: Any) -> Any:
    return (await api(DELETE_SEGMENT, input={"slug": slug, **fields}))["deleteSegment"]


async def create_user(api: Api, **fields: Any) -> Any:
    return (await api(CREATE_USER, input=fields))["createUser"]


async def set_user_key(api: Api, user_id: int, key: str) -> Any:
    return (await api(UPDATE_USER, input={"id": str(user_id), "key": key}))["updateUser"]


async def delete_user(api: Api, user: int | str, **fields: Any) -> Any:
    """Delete a user by id, which is an integer, or by key, which is a string."""
    named = {"key": user} if isinstance(user, str) else {"id": str(user)}
    return (await api(DELETE_USER, input={**named, **fields}))["deleteUser"]


async def update_user_segments(api: Api, user: int | str, **fields: Any) -> Any:
    """Send `updateUserSegments` for a user by id or by key, and return its payload."""
    named = {"userKey": user} if isinstance(user, str) else {"userId": str(user)}
    variables = {**named, **fields}
    return (await api(UPDATE_USER_SEGMENTS, input=variables))["updateUserSegments"]


def change_counts(payload: Mapping[str, Any]) -> tuple[int, int, int]:
    """Return the numbers of added, removed and extended segments of a payload."""
    return (
        payload["segmentsAdded"],
        payload["segmentsRemoved"],
        payload["segmentsExtended"],
    )


def segment_slugs(payload: Mapping[str, Any]) -> list[str]:
    return [segment["slug"] for segment in payload["user"]["segments"]]


def parse_timestamp(text: str) -> datetime:
    """Parse a timestamp of the API: UTC, with six digits of a second and Z."""
    assert text.endswith("Z")
    assert len(text) == len("2026-01-31T12:00:00.000000Z")
    return datetime.fromisoformat(text)


UPDATE_SEGMENT_MEMBERS = f"""
mutation Update($input: UpdateSegmentMembersInput!) {{
  updateSegmentMembers(input: $input) {{
    segment {{ id slug }} counts {{ outcome count }} {ERRORS}
  }}
}}
"""


async def update_segment_members(api: Api, slug: str, **fields: Any) -> Any:
    """Send `updateSegmentMembers` and return its payload. Ids may be integers."""
    variables = {"slug": slug, **fields}
    for name in ("add", "remove"):
        if variables.get(name):
            variables[name] = [str(user_id) for user_id in variables[name]]
    return (await api(UPDATE_SEGMENT_MEMBERS, input=variables))["updateSegmentMembers"]


def outcome_counts(payload: Mapping[str, Any]) -> dict[str, int]:
    """Return the counts of an accepted `updateSegmentMembers` by outcome."""
    assert payload["errors"] == []
    return {entry["outcome"]: entry["count"] for entry in payload["counts"]}
