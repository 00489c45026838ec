"""The attacks of graphql-cop, and more, fail under the settings for production.

https://github.com/dolevf/graphql-cop; `SECURITY.md` names the settings. Each request has an ADMIN
key, because one without a key is rejected before anything is read.
"""

from collections.abc import AsyncIterator
from typing import Any

import orjson
import pytest

from segmentql.adapters.database import Database
from segmentql.settings import Settings
from tests.back_dating import all_rows
from tests.conftest import Api, Sql, serving
from tests.graphql.test_document_limits import ALIASES, DIRECTIVES
from tests.graphql.test_faults import renamed_table
from tests.graphql.test_http import only_error
from tests.keys.clients import UNKNOWN, bearer, make_key

CREATE = "mutation cop { createUser(input: {id: 7}) { user { id } } }"
CIRCULAR = (
    "query cop { __schema { types { fields { type { fields { type { fields { type"
    " { fields { type { name } } } } } } } } } } }"
)


@pytest.fixture
async def production(
    settings: Settings, sql: Sql, database: Database, api: Api
) -> AsyncIterator[Api]:
    """Run the service under the settings that `SECURITY.md` names; requests have an ADMIN key."""
    key = await make_key(database, "ADMIN")
    changes = {
        "auth": "required",
        "introspection": "off",
        "suggestions": "off",
        "console": "off",
        "graphiql": "off",
    }
    async with serving(settings.model_copy(update=changes)) as asking:
        asking.http.headers["authorization"] = bearer(key.token)
        yield asking


async def rejection(api: Api, query: str) -> Any:
    """Return the only error of a document that is rejected before execution."""
    body = await api.body(query)
    assert list(body) == ["errors"]
    (error,) = body["errors"]
    return error["extensions"]


async def test_number_of_aliases_is_limited(production: Api) -> None:
    aliases = " ".join(f"alias{n}: __typename" for n in range(ALIASES + 1))
    extensions = await rejection(production, f"query cop {{ {aliases} }}")
    assert (extensions["code"], extensions["argument"]) == ("LIMIT_EXCEEDED", "aliases")


async def test_repetition_of_a_field_is_limited(production: Api) -> None:
    extensions = await rejection(production, "query cop { " + "__typename " * 500 + "}")
    assert (extensions["code"], extensions["argument"]) == ("LIMIT_EXCEEDED", "repeated fields")


async def test_number_of_directives_is_limited(production: Api) -> None:
    directives = "@include(if: true) " * (DIRECTIVES + 1)
    extensions = await rejection(production, f"query cop {{ __typename {directives} }}")
    assert (extensions["code"], extensions["argument"]) == ("LIMIT_EXCEEDED", "directives")


async def test_number_of_errors_in_a_response_is_limited(production: Api) -> None:
    for wrong in ("{ __typename " + "@aa" * 10 + " }", "{ " + "a b c d e f g h i j k l }"):
        body = await production.body(f"query cop {wrong}")
        assert len(body["errors"]) == 9
        assert "Too many" in body["errors"][-1]["message"]


async def test_batched_operations_are_rejected(production: Api) -> None:
    response = await production.http.post(
        "/graphql", json=[{"query": "query cop { __typename }"}] * 10
    )
    assert response.status_code == 400
    assert only_error(response)["extensions"] == {"code": "BAD_REQUEST"}


async def test_document_with_several_operations_needs_a_name(production: Api) -> None:
    query = " ".join(f"query cop{n} {{ __typename }}" for n in range(10))
    assert (await rejection(production, query))["code"] == "BAD_REQUEST"


async def test_circular_introspection_is_rejected_with_introspection_off(production: Api) -> None:
    for query in (CIRCULAR, '{ __type(name: "User") { name } }'):
        body = await production.body(query)
        assert list(body) == ["errors"]
        assert "introspection has been disabled" in str(body["errors"])


async def test_circular_introspection_is_rejected_with_introspection_on(api: Api) -> None:
    assert (await api.error(CIRCULAR))["message"] == "Maximum introspection depth exceeded"


async def test_errors_have_no_suggestions(production: Api) -> None:
    for query in ("query cop { usr { id } }", "query cop { __schema { directive } }"):
        body = await production.body(query)
        assert "Did you mean" not in orjson.dumps(body).decode()
        assert "data" not in body


async def test_get_cannot_mutate(production: Api, sql: Sql) -> None:
    before = await all_rows(sql)
    response = await production.http.get("/graphql", params={"query": CREATE})
    assert response.status_code == 405
    assert list(response.json()) == ["errors"]
    assert await all_rows(sql) == before


async def test_form_cannot_send_operations(production: Api, sql: Sql) -> None:
    before = await all_rows(sql)
    for response in (
        await production.http.post("/graphql", data={"query": CREATE}),
        await production.http.post("/graphql", files={"query": (None, CREATE)}),
        await production.http.post("/graphql", data={"query": CREATE}, params={"query": CREATE}),
        await production.http.post("/graphql", content=orjson.dumps({"query": CREATE})),
    ):
        assert response.status_code == 415
        assert list(response.json()) == ["errors"]
    assert await all_rows(sql) == before


async def test_tracing_is_not_available(production: Api) -> None:
    for header in ("x-apollo-tracing", "apollo-query-plan-experimental", "x-debug"):
        response = await production.http.post(
            "/graphql", json={"query": "query cop { __typename }"}, headers={header: "1"}
        )
        assert list(response.json()) == ["data", "extensions"]
        assert list(response.json()["extensions"]) == ["cost"]


async def test_fault_shows_no_stack_trace(production: Api, sql: Sql) -> None:
    async with renamed_table(sql, "users"):
        body = await production.body("{ user(id: 7) { id } }")
    (error,) = body["errors"]
    assert error["message"] == "An internal error occurred."
    assert sorted(error) == ["extensions", "locations", "message", "path"]
    assert sorted(error["extensions"]) == ["code", "requestId"]
    syntax = await production.error("query cop { sfdsfdsf")
    assert syntax["extensions"] == {"code": "BAD_REQUEST"}
    for shown in (error, syntax):
        assert not {"Traceback", "exception", ".py", "asyncpg"} & set(str(shown).split())


async def test_graphiql_page_is_not_served(production: Api) -> None:
    for path in ("/graphql", "/graphiql", "/playground", "/console", "/static/", "/v1/explorer"):
        response = await production.http.get(path, headers={"accept": "text/html"})
        assert response.status_code in {404, 406}
        assert "graphiql" not in response.text.lower().replace("/graphiql", "")


async def test_missing_file_of_the_page_is_no_fault(api: Api) -> None:
    """The same holds if the page is not built at all."""
    for path in ("nowhere.js", "..%2f..%2fapp.py", ""):
        assert (await api.http.get(f"/static/{path}")).status_code == 404


async def test_request_without_a_key_reveals_nothing(production: Api) -> None:
    for query in (CIRCULAR, CREATE, "{", "{ usr }"):
        for headers in ({"authorization": ""}, {"authorization": bearer(UNKNOWN)}):
            response = await production.http.post(
                "/graphql", json={"query": query}, headers=headers
            )
            assert response.status_code == 401
            assert only_error(response)["extensions"] == {"code": "UNAUTHENTICATED"}


async def test_metrics_are_not_public(production: Api) -> None:
    assert (await production.http.get("/metrics")).status_code == 403
