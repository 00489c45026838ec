"""Who may do what: every field of Query and Mutation, by every role and with no valid key.

The table is held equal to the schema: a field that is not in it fails.
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

CORE = make_schema()._schema
VICTIM = "sgql_victimvictim_" + "1" * 64
NOT_ASKED_FOR: Final = "off"


class Case(NamedTuple):
    field: str
    needs: Role
    selection: str
    given: str = ""


def change(field: str, needs: Role, given: str) -> Case:
    return Case(field, needs, "{ errors { message } }", f"(input: {{{given}}})")


CASES = {
    "user": Case("user", Role.READER, "{ id segments { slug } }", "(id: 1)"),
    "usersById": Case("usersById", Role.READER, "{ id }", "(ids: [1])"),
    "users": Case("users", Role.READER, "{ nodes { id } }"),
    "segment": Case("segment", Role.READER, "{ memberCount }", '(slug: "A")'),
    "segments": Case("segments", Role.READER, "{ nodes { slug } }"),
    "history": Case("history", Role.READER, "{ nodes { operation } }"),
    "report": Case("report", Role.READER, "{ id }", '(id: "rep_1")'),
    "reports": Case("reports", Role.READER, "{ nodes { id } }"),
    "viewer": Case("viewer", Role.READER, "{ role }"),
    "apiKeys": Case("apiKeys", Role.ADMIN, "{ nodes { id } }"),
    "createUser": change("createUser", Role.EDITOR, "id: 2"),
    "deleteUser": change("deleteUser", Role.ADMIN, "id: 1"),
    "createSegment": change("createSegment", Role.EDITOR, 'slug: "NEW"'),
    "updateSegment": change("updateSegment", Role.EDITOR, 'slug: "A", name: "A"'),
    "deleteSegment": change("deleteSegment", Role.ADMIN, 'slug: "A"'),
    "updateUserSegments": change("updateUserSegments", Role.EDITOR, 'userId: 1, add: ["A"]'),
    "setRollout": change(
        "setRollout", Role.EDITOR, 'slug: "A", rollout: {stages: [{percent: 50}]}'
    ),
    "pauseRollout": change("pauseRollout", Role.EDITOR, 'slug: "ROLLED"'),
    "resumeRollout": change("resumeRollout", Role.EDITOR, 'slug: "PAUSED"'),
    "cancelRollout": change("cancelRollout", Role.EDITOR, 'slug: "ROLLED"'),
    "createReport of a user": change(
        "createReport", Role.READER, "userId: 1, year: 2024, month: 3, waitSeconds: 0"
    ),
    "createReport of all users": change(
        "createReport", Role.ADMIN, "userId: null, year: 2024, month: 3, waitSeconds: 0"
    ),
    "createReport of nobody in particular": change(
        "createReport", Role.ADMIN, "year: 2024, month: 3, waitSeconds: 0"
    ),
    "createApiKey": change("createApiKey", Role.ADMIN, 'name: "eve", role: ADMIN'),
    "revokeApiKey": change("revokeApiKey", Role.ADMIN, 'id: "key_victimvictim"'),
}

PAST = """
INSERT INTO users (id, created_at) VALUES (1, now());
INSERT INTO segments (slug, created_at, updated_at)
    VALUES ('A', now(), now()), ('ROLLED', now(), now()), ('PAUSED', now(), now());
INSERT INTO reports (user_id, year, month, status, created_at, next_attempt_at)
    VALUES (1, 2024, 3, 'QUEUED', now(), now());
INSERT INTO rollouts (segment_id, state, enroll_new_users, paused_at, max_percent, pass_number,
    phase, stage, percent, removes_members, last_insert_seq, bound_hash, bound_user_id,
    cursor_user_id, users_total, users_seen, heartbeat_at)
SELECT id, CASE slug WHEN 'ROLLED' THEN 'ACTIVE' ELSE 'PAUSED' END::rollout_state, false,
    CASE slug WHEN 'PAUSED' THEN now() END, 0, 1, 'DONE', 0, 0, false, 0, 0, 0, 0, 0, 0, now()
FROM segments WHERE slug <> 'A';
INSERT INTO rollout_stages (segment_id, number, percent, starts_at)
SELECT segment_id, 1, 50, now() + interval '1 hour' FROM rollouts;
"""


async def begin(sql: Sql, database: Database) -> dict[str, Key]:
    """Something for each case to read or change, and a key of each role and one revoked."""
    await empty_tables(sql)
    await sql.execute(PAST)
    await database.transaction(lambda session: service.ensure_first_key(session, VICTIM))
    keys = {role.value: await make_key(database, role.value) for role in Role}
    keys["revoked"] = await make_key(database, "ADMIN")
    await revoke(database, keys["revoked"])
    return keys


AUTHORIZATIONS: dict[str, Callable[[dict[str, Key]], str | None]] = {
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


@pytest.mark.parametrize("who", [*AUTHORIZATIONS, NOT_ASKED_FOR])
async def test_everybody_may_do_exactly_what_is_allowed(
    keyed: Api, api: Api, database: Database, sql: Sql, who: str
) -> None:
    keys = await begin(sql, database)
    # With keys off a header means nothing, even that of a key that was revoked.
    header = AUTHORIZATIONS.get(who, AUTHORIZATIONS["revoked"])
    asked = api if who == NOT_ASKED_FOR else keyed
    for name, case in CASES.items():
        is_mutation = case.field in CORE.mutation_type.fields  # type: ignore[union-attr]
        document = (
            f"{'mutation' if is_mutation else 'query'}"
            f" {{ {case.field}{case.given} {case.selection} beside: __typename }}"
        )
        before = await stored_rows(sql)
        response = await send_query(asked, header(keys), document)
        is_role = who in set(Role)
        if who == NOT_ASKED_FOR or (is_role and _rank(who) >= _rank(case.needs)):
            _is_done(response.json(), case, who)
            if is_mutation:
                assert await stored_rows(sql) != before, name
                keys = await begin(sql, database)
        else:
            assert await stored_rows(sql) == before, name
            if is_role:
                assert response.status_code == 200
                body = without_cost(response.json())
                assert body == _forbidden(body, case, who)
            else:
                _is_unauthenticated(response, who)


def _rank(role: str) -> int:
    return [each.value for each in Role].index(role)


def _is_done(body: Any, case: Case, who: str) -> None:
    assert "errors" not in body, (case.field, body)
    found = body["data"][case.field]
    if case.field == "viewer":
        assert found == (None if who == NOT_ASKED_FOR else {"role": who})
    elif case.selection.startswith("{ errors"):
        assert found == {"errors": []}, case.field
    else:
        assert found, case.field


def _forbidden(body: Any, case: Case, who: str) -> Any:
    what = case.field if case.field != "createReport" else "a report on all users"
    return {
        "data": {case.field: None, "beside": body["data"]["beside"]},
        "errors": [
            {
                "message": f"{what} needs the role {case.needs}; yours is {who}",
                "locations": body["errors"][0]["locations"],
                "path": [case.field],
                "extensions": {"code": "FORBIDDEN", "needed": case.needs, "role": who},
            }
        ],
    }


def _is_unauthenticated(response: Any, who: str) -> None:
    assert response.status_code == 401
    assert response.headers["www-authenticate"] == 'Bearer realm="segmentql"'
    message = {
        "no key": "Send an API key: Authorization: Bearer sgql_<id>_<secret>.",
        "malformed": "The API key must be sent as Authorization: Bearer sgql_<id>_<secret>.",
        "another scheme": "The API key must be sent as Authorization: Bearer sgql_<id>_<secret>.",
    }.get(who, "This API key is not valid.")
    error = {"message": message, "extensions": {"code": "UNAUTHENTICATED"}}
    assert response.json() == {"errors": [error]}


def test_every_field_of_query_and_mutation_is_in_the_table() -> None:
    assert CORE.query_type
    assert CORE.mutation_type
    roots = {*CORE.query_type.fields, *CORE.mutation_type.fields}
    assert {case.field for case in CASES.values()} == roots


def test_every_mutation_has_a_permission_which_its_description_tells() -> None:
    assert CORE.mutation_type
    for name, field in CORE.mutation_type.fields.items():
        (permission,) = _definition(field).permission_classes
        assert issubclass(permission, Needs), name
        lowest = min((c.needs for c in CASES.values() if c.field == name), key=_rank)
        assert permission.role is lowest, name
        assert f"Needs {lowest}" in (field.description or ""), name


def test_a_query_that_every_role_may_ask_has_no_permission_so_that_it_has_a_plan() -> None:
    assert CORE.query_type
    for name, field in CORE.query_type.fields.items():
        needs = [permission.role for permission in _definition(field).permission_classes]  # type: ignore[attr-defined]
        assert needs == ([] if CASES[name].needs is Role.READER else [CASES[name].needs])


def _definition(field: GraphQLField) -> StrawberryField:
    definition = field.extensions["strawberry-definition"]
    assert isinstance(definition, StrawberryField)
    return definition


async def test_what_is_refused_keeps_nobody_beside_it_from_running(
    keyed: Api, database: Database, sql: Sql
) -> None:
    keys = await begin(sql, database)
    response = await send_query(
        keyed,
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
