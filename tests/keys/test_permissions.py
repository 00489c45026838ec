"""Each role may use exactly the permitted fields of Query and Mutation.

A field that is missing in the table of cases fails a test.
"""

from collections.abc import Callable
from typing import Any, Final, NamedTuple

import pytest
from strawberry.types.field import StrawberryField

from graphql import GraphQLField
from segmentql.adapters.database import Database
from segmentql.graphql.types.permissions import Needs
from segmentql.keys import service
from segmentql.schema import make_schema
from segmentql.tables import Role
from tests.conftest import Api, Sql, empty_tables, without_cost
from tests.keys.clients import UNKNOWN, Key, bearer, make_key, revoke, send_query, stored_rows
from tests.sample_data import INSERT_IMPORT

CORE = make_schema()._schema
KEY_TO_REVOKE = "sgql_victimvictim_" + "1" * 64
AUTH_OFF: Final = "off"


class Case(NamedTuple):
    field: str
    needs: Role
    selection: str
    arguments: str = ""


def mutation_case(field: str, needs: Role, arguments: str) -> Case:
    return Case(field, needs, "{ errors { message } }", f"(input: {{{arguments}}})")


CASES = {
    "user": Case("user", Role.READER, "{ id segments { slug } }", "(id: 1)"),
    "usersById": Case("usersById", Role.READER, "{ id }", "(ids: [1])"),
    "userByKey": Case("userByKey", Role.READER, "{ id segments { slug } }", '(key: "one")'),
    "usersByKey": Case("usersByKey", Role.READER, "{ id }", '(keys: ["one"])'),
    "users": Case("users", Role.READER, "{ nodes { id } }"),
    "segment": Case("segment", Role.READER, "{ memberCount }", '(slug: "A")'),
    "segments": Case("segments", Role.READER, "{ nodes { slug } }"),
    "history": Case("history", Role.READER, "{ nodes { operation } }"),
    "explain": Case("explain", Role.READER, "{ reason }", '(userId: 1, slug: "A")'),
    "report": Case("report", Role.READER, "{ id }", '(id: "rep_1")'),
    "import": Case("import", Role.READER, "{ id }", '(id: "imp_1")'),
    "imports": Case("imports", Role.READER, "{ nodes { id } }"),
    "reports": Case("reports", Role.READER, "{ nodes { id } }"),
    "export": Case("export", Role.READER, "{ id }", '(id: "exp_1")'),
    "exports": Case("exports", Role.READER, "{ nodes { id } }"),
    "changes": Case("changes", Role.READER, "{ cursor events { at } }", "(start: EARLIEST)"),
    "node": Case("node", Role.READER, "{ id }", "(id: 1)"),
    "node of a segment": Case("node", Role.READER, "{ id }", '(id: "seg_1")'),
    "node of a report": Case("node", Role.READER, "{ id }", '(id: "rep_1")'),
    "viewer": Case("viewer", Role.EVALUATOR, "{ role }"),
    "auditLog": Case("auditLog", Role.EDITOR, "{ nodes { action } }"),
    "apiKeys": Case("apiKeys", Role.ADMIN, "{ nodes { id } }"),
    "createUser": mutation_case("createUser", Role.EDITOR, "id: 2"),
    "createUser with a key": mutation_case("createUser", Role.EDITOR, 'key: "two"'),
    "updateUser": mutation_case("updateUser", Role.EDITOR, 'id: 9, key: "nine"'),
    "deleteUser": mutation_case("deleteUser", Role.ADMIN, "id: 1"),
    "deleteUser by key": mutation_case("deleteUser", Role.ADMIN, 'key: "one", eraseKey: true'),
    "createSegment": mutation_case("createSegment", Role.EDITOR, 'slug: "NEW"'),
    "updateSegment": mutation_case("updateSegment", Role.EDITOR, 'slug: "A", name: "A"'),
    "deleteSegment": mutation_case("deleteSegment", Role.ADMIN, 'slug: "A"'),
    "updateUserSegments": mutation_case("updateUserSegments", Role.EDITOR, 'userId: 1, add: ["A"]'),
    "updateUserSegments by key": mutation_case(
        "updateUserSegments", Role.EDITOR, 'userKey: "one", add: ["A"]'
    ),
    "updateSegmentMembers": mutation_case(
        "updateSegmentMembers", Role.EDITOR, 'slug: "A", add: [1], removeKeys: ["two"]'
    ),
    "setRollout": mutation_case(
        "setRollout", Role.EDITOR, 'slug: "A", rollout: {stages: [{percent: 50}]}'
    ),
    "pauseRollout": mutation_case("pauseRollout", Role.EDITOR, 'slug: "ROLLED"'),
    "resumeRollout": mutation_case("resumeRollout", Role.EDITOR, 'slug: "PAUSED"'),
    "cancelRollout": mutation_case("cancelRollout", Role.EDITOR, 'slug: "ROLLED"'),
    "createImport": mutation_case(
        "createImport", Role.EDITOR, 'slug: "A", source: {upload: {sizeBytes: 2}}'
    ),
    "startImport": mutation_case("startImport", Role.EDITOR, 'id: "imp_999"'),
    "applyImport": mutation_case("applyImport", Role.EDITOR, 'id: "imp_1"'),
    "cancelImport": mutation_case("cancelImport", Role.EDITOR, 'id: "imp_2"'),
    "createExport": mutation_case("createExport", Role.READER, 'slug: "A", waitSeconds: 0'),
    "createReport of a user": mutation_case(
        "createReport", Role.READER, "userId: 1, year: 2024, month: 3, waitSeconds: 0"
    ),
    "createReport of all users": mutation_case(
        "createReport", Role.ADMIN, "userId: null, year: 2024, month: 3, waitSeconds: 0"
    ),
    "createReport without a user": mutation_case(
        "createReport", Role.ADMIN, "year: 2024, month: 3, waitSeconds: 0"
    ),
    "createApiKey": mutation_case("createApiKey", Role.ADMIN, 'name: "eve", role: ADMIN'),
    "revokeApiKey": mutation_case("revokeApiKey", Role.ADMIN, 'id: "key_victimvictim"'),
}

FIXTURE_ROWS = (
    """
INSERT INTO users (id, created_at, key) VALUES (1, now(), 'one'), (9, now(), NULL);
INSERT INTO segments (slug, created_at, updated_at)
    VALUES ('A', now(), now()), ('ROLLED', now(), now()), ('PAUSED', now(), now());
INSERT INTO reports (user_id, year, month, status, created_at, next_attempt_at)
    VALUES (1, 2024, 3, 'QUEUED', now(), now());
INSERT INTO exports (segment_id, status, as_of, cursor, gzip, created_at, next_attempt_at)
    VALUES (1, 'QUEUED', now(), 'chg_MDo=', false, now(), now());
"""
    + 2 * INSERT_IMPORT.format(slug="A", status="VALIDATED")
    + """
INSERT INTO rollouts (segment_id, state, enroll_new_users, paused_at, max_percent, pass_number,
    phase, stage, percent, removes_members, last_insert_seq, bound_hash, bound_user_id,
    cursor_user_id, users_total, users_seen, heartbeat_at)
SELECT id, CASE slug WHEN 'ROLLED' THEN 'ACTIVE' ELSE 'PAUSED' END::rollout_state, false,
    CASE slug WHEN 'PAUSED' THEN now() END, 0, 1, 'DONE', 0, 0, false, 0, 0, 0, 0, 0, 0, now()
FROM segments WHERE slug <> 'A';
INSERT INTO rollout_stages (segment_id, number, percent, starts_at)
SELECT segment_id, 1, 50, now() + interval '1 hour' FROM rollouts;
"""
)


async def reset_rows(sql: Sql, database: Database) -> dict[str, Key]:
    """Store rows for each case to read or change, and create keys of every role."""
    await empty_tables(sql)
    await sql.execute(FIXTURE_ROWS)
    await database.transaction(lambda session: service.ensure_first_key(session, KEY_TO_REVOKE))
    keys = {role.value: await make_key(database, role.value) for role in Role}
    keys["revoked"] = await make_key(database, "ADMIN")
    await revoke(database, keys["revoked"])
    return keys


AUTHORIZATIONS: dict[str, Callable[[dict[str, Key]], str | None]] = {
    "EVALUATOR": lambda keys: bearer(keys["EVALUATOR"].token),
    "READER": lambda keys: bearer(keys["READER"].token),
    "EDITOR": lambda keys: bearer(keys["EDITOR"].token),
    "ADMIN": lambda keys: bearer(keys["ADMIN"].token),
    "no key": lambda keys: None,
    "wrong secret": lambda keys: bearer(keys["ADMIN"].with_wrong_secret),
    "unknown": lambda keys: bearer(UNKNOWN),
    "malformed": lambda keys: bearer(keys["ADMIN"].token[:-1]),
    "another scheme": lambda keys: f"Basic {keys['ADMIN'].token}",
    "revoked": lambda keys: bearer(keys["revoked"].token),
}


@pytest.mark.parametrize("credential", [*AUTHORIZATIONS, AUTH_OFF])
async def test_each_credential_may_use_exactly_the_permitted_fields(
    auth_api: Api, api: Api, database: Database, sql: Sql, credential: str
) -> None:
    keys = await reset_rows(sql, database)
    # If keys are off, the header is ignored, even if it has a revoked key.
    header = AUTHORIZATIONS.get(credential, AUTHORIZATIONS["revoked"])
    client_api = api if credential == AUTH_OFF else auth_api
    for name, case in CASES.items():
        is_mutation = case.field in CORE.mutation_type.fields  # type: ignore[union-attr]
        document = (
            f"{'mutation' if is_mutation else 'query'}"
            f" {{ {case.field}{case.arguments} {case.selection} beside: __typename }}"
        )
        before = await stored_rows(sql)
        response = await send_query(client_api, header(keys), document)
        is_role = credential in set(Role)
        if credential == AUTH_OFF or (is_role and _rank(credential) >= _rank(case.needs)):
            _assert_success(response.json(), case, credential)
            if is_mutation and case.field != "startImport":
                assert await stored_rows(sql) != before, name
                keys = await reset_rows(sql, database)
        else:
            assert await stored_rows(sql) == before, name
            if is_role:
                assert response.status_code == 200
                body = without_cost(response.json())
                assert body == _forbidden_body(body, case, credential)
            else:
                _assert_unauthenticated(response, credential)


def _rank(role: str) -> int:
    return [member.value for member in Role].index(role)


def _assert_success(body: Any, case: Case, credential: str) -> None:
    assert "errors" not in body, (case.field, body)
    value = body["data"][case.field]
    if case.field == "viewer":
        assert value == (None if credential == AUTH_OFF else {"role": credential})
    elif case.field == "startImport":  # It needs an uploaded file.
        assert value == {"errors": [{"message": "No import has this id."}]}
    elif case.selection.startswith("{ errors"):
        assert value == {"errors": []}, case.field
    else:
        assert value, case.field


def _forbidden_body(body: Any, case: Case, credential: str) -> Any:
    is_refined = case.field == "createReport" and credential != Role.EVALUATOR
    denied = "a report on all users" if is_refined else case.field
    needs = Role.READER if case.field == "createReport" and not is_refined else case.needs
    return {
        "data": {case.field: None, "beside": body["data"]["beside"]},
        "errors": [
            {
                "message": f"{denied} requires the role {needs},"
                f" but the API key has the role {credential}.",
                "locations": body["errors"][0]["locations"],
                "path": [case.field],
                "extensions": {"code": "FORBIDDEN", "needed": needs, "role": credential},
            }
        ],
    }


def _assert_unauthenticated(response: Any, credential: str) -> None:
    assert response.status_code == 401
    assert response.headers["www-authenticate"] == 'Bearer realm="segmentql"'
    message = {
        "no key": "Send an API key: Authorization: Bearer sgql_<id>_<secret>.",
        "malformed": "The API key must be sent as Authorization: Bearer sgql_<id>_<secret>.",
        "another scheme": "The API key must be sent as Authorization: Bearer sgql_<id>_<secret>.",
    }.get(credential, "This API key is not valid.")
    error = {"message": message, "extensions": {"code": "UNAUTHENTICATED"}}
    assert response.json() == {"errors": [error]}


def test_every_root_field_is_in_the_table() -> None:
    assert CORE.query_type
    assert CORE.mutation_type
    roots = {*CORE.query_type.fields, *CORE.mutation_type.fields}
    assert {case.field for case in CASES.values()} == roots


def test_every_mutation_has_a_permission_and_describes_it() -> None:
    assert CORE.mutation_type
    for name, field in CORE.mutation_type.fields.items():
        (permission,) = _definition(field).permission_classes
        assert issubclass(permission, Needs), name
        lowest = min((c.needs for c in CASES.values() if c.field == name), key=_rank)
        assert permission.role is lowest, name
        assert f"Needs {lowest}" in (field.description or ""), name


def test_query_for_every_role_has_no_permission_class() -> None:
    assert CORE.query_type
    for name, field in CORE.query_type.fields.items():
        needs = [permission.role for permission in _definition(field).permission_classes]  # type: ignore[attr-defined]
        # `middleware.py` checks the fields without one for the role EVALUATOR.
        is_open = CASES[name].needs in {Role.EVALUATOR, Role.READER}
        assert needs == ([] if is_open else [CASES[name].needs])


def _definition(field: GraphQLField) -> StrawberryField:
    definition = field.extensions["strawberry-definition"]
    assert isinstance(definition, StrawberryField)
    return definition


async def test_forbidden_field_does_not_stop_its_siblings(
    auth_api: Api, database: Database, sql: Sql
) -> None:
    keys = await reset_rows(sql, database)
    response = await send_query(
        auth_api,
        bearer(keys["EDITOR"].token),
        """mutation {
          a: createSegment(input: {slug: "B1"}) { segment { slug } }
          b: deleteSegment(input: {slug: "A"}) { deletedId }
          c: createSegment(input: {slug: "B2"}) { segment { slug } }
        }""",
    )
    body = response.json()
    assert body["data"] == {
        "a": {"segment": {"slug": "B1"}},
        "b": None,
        "c": {"segment": {"slug": "B2"}},
    }
    assert [(e["path"], e["extensions"]["code"]) for e in body["errors"]] == [(["b"], "FORBIDDEN")]
    slugs = await sql.fetch("SELECT slug FROM segments WHERE deleted_at IS NULL ORDER BY slug")
    assert [row["slug"] for row in slugs] == ["A", "B1", "B2", "PAUSED", "ROLLED"]
