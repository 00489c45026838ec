"""The service passes the audits of `graphql-http` and the rules of graphql-eslint."""

from pathlib import Path

import httpx
import pytest

from segmentql.adapters.pages import STATIC
from tests.clients.node import run_json
from tests.e2e.conftest import RunServe, Serving

pytestmark = pytest.mark.e2e

SCHEMA = Path(__file__).parents[2] / "schema.graphql"
AUDITS = 61  # of graphql-http 1.23.1


async def test_every_graphql_over_http_audit_passes(serve: Serving) -> None:
    results = await run_json("audits.mjs", f"{serve.address}/graphql")
    assert [result for result in results if result["status"] != "ok"] == []
    assert len(results) == AUDITS


async def test_schema_follows_the_rules_of_graphql_eslint_and_relay(tmp_path: Path) -> None:
    assert await run_json("lint.mjs", str(SCHEMA)) == []
    text = SCHEMA.read_text()
    for original, broken, rule in (
        ("  usersTotal: BigInt!", "  users_total: BigInt!", "naming-convention"),
        ("  hasNextPage: Boolean!", "  hasNextPage: Boolean", "relay-page-info"),
        ("UserEdge", "UserEnd", "relay-edge-types"),
        ('"""The queries."""\n', "", "require-description"),
        ("  first: Int = 50", "  last: Int = 50", "relay-arguments"),
    ):
        assert original in text
        file = tmp_path / "schema.graphql"
        file.write_text(text.replace(original, broken))
        broken_rules = {problem["rule"] for problem in await run_json("lint.mjs", str(file))}
        assert f"@graphql-eslint/{rule}" in broken_rules, (rule, broken_rules)


async def test_settings_disable_the_pages_and_their_files(run_serve: RunServe) -> None:
    script = next((STATIC / "assets").glob("*.js")).relative_to(STATIC).as_posix()
    for page, status in (("on", 200), ("off", 404)):
        async with (
            run_serve(SEGMENTQL_GRAPHIQL=page, SEGMENTQL_CONSOLE=page) as serving,
            httpx.AsyncClient(base_url=serving.address) as client,
        ):
            file = await client.get(f"/static/{script}")
            assert file.status_code == status
            (policy,) = file.headers.get_list("content-security-policy")
            assert ("script-src 'self'" in policy) is (page == "on")
            assert "frame-ancestors 'none'" in policy
