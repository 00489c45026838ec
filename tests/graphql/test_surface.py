"""What graphql-cop looks for, and more, one test each: under the settings for production.

https://github.com/dolevf/graphql-cop; `SECURITY.md` names the settings. Each asks with an ADMIN
key: whoever has none is refused before anything is read.
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
from tests.graphql.test_faults import table_lost
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
    """The service under the settings that `SECURITY.md` names; who asks bears an ADMIN key."""
    key = await make_key(database, "ADMIN")
    changes = {
        "auth": "required",
        "introspection": "off",
        "suggestions": "off",
        "graphiql": "off",
    }
    async with serving(settings.model_copy(update=changes)) as asking:
        asking.http.headers["authorization"] = bearer(key.token)
        yield asking


async def refused(api: Api, query: str) -> Any:
    """The only error of a document that is refused before anything of it is done."""
    body = await api.body(query)
    assert list(body) == ["errors"]
    (error,) = body["errors"]
    return error["extensions"]


async def test_aliases_cannot_be_piled_up(production: Api) -> None:
    aliases = " ".join(f"alias{n}: __typename" for n in range(ALIASES + 1))
    told = await refused(production, f"query cop {{ {aliases} }}")
    assert (told["code"], told["argument"]) == ("LIMIT_EXCEEDED", "aliases")


async def test_a_field_cannot_be_repeated_without_end(production: Api) -> None:
    told = await refused(production, "query cop { " + "__typename " * 500 + "}")
    assert (told["code"], told["argument"]) == ("LIMIT_EXCEEDED", "repeated fields")


async def test_directives_cannot_be_piled_up(production: Api) -> None:
    known = "@include(if: true) " * (DIRECTIVES + 1)
    told = await refused(production, f"query cop {{ __typename {known} }}")
    assert (told["code"], told["argument"]) == ("LIMIT_EXCEEDED", "directives")


async def test_a_document_has_few_errors_however_much_is_wrong_with_it(production: Api) -> None:
    for wrong in ("{ __typename " + "@aa" * 10 + " }", "{ " + "a b c d e f g h i j k l }"):
        body = await production.body(f"query cop {wrong}")
        assert len(body["errors"]) == 9
        assert "Too many" in body["errors"][-1]["message"]


async def test_operations_cannot_be_sent_by_the_dozen(production: Api) -> None:
    response = await production.http.post(
        "/graphql", json=[{"query": "query cop { __typename }"}] * 10
    )
    assert response.status_code == 400
    assert only_error(response)["extensions"] == {"code": "BAD_REQUEST"}


async def test_operations_of_one_document_are_not_executed_together(production: Api) -> None:
    query = " ".join(f"query cop{n} {{ __typename }}" for n in range(10))
    assert (await refused(production, query))["code"] == "BAD_REQUEST"


async def test_introspection_is_off_and_so_cannot_go_in_circles(production: Api) -> None:
    for query in (CIRCULAR, '{ __type(name: "User") { name } }'):
        body = await production.body(query)
        assert list(body) == ["errors"]
        assert "introspection has been disabled" in str(body["errors"])


async def test_where_introspection_is_on_it_still_cannot_go_in_circles(api: Api) -> None:
    assert (await api.error(CIRCULAR))["message"] == "Maximum introspection depth exceeded"


async def test_no_suggestion_tells_what_exists(production: Api) -> None:
    for query in ("query cop { usr { id } }", "query cop { __schema { directive } }"):
        body = await production.body(query)
        assert "Did you mean" not in orjson.dumps(body).decode()
        assert "data" not in body


async def test_a_link_cannot_change_anything(production: Api, sql: Sql) -> None:
    before = await all_rows(sql)
    response = await production.http.get("/graphql", params={"query": CREATE})
    assert response.status_code == 405
    assert list(response.json()) == ["errors"]
    assert await all_rows(sql) == before


async def test_a_form_cannot_ask_anything(production: Api, sql: Sql) -> None:
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


async def test_nothing_is_traced_for_who_asks(production: Api) -> None:
    for header in ("x-apollo-tracing", "apollo-query-plan-experimental", "x-debug"):
        response = await production.http.post(
            "/graphql", json={"query": "query cop { __typename }"}, headers={header: "1"}
        )
        assert list(response.json()) == ["data", "extensions"]
        assert list(response.json()["extensions"]) == ["cost"]


async def test_no_fault_tells_its_stack(production: Api, sql: Sql) -> None:
    async with table_lost(sql, "users"):
        body = await production.body("{ user(id: 7) { id } }")
    (error,) = body["errors"]
    assert error["message"] == "An internal error occurred."
    assert sorted(error) == ["extensions", "locations", "message", "path"]
    assert sorted(error["extensions"]) == ["code", "requestId"]
    syntax = await production.error("query cop { sfdsfdsf")
    assert syntax["extensions"] == {"code": "BAD_REQUEST"}
    for told in (error, syntax):
        assert not {"Traceback", "exception", ".py", "asyncpg"} & set(str(told).split())


async def test_no_page_to_ask_from_is_served(production: Api) -> None:
    for path in ("/graphql", "/graphiql", "/playground", "/console", "/explorer/", "/v1/explorer"):
        response = await production.http.get(path, headers={"accept": "text/html"})
        assert response.status_code in {404, 406}
        assert "graphiql" not in response.text.lower().replace("/graphiql", "")


async def test_a_file_of_the_page_that_is_not_there_is_no_fault(api: Api) -> None:
    """Nor is it where the page is not built at all."""
    for path in ("nowhere.js", "..%2f..%2fapp.py", ""):
        assert (await api.http.get(f"/explorer/{path}")).status_code == 404


async def test_who_bears_no_key_is_told_nothing(production: Api) -> None:
    for query in (CIRCULAR, CREATE, "{", "{ usr }"):
        for headers in ({"authorization": ""}, {"authorization": bearer(UNKNOWN)}):
            response = await production.http.post(
                "/graphql", json={"query": query}, headers=headers
            )
            assert response.status_code == 401
            assert only_error(response)["extensions"] == {"code": "UNAUTHENTICATED"}


async def test_metrics_are_closed(production: Api) -> None:
    assert (await production.http.get("/metrics")).status_code == 403
