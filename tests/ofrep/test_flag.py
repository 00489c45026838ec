"""The evaluation of one flag: its value, its reason, and the failures."""

import asyncio
from typing import Any

import pytest

from tests.back_dating import all_rows
from tests.conftest import Api, Sql, recorded_statements
from tests.ofrep.client import (
    BY_HAND,
    BY_ROLLOUT,
    EXPIRED,
    FLAGS,
    UNSTORED,
    body_of,
    evaluate,
    false_flag,
    store_memberships,
)
from tests.operations import delete_segment


@pytest.mark.parametrize("expected", [BY_HAND, BY_ROLLOUT, EXPIRED], ids=lambda flag: flag["key"])
async def test_flag_is_true_for_active_members_only(
    api: Api, sql: Sql, expected: dict[str, Any]
) -> None:
    """No worker runs, so the expired membership is not recorded yet."""
    await store_memberships(api, sql)
    response = await evaluate(api, expected["key"], "1")
    assert (response.status_code, response.json()) == (200, expected)
    assert response.headers["content-type"] == "application/json; charset=utf-8"
    assert response.headers["cache-control"] == "no-store"


async def test_user_by_key(key_api: Api, sql: Sql) -> None:
    await store_memberships(key_api, sql)
    assert (await evaluate(key_api, "B", "ada")).json() == BY_ROLLOUT
    assert (await evaluate(key_api, "C", "ada")).json() == EXPIRED
    assert (await evaluate(key_api, "A", "1")).json() == false_flag("A")  # no user has this key


async def test_unstored_user_gets_false_and_is_not_stored(api: Api, key_api: Api, sql: Sql) -> None:
    await store_memberships(api, sql)
    before = await all_rows(sql)
    for client_api in (api, key_api):
        assert (await evaluate(client_api, "A", UNSTORED)).json() == false_flag("A")
    assert await all_rows(sql) == before


async def test_integer_is_a_user_id(api: Api, sql: Sql) -> None:
    await store_memberships(api, sql)
    assert (await evaluate(api, "A", 1)).json() == BY_HAND


@pytest.mark.parametrize("slug", ["NOPE", "a", "not a slug", "x" * 300, "A/B", "%E0%00", "DELETED"])
async def test_slug_without_a_segment_is_not_found(api: Api, sql: Sql, slug: str) -> None:
    await store_memberships(api, sql)
    if slug == "DELETED":
        slug = "A"
        await delete_segment(api, slug=slug)
    response = await evaluate(api, slug, "1")
    body = response.json()
    assert response.status_code == 404
    assert sorted(body) == ["errorCode", "errorDetails", "key"]
    assert body["errorCode"] == "FLAG_NOT_FOUND"
    assert body["errorDetails"] == "No segment has this slug."


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"{", "PARSE_ERROR"),
        (b"", "PARSE_ERROR"),
        (b"[]", "PARSE_ERROR"),
        (b"null", "PARSE_ERROR"),
        (b"{}", "TARGETING_KEY_MISSING"),
        (b'{"context": null}', "TARGETING_KEY_MISSING"),
        (b'{"context": {"id": "1"}}', "TARGETING_KEY_MISSING"),
        (b'{"context": {"targetingKey": null}}', "TARGETING_KEY_MISSING"),
        (b'{"context": {"targetingKey": ""}}', "TARGETING_KEY_MISSING"),
        (b'{"context": "1"}', "INVALID_CONTEXT"),
        (b'{"context": {"targetingKey": "ada"}}', "INVALID_CONTEXT"),
        (b'{"context": {"targetingKey": "0"}}', "INVALID_CONTEXT"),
        (b'{"context": {"targetingKey": "01"}}', "INVALID_CONTEXT"),
        (b'{"context": {"targetingKey": "9223372036854775808"}}', "INVALID_CONTEXT"),
        (b'{"context": {"targetingKey": 1.0}}', "INVALID_CONTEXT"),
        (b'{"context": {"targetingKey": true}}', "INVALID_CONTEXT"),
        (b'{"context": {"targetingKey": ["1"]}}', "INVALID_CONTEXT"),
    ],
)
async def test_context_without_a_user_id_is_rejected(
    api: Api, sql: Sql, body: bytes, code: str
) -> None:
    await store_memberships(api, sql)
    headers = {"content-type": "application/json; charset=utf-8"}
    for path, key in ((f"{FLAGS}/A", {"key": "A"}), (FLAGS, {})):
        response = await api.http.post(path, content=body, headers=headers)
        answer = response.json()
        assert response.status_code == 400
        assert answer.pop("errorDetails")
        assert answer == {**key, "errorCode": code}


@pytest.mark.parametrize("targeting_key", [1, "a\x00", "k" * 256, "line\nbreak"])
async def test_context_without_a_user_key_is_rejected(
    key_api: Api, sql: Sql, targeting_key: object
) -> None:
    await store_memberships(key_api, sql)
    for slug in ("A", None):
        response = await evaluate(key_api, slug, targeting_key)
        assert response.status_code == 400
        assert response.json()["errorCode"] == "INVALID_CONTEXT"


async def test_concurrent_evaluations_are_one_statement(api: Api, sql: Sql) -> None:
    await store_memberships(api, sql)
    with recorded_statements() as statements:
        responses = await asyncio.gather(
            *(evaluate(api, slug, user) for slug in "ABCX" for user in ("1", UNSTORED))
        )
    assert [response.json().get("value") for response in responses] == [
        *(True, False),
        *(True, False),
        *(False, False),
        *(None, None),
    ]
    assert len(statements) < len(responses)


async def test_only_post_is_allowed(api: Api, sql: Sql) -> None:
    await store_memberships(api, sql)
    for path in (FLAGS, f"{FLAGS}/A"):
        for method in ("GET", "PUT", "DELETE", "OPTIONS"):
            response = await api.http.request(method, path, json=body_of("1"))
            assert (response.status_code, response.headers["allow"]) == (405, "POST")
            assert response.json()["errorCode"] == "GENERAL"
    assert (await api.http.post(f"{FLAGS}es", json=body_of("1"))).status_code == 404
    assert (await api.http.post("/ofrep/v1/evaluate", json=body_of("1"))).status_code == 404
