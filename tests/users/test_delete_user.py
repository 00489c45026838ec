"""`deleteUser` ends memberships, keeps the history and deletes the exclusions."""

from typing import Any

from tests.back_dating import HOUR, NOON, all_rows, insert_membership
from tests.conftest import Api, Sql, recorded_statements
from tests.operations import (
    create_user,
    delete_segment,
    delete_user,
    make_segments,
    parse_timestamp,
    segment_slugs,
    update_user_segments,
)

HISTORY = """
query($id: ID) { history(userId: $id) {
  nodes { userId user { id } segment { slug } operation at cause recordedAt }
} }
"""


async def history(api: Api, user_id: int) -> list[Any]:
    nodes: list[Any] = (await api(HISTORY, id=str(user_id)))["history"]["nodes"]
    return nodes


async def test_deletion_returns_the_id_and_user_becomes_null(api: Api, sql: Sql) -> None:
    await create_user(api, id="7")
    assert await delete_user(api, 7) == {"deletedId": "7", "errors": []}
    assert await api(
        "{ user(id: 7) { id } usersById(ids: [7]) { id } users { nodes { id } } }"
    ) == {
        "user": None,
        "usersById": [None],
        "users": {"nodes": []},
    }
    assert await sql.fetchval("SELECT count(*) FROM users") == 0


async def test_deletion_ends_memberships_at_one_moment(api: Api, sql: Sql) -> None:
    await make_segments(api, "A", "B")
    await update_user_segments(api, 7, add=["A", "B"])
    await update_user_segments(api, 8, add=["A"])
    await delete_user(api, 7)
    entries = await history(api, 7)
    assert [(e["operation"], e["segment"]["slug"], e["cause"]) for e in entries] == [
        ("LEFT", "B", "USER_DELETED"),
        ("LEFT", "A", "USER_DELETED"),
        ("JOINED", "B", "MANUAL"),
        ("JOINED", "A", "MANUAL"),
    ]
    assert entries[0]["at"] == entries[1]["at"] > entries[2]["at"]
    deleted_at = await sql.fetchval("SELECT deleted_at FROM deleted_users WHERE id = 7")
    assert parse_timestamp(entries[0]["at"]) == deleted_at
    members = await api('{ segment(slug: "A") { memberCount members { nodes { user { id } } } } }')
    assert members["segment"] == {"memberCount": 1, "members": {"nodes": [{"user": {"id": "8"}}]}}


async def test_history_keeps_the_id_of_a_deleted_user(api: Api) -> None:
    await make_segments(api, "A")
    await update_user_segments(api, 7, add=["A"])
    await delete_user(api, 7)
    assert [(entry["userId"], entry["user"]) for entry in await history(api, 7)] == [
        ("7", None),
        ("7", None),
    ]


async def test_recreated_user_has_the_old_history_without_exclusions(api: Api, sql: Sql) -> None:
    await make_segments(api, "A", "B")
    first = await update_user_segments(api, 7, add=["A"], remove=["B"])
    assert (await api('{ user(id: 7) { isExcluded(slug: "B") } }'))["user"] == {"isExcluded": True}
    before = (await api("{ user(id: 7) { createdAt } }"))["user"]["createdAt"]
    await delete_user(api, 7)
    assert await sql.fetchval("SELECT count(*) FROM exclusions") == 0
    await create_user(api, id="7")
    recreated = (
        await api(
            """{ user(id: 7) { createdAt segments { slug } isIn(slug: "A") isExcluded(slug: "B")
            membership(slug: "A") { id }
            history { nodes { operation } } } }"""
        )
    )["user"]
    assert first["user"]["id"] == "7"
    assert recreated.pop("createdAt") > before
    assert recreated == {
        "segments": [],
        "isIn": False,
        "membership": None,
        "isExcluded": False,
        "history": {"nodes": [{"operation": "LEFT"}, {"operation": "JOINED"}]},
    }


async def test_user_can_be_recreated_and_deleted_again(api: Api) -> None:
    await make_segments(api, "A")
    for _ in range(2):
        assert segment_slugs(await update_user_segments(api, 7, add=["A"])) == ["A"]
        assert (await delete_user(api, 7))["deletedId"] == "7"
    assert [entry["operation"] for entry in await history(api, 7)] == ["LEFT", "JOINED"] * 2


async def test_deleting_an_unknown_user_is_rejected(api: Api, sql: Sql) -> None:
    await create_user(api, id="8")
    before = await all_rows(sql)
    assert await delete_user(api, 7) == {
        "deletedId": None,
        "errors": [
            {
                "__typename": "UserNotFound",
                "code": "USER_NOT_FOUND",
                "message": "User 7 is not stored.",
                "path": ["id"],
            }
        ],
    }
    assert await all_rows(sql) == before


async def test_expired_membership_of_a_deleted_user_left_at_its_end(api: Api, sql: Sql) -> None:
    await make_segments(api, "A")
    await insert_membership(sql, 7, "A", joined_at=NOON, expires_at=NOON + HOUR)
    await delete_user(api, 7)
    left, _ = await history(api, 7)
    assert (left["operation"], left["cause"], left["at"]) == (
        "LEFT",
        "TTL",
        "2024-03-01T13:00:00.000000Z",
    )


async def test_membership_of_a_deleted_segment_left_with_the_segment(api: Api, sql: Sql) -> None:
    await make_segments(api, "A")
    await update_user_segments(api, 7, add=["A"])
    await delete_segment(api, "A")
    await delete_user(api, 7)
    left, _ = await history(api, 7)
    assert left["cause"] == "SEGMENT_DELETED"
    assert parse_timestamp(left["at"]) == await sql.fetchval("SELECT deleted_at FROM segments")


async def test_deletion_takes_two_statements_for_any_memberships(api: Api) -> None:
    slugs = [f"S{number}" for number in range(20)]
    await make_segments(api, *slugs)
    await update_user_segments(api, 1, add=slugs[:1])
    await update_user_segments(api, 2, add=slugs)
    numbers = []
    for user_id in (1, 2):
        with recorded_statements() as statements:
            await delete_user(api, user_id)
        numbers.append(len(statements))
    assert numbers == [2, 2]
