"""GraphQL operations on the change feed."""

from typing import Any

from tests.conftest import Api

BATCH = """
events { __typename cursor at ... on MembershipEvent { entry {
  id userId operation at recordedAt cause actor segment { id slug }
} } }
cursor caughtUp
"""

CHANGES = f"""
query Changes($after: String, $start: FeedStart, $first: Int, $filter: FeedFilter, $wait: Int) {{
  changes(after: $after, start: $start, first: $first, filter: $filter, waitSeconds: $wait) {{
    {BATCH}
  }}
}}
"""


async def changes(api: Api, **variables: Any) -> Any:
    """Return a batch of changes."""
    return (await api(CHANGES, **variables))["changes"]


async def all_changes(api: Api, after: str | None = None, **variables: Any) -> list[Any]:
    """Return the entries of all changes after a cursor, or from the earliest."""
    entries = []
    start = None if after else "EARLIEST"
    while True:
        batch = await changes(api, after=after, start=start, **variables)
        entries += [event["entry"] for event in batch["events"]]
        after = batch["cursor"]
        if batch["caughtUp"]:
            return entries
