"""`explain` names the import that changed a membership."""

from typing import Any

from tests.conftest import Api
from tests.explain.operations import explain
from tests.imports.lists import Imports
from tests.operations import make_segments

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
