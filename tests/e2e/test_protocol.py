"""The protocol as others test it: `graphql-http`'s audits of a server, graphql-eslint's rules."""

from pathlib import Path

import httpx
import pytest

from tests.clients.node import run_json
from tests.e2e.conftest import RunServe, Serving

pytestmark = pytest.mark.e2e

SCHEMA = Path(__file__).parents[2] / "schema.graphql"
AUDITS = 61  # of graphql-http 1.23.1


async def test_every_audit_of_graphql_over_http_is_passed(serve: Serving) -> None:
    results = await run_json("audits.mjs", f"{serve.address}/graphql")
    assert [result for result in results if result["status"] != "ok"] == []
    assert len(results) == AUDITS


async def test_the_schema_keeps_the_rules_of_graphql_eslint_and_relay(tmp_path: Path) -> None:
    assert await run_json("lint.mjs", str(SCHEMA)) == []
    text = SCHEMA.read_text()
    for kept, broken, rule in (
        ("  usersTotal: Int!", "  users_total: Int!", "naming-convention"),
        ("  hasNextPage: Boolean!", "  hasNextPage: Boolean", "relay-page-info"),
        ("UserEdge", "UserEnd", "relay-edge-types"),
        ('"""What can be read."""\n', "", "require-description"),
        ("  first: Int = 50", "  last: Int = 50", "relay-arguments"),
    ):
        assert kept in text
        file = tmp_path / "schema.graphql"
        file.write_text(text.replace(kept, broken))
        found = {problem["rule"] for problem in await run_json("lint.mjs", str(file))}
        assert f"@graphql-eslint/{rule}" in found, (rule, found)


async def test_the_page_and_its_files_are_served_or_not_by_a_setting(run_serve: RunServe) -> None:
    for page, status in (("on", 200), ("off", 404)):
        async with (
            run_serve(SEGMENTQL_GRAPHIQL=page) as serving,
            httpx.AsyncClient(base_url=serving.address) as client,
        ):
            file = await client.get("/explorer/index.html")
            assert file.status_code == status
            (policy,) = file.headers.get_list("content-security-policy")
            assert ("script-src 'self'" in policy) is (page == "on")
            assert "frame-ancestors 'none'" in policy
