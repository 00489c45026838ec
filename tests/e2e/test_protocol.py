"""GraphQL over HTTP as others test it: the audits of `graphql-http`, against a running server."""

import pytest

from tests.clients.node import run_json
from tests.e2e.conftest import Serving

pytestmark = pytest.mark.e2e

AUDITS = 61  # of graphql-http 1.23.1


async def test_every_audit_of_graphql_over_http_is_passed(serve: Serving) -> None:
    results = await run_json("audits.mjs", f"{serve.address}/graphql")
    assert [result for result in results if result["status"] != "ok"] == []
    assert len(results) == AUDITS
