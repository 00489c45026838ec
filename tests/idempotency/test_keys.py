"""What an idempotency key is bound to, and how long it is kept."""

from typing import Any

import pytest

from segmentql.adapters.database import Database
from segmentql.adapters.jobs import Message
from segmentql.graphql.types.idempotency import RequestIdempotencyKeys
from segmentql.idempotency import actors, service
from segmentql.idempotency.jobs import DELETE_IDEMPOTENCY_KEYS
from segmentql.reports.jobs import MAKE_REPORT
from segmentql.settings import Settings
from tests.conftest import Api, Sql, recorded_statements
from tests.graphql.executor_helpers import COMPILING_EXECUTOR, execute, make_context
from tests.idempotency.cases import CASES, Case, every_row, send, send_with_key
from tests.keys.clients import make_client

CREATE = Case("createUser", {}, "user { id }")
CREATE_SEGMENT = Case("createSegment", {"slug": "NEW"}, "segment { id slug version }")
REUSED = {
    "__typename": "IdempotencyKeyReused",
    "code": "IDEMPOTENCY_KEY_REUSED",
    "message": "The idempotency key was used with another mutation or another input in the last"
    " 24 hours. Use a new key for a new mutation.",
    "path": [],
}


def with_input(case: Case, **changes: Any) -> Case:
    return case._replace(input={**case.input, **changes})


async def test_key_with_another_input_is_rejected(api: Api, sql: Sql) -> None:
    await send_with_key(api, CREATE, "k")
    before = await every_row(sql)
    for other in (with_input(CREATE, id="7"), with_input(CREATE, key="seven")):
        payload = await send_with_key(api, other, "k")
        assert payload == {"user": None, "errors": [REUSED]}
    assert await send_with_key(api, CREATE_SEGMENT, "k") == {"segment": None, "errors": [REUSED]}
    assert await every_row(sql) == before


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({"userId": "1"}, {"userId": 1}),
        ({"userId": "1"}, {"userId": "1", "add": [], "remove": None, "onExisting": "EXTEND"}),
        (
            {"userId": "1", "add": ["A"], "expiresAt": "2030-01-01T00:00:00Z"},
            {"userId": "1", "add": ["A"], "expiresAt": "2030-01-01T02:00:00.000000+02:00"},
        ),
    ],
)
async def test_inputs_with_the_same_meaning_are_the_same(
    api: Api, sql: Sql, first: Any, second: Any
) -> None:
    await sql.execute(
        "INSERT INTO segments (slug, created_at, updated_at) VALUES ('A', now(), now())"
    )
    case = Case("updateUserSegments", first, "user { id } segmentsAdded")
    payload = await send_with_key(api, case, "k")
    assert payload["errors"] == []
    before = await every_row(sql)
    assert await send_with_key(api, case._replace(input=second), "k") == payload
    assert await every_row(sql) == before


async def test_null_that_clears_a_field_is_another_input(filled: Api) -> None:
    case = Case("updateSegment", {"slug": "A"}, "segment { name }")
    await send_with_key(filled, case, "k")
    for change in ({"name": None}, {"name": "a"}):
        payload = await send_with_key(filled, with_input(case, **change), "k")
        assert payload["errors"] == [REUSED]


async def test_key_belongs_to_the_api_key(auth_api: Api, database: Database, sql: Sql) -> None:
    ada = await make_client(auth_api, database, "ada")
    bob = await make_client(auth_api, database, "bob")
    users = []
    for client in (ada, bob, ada, bob):
        body = await send(
            auth_api,
            CREATE.document(),
            {"input": {}},
            **{"idempotency-key": "k", "authorization": f"Bearer {client.key.token}"},
        )
        users.append(body["data"]["payload"]["user"]["id"])
    assert users == ["1", "2", "1", "2"]
    owners = await sql.fetch("SELECT api_key_id FROM idempotency_keys ORDER BY id")
    assert [row[0] for row in owners] == [ada.key.public_id, bob.key.public_id]


async def test_rejection_is_not_stored(api: Api, sql: Sql) -> None:
    update = Case("updateSegment", {"slug": "NEW", "name": "new"}, "segment { name }")
    rejected = await send_with_key(api, update, "k")
    assert [error["code"] for error in rejected["errors"]] == ["SEGMENT_NOT_FOUND"]
    assert await sql.fetchval("SELECT count(*) FROM idempotency_keys") == 0
    await send_with_key(api, CREATE_SEGMENT, "another key")
    assert (await send_with_key(api, update, "k"))["segment"] == {"name": "new"}


async def test_retry_returns_entities_as_they_are_now(api: Api) -> None:
    first = await send_with_key(api, CREATE_SEGMENT, "k")
    await api('mutation { updateSegment(input: {slug: "NEW", name: "x"}) { errors { code } } }')
    replayed = await send_with_key(api, CREATE_SEGMENT, "k")
    assert first["segment"]["version"] == 1
    assert replayed == {"segment": {**first["segment"], "version": 2}, "errors": []}


async def test_retry_returns_null_for_a_deleted_entity(api: Api) -> None:
    """A new segment with the same slug, and the rollout of the deleted one, are not returned."""
    await send_with_key(api, CREATE_SEGMENT, "k")
    set_rollout = Case(
        "setRollout",
        {"slug": "NEW", "rollout": {"percent": 1}},
        "segment { id } rollout { percent }",
    )
    assert (await send_with_key(api, set_rollout, "k2"))["rollout"] == {"percent": 1.0}
    update = Case(
        "updateSegmentMembers", {"slug": "NEW", "add": ["1"]}, "segment { id } counts { count }"
    )
    await send_with_key(api, update, "k3")
    for mutation in ("deleteSegment", "createSegment"):
        await api(f'mutation {{ {mutation}(input: {{slug: "NEW"}}) {{ errors {{ code }} }} }}')
    assert await send_with_key(api, CREATE_SEGMENT, "k") == {"segment": None, "errors": []}
    replayed = await send_with_key(api, set_rollout, "k2")
    assert replayed == {"segment": None, "rollout": None, "errors": []}
    assert await send_with_key(api, update, "k3") == {
        "segment": None,
        "counts": [{"count": 1}],
        "errors": [],
    }


async def test_replayed_import_has_a_link_only_while_it_waits_for_its_file(filled: Api) -> None:
    create = CASES["createImport"]
    first = await send_with_key(filled, create, "k")
    assert first["upload"] == {"method": "PUT"}
    replayed = await send_with_key(filled, create, "k")
    assert replayed == first
    cancel = "mutation($id: ID!) { cancelImport(input: {id: $id}) { errors { code } } }"
    await filled(cancel, id=first["import"]["id"])
    replayed = await send_with_key(filled, create, "k")
    assert replayed["import"] == {**first["import"], "status": "CANCELLED"}
    assert replayed["upload"] is None


@pytest.mark.parametrize(("age", "expected"), [("23 hours 59 minutes", "1"), ("24 hours", "2")])
async def test_key_is_kept_for_24_hours(api: Api, sql: Sql, age: str, expected: str) -> None:
    await send_with_key(api, CREATE, "k")
    await sql.execute(f"UPDATE idempotency_keys SET created_at = created_at - interval '{age}'")
    assert (await send_with_key(api, CREATE, "k"))["user"] == {"id": expected}
    # From then on the key has the new result.
    assert (await send_with_key(api, CREATE, "k"))["user"] == {"id": expected}
    assert await sql.fetchval("SELECT count(*) FROM idempotency_keys") == 1


async def test_expired_key_accepts_another_input(api: Api, sql: Sql) -> None:
    await send_with_key(api, CREATE, "k")
    await sql.execute("UPDATE idempotency_keys SET created_at = created_at - interval '1 day'")
    assert (await send_with_key(api, with_input(CREATE, id="9"), "k"))["user"] == {"id": "9"}


async def test_key_is_kept_across_midnight(api: Api, sql: Sql) -> None:
    """The table has no partitions by day, in which the same key could be stored twice."""
    await send_with_key(api, CREATE, "k")
    await sql.execute(
        """
        UPDATE idempotency_keys
        SET created_at = date_trunc('day', now(), 'UTC') - interval '1 microsecond'
        """
    )
    assert (await send_with_key(api, CREATE, "k"))["user"] == {"id": "1"}
    assert await sql.fetchval("SELECT count(*) FROM idempotency_keys") == 1
    assert (
        await sql.fetchval("SELECT relkind::text FROM pg_class WHERE relname = 'idempotency_keys'")
        == "r"
    )


INSERT_KEYS = """
INSERT INTO idempotency_keys (key, fingerprint, result, created_at)
SELECT 'key ' || number, decode(repeat('00', 32), 'hex'), '{}',
    now() - CASE WHEN number <= $1 THEN interval '24 hours' ELSE interval '23 hours 59 minutes' END
FROM generate_series(1, $1 + 5) AS number
"""


async def test_expired_keys_are_deleted_in_chunks(database: Database, sql: Sql) -> None:
    assert await actors.find_expired(database) == []
    await sql.execute(INSERT_KEYS, service.DELETE_ROWS + 1)
    (message,) = await actors.find_expired(database)
    assert message.job == DELETE_IDEMPOTENCY_KEYS
    deleted = await database.transaction(service.delete_expired_keys)
    assert deleted == service.DELETE_ROWS
    await actors.delete_idempotency_keys(database)
    assert await sql.fetchval("SELECT count(*) FROM idempotency_keys") == 5
    assert await actors.find_expired(database) == []


async def test_deletion_uses_the_index(sql: Sql) -> None:
    await sql.execute(INSERT_KEYS, 2_000)
    await sql.execute("ANALYZE idempotency_keys; SET enable_seqscan = off")
    plan = "\n".join(
        row[0] for row in await sql.fetch("EXPLAIN " + str(service._DELETE_EXPIRED.text))
    )
    assert "Index Cond: (created_at <= " in plan


async def test_retry_sends_no_message(
    database: Database, settings: Settings, sent: list[Message]
) -> None:
    case = CASES["createReport"]
    report = case._replace(input={"year": 2024, "month": 3, "waitSeconds": 0})
    for _ in range(2):
        context = make_context(database, settings)
        context.idempotency_keys = RequestIdempotencyKeys(b"k")
        response = await execute(COMPILING_EXECUTOR, context, report.document(), input=report.input)
        assert response.body["data"]["payload"]["report"]["id"] == "rep_1"
    assert sent == [Message(MAKE_REPORT, (1,))]


async def test_mutation_without_a_key_has_no_further_statement(api: Api) -> None:
    with recorded_statements() as statements:
        await api(CREATE.document(), input={})
    assert [statement for statement in statements if "idempotency" in statement] == []
