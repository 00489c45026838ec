"""An import never removes more members than its caller or `maxRemovedPercent` allows."""

from typing import Any

import pytest

from segmentql.adapters.database import Database
from segmentql.rollouts.actors import advance_rollout
from tests.conftest import Api, Sql
from tests.imports.lists import APPLY, Imports, counts, id_list, lines_of_result
from tests.operations import make_segments, update_segment_members, update_user_segments
from tests.rollouts.helpers import cancel, members, set_plan, store_users
from tests.timeline import add_members, history_inconsistencies, make_segment


@pytest.fixture(autouse=True)
def two_users_in_a_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("segmentql.imports.chunks.CHUNK_USERS", 2)


async def apply(imports: Imports, record: Any, **fields: Any) -> Any:
    payload = await imports.send(APPLY, id=record["id"], **fields)
    assert payload["import"]["status"] == "APPLYING"
    await imports.work(record["id"])
    return await imports.read(record["id"])


@pytest.mark.parametrize(
    ("allowed", "left", "exclude"), [(2, 2, True), (3, 2, False), (5, 4, True), (6, 6, True)]
)
async def test_removals_never_exceed_what_the_caller_allows(
    *, api: Api, imports: Imports, sql: Sql, allowed: int, left: int, exclude: bool
) -> None:
    """Four listed users join after the forecast. Chunks have two users each."""
    await make_segments(api, "a")
    await update_segment_members(api, "a", add=[1, 2])
    listed = range(1, 7)
    await store_users(sql, 4, first=3)
    validated = await imports.run(id_list(listed), mode="REMOVE", exclude=exclude, dryRun=True)
    assert (validated["removals"], counts(validated)) == (2, {"LEFT": 2, "NOT_IN": 4})
    await update_segment_members(api, "a", add=[3, 4, 5, 6])
    finished = await apply(imports, validated, allowRemovals=allowed)
    assert set(await members(sql, 1)) == set(listed) - set(range(1, left + 1))
    assert finished["removals"] == left <= allowed
    assert await sql.fetchval("SELECT count(*) FROM exclusions") == (left if exclude else 0)
    assert await history_inconsistencies(sql) == {}
    outcomes = ["LEFT"] * left + ["NOT_REACHED"] * (6 - left)
    assert [line.split(",")[3] for line in await lines_of_result(finished)] == outcomes
    if left == len(listed):
        assert (finished["status"], finished["failure"]) == ("COMPLETED", None)
        return
    assert (finished["status"], finished["failure"]) == (
        "FAILED",
        f"the segment would lose more than {allowed} members, the number that is allowed; the other"
        " rows were not applied",
    )
    assert counts(finished) == {"LEFT": left, "NOT_REACHED": 6 - left}


@pytest.mark.parametrize(("existing", "left"), [(96, 6), (100, 4), (150, 6)])
async def test_removals_beyond_the_forecast_respect_the_percentage(
    imports: Imports, sql: Sql, existing: int, left: int
) -> None:
    """Two members are listed, and four listed users join after the forecast.

    The segment then has 100, 104 or 154 members. At 6, 4 or 4 percent, it may lose 6, 4 or 6.
    """
    segment_id = await make_segment(sql, "a")
    await add_members(sql, segment_id, existing, first_user_id=7 - 2)
    listed = range(1, 7)
    percent = 6 if existing == 96 else 4
    validated = await imports.run(
        id_list(listed), mode="REMOVE", maxRemovedPercent=percent, dryRun=True
    )
    assert (validated["removals"], validated["failure"]) == (2, None)
    await add_members(sql, segment_id, 4)
    finished = await apply(imports, validated)
    assert finished["removals"] == left
    assert finished["status"] == ("COMPLETED" if left == 6 else "FAILED")
    assert len(await members(sql, segment_id)) == existing + 4 - left


async def test_small_segment_may_lose_more_members_than_the_forecast(
    api: Api, imports: Imports, sql: Sql
) -> None:
    await make_segments(api, "a")
    for user_id in range(1, 7):
        await update_user_segments(api, user_id, add=["a"] if user_id == 1 else [])
    validated = await imports.run(id_list(range(1, 7)), mode="REMOVE", dryRun=True)
    await update_segment_members(api, "a", add=list(range(2, 7)))
    finished = await apply(imports, validated)
    assert (finished["status"], finished["removals"]) == ("COMPLETED", 6)
    assert await members(sql, 1) == {}


async def test_replace_removes_no_more_if_the_rollout_ends_after_the_forecast(
    imports: Imports, sql: Sql, database: Database
) -> None:
    """Members in the sample of a rollout stay. If it is cancelled, they would leave."""
    segment_id = await make_segment(sql, "a")
    await add_members(sql, segment_id, 6)
    await set_plan(database, "a", 100)
    await advance_rollout(database, segment_id)
    validated = await imports.run(b"7\n", mode="REPLACE", dryRun=True)
    assert validated["removals"] == 0
    await cancel(database, "a")
    finished = await apply(imports, validated, allowRemovals=3)
    assert (finished["status"], finished["removals"]) == ("FAILED", 2)
    assert counts(finished) == {"JOINED": 1}
    assert len(await members(sql, segment_id)) == 6 + 1 - 2
