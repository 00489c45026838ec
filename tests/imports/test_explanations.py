"""`explain` names the import that changed a membership."""

from typing import Any

from segmentql.adapters.database import Database
from segmentql.rollouts.actors import advance_rollout
from tests.conftest import Api, Sql
from tests.explain.operations import explain, reason
from tests.imports.lists import Imports
from tests.operations import (
    create_segment,
    create_user,
    make_segments,
    parse_timestamp,
    update_user_segments,
)
from tests.rollouts.helpers import store_users

IMPORTS_OF_EXPLANATION = """
query($userId: ID!) {
  explain(userId: $userId, slug: "a") {
    membership { import { id } } lastEntry { operation import { id } }
  }
}
"""


async def imports_of(api: Api, user_id: int) -> Any:
    """Return the imports that an explanation names."""
    return (await api(IMPORTS_OF_EXPLANATION, userId=str(user_id)))["explain"]


async def test_membership_and_last_entry_name_their_import(api: Api, imports: Imports) -> None:
    await make_segments(api, "a")
    added = await imports.run(b"7\n")
    assert await imports_of(api, 7) == {
        "membership": {"import": {"id": added["id"]}},
        "lastEntry": {"operation": "JOINED", "import": {"id": added["id"]}},
    }
    removed = await imports.run(b"7\n", mode="REMOVE")
    assert added["id"] != removed["id"]
    assert await imports_of(api, 7) == {
        "membership": None,
        "lastEntry": {"operation": "LEFT", "import": {"id": removed["id"]}},
    }


async def test_summary_names_the_import(api: Api, imports: Imports) -> None:
    await make_segments(api, "a")
    added = await imports.run(b"7\n")
    found = await explain(api, slug="a")
    assert found["reason"] == "IMPORTED"
    assert found["summary"].startswith(f"Added by import {added['id']} on ")


async def test_removal_by_an_import(api: Api, imports: Imports) -> None:
    await make_segments(api, "a")
    await imports.run(b"7\n")
    removed = await imports.run(b"7\n", mode="REMOVE", exclude=False)
    found = await explain(api, slug="a")
    assert reason(found) == (False, "REMOVED_BY_HAND")
    assert found["summary"].startswith(f"Removed by import {removed['id']} on ")


async def test_exclusion_by_an_import(api: Api, imports: Imports) -> None:
    await make_segments(api, "a")
    await create_user(api, id="7")
    excluded = await imports.run(b"7\n", mode="REMOVE")
    at = parse_timestamp((await explain(api, slug="a"))["at"])
    for as_of in (None, at):
        found = await explain(api, slug="a", as_of=as_of)
        assert reason(found) == (False, "EXCLUDED")
        text = f"because the user was removed by import {excluded['id']} on "
        assert text in found["summary"]
        assert f"The user was removed by import {excluded['id']} on " in str(found["steps"])


async def test_member_whom_the_rollout_keeps(
    api: Api, sql: Sql, database: Database, imports: Imports
) -> None:
    await store_users(sql, 1)
    await create_segment(api, slug="a", rollout={"percent": 100})
    await advance_rollout(database, 1)
    await update_user_segments(api, 1, remove=["a"])
    await update_user_segments(api, 1, add=["a"])
    await imports.run(b"7\n", mode="REPLACE", maxRemovedPercent=100)
    found = await explain(api, 1, slug="a")
    assert reason(found) == (True, "IN_SAMPLE")
    assert found["summary"].endswith(" and kept by the rollout.")
