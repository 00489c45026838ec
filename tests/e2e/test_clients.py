"""The operations of the README work with popular GraphQL clients and a key."""

import asyncio
from pathlib import Path
from typing import Any

import httpx
import pytest
from gql import Client, GraphQLRequest
from gql.transport.exceptions import TransportQueryError
from gql.transport.httpx import HTTPXAsyncTransport

from graphql import parse, print_ast
from segmentql.adapters.database import Database
from tests.clients.node import HERE, run_binary, run_json
from tests.conftest import RunWorker, Sql, until
from tests.e2e.conftest import RunServe
from tests.keys.clients import make_key

pytestmark = pytest.mark.e2e

SCHEMA = Path(__file__).parents[2] / "schema.graphql"
STORY = (HERE / "story.graphql").read_text()
PAGES = (HERE / "pages.graphql").read_text()
HEADER = "user_id,segment_slug,operation,executed_at"
SEEN: dict[str, Any] = {
    "created": [["STORY_30", 0], ["STORY_50", 0]],
    "added": [1, 1],
    "memberships": [["STORY_30", False, "MANUAL"], ["STORY_50", True, "MANUAL"]],
    "refused": [None, [["SegmentNotFound", "SEGMENT_NOT_FOUND", ["add", "1"], ["NOPE"]]]],
    "history": [["JOINED", "STORY_50", "clients"], ["JOINED", "STORY_30", "clients"]],
    "lines": [HEADER, "1,STORY_30,I", "1,STORY_50,I"],
    "rollout": [100, 1],
    "bad": [["BAD_REQUEST", "first"]],
}


class Service:
    """The address of the service, the key, and the current month by PostgreSQL's clock."""

    def __init__(self, address: str, token: str, year: int, month: int) -> None:
        self.url = f"{address}/graphql"
        self.token = token
        self.year, self.month = year, month

    @property
    def arguments(self) -> tuple[str, ...]:
        return self.url, self.token, str(self.year), str(self.month)

    @property
    def results(self) -> dict[str, Any]:
        name = f"segments-1-{self.year}-{self.month:02}.csv"
        return {**SEEN, "report": ["READY", 2, name, 200]}


@pytest.fixture
async def service(
    run_serve: RunServe, run_worker: RunWorker, database: Database, sql: Sql, s3: object
) -> Any:
    """Run the whole service with required keys and empty tables."""
    key = await make_key(database, "ADMIN", name="clients")
    moment = await sql.fetchval("SELECT clock_timestamp() AT TIME ZONE 'UTC'")
    async with run_serve(SEGMENTQL_AUTH="required") as serving, run_worker():
        yield Service(serving.address, key.token, moment.year, moment.month)


async def test_python_gql_client(service: Service) -> None:
    transport = HTTPXAsyncTransport(
        url=service.url, headers={"authorization": f"Bearer {service.token}"}
    )
    results: dict[str, Any] = {}
    # With the fetched schema, the client validates its operations before it sends them.
    async with Client(transport=transport, fetch_schema_from_transport=True) as session:

        async def run_operation(name: str, **variables: Any) -> Any:
            request = GraphQLRequest(STORY, variable_values=variables, operation_name=name)
            return await session.execute(request)

        results["created"] = []
        for slug in ("STORY_30", "STORY_50"):
            payload = (await run_operation("storyCreateMutation", input={"slug": slug}))[
                "createSegment"
            ]
            results["created"].append([payload["segment"]["slug"], len(payload["errors"])])

        async def added(**changes: Any) -> Any:
            answer = await run_operation("storyUpdateMutation", input={"userId": "1", **changes})
            return answer["updateUserSegments"]

        results["added"] = [
            (await added(add=["STORY_30"]))["segmentsAdded"],
            (await added(add=["STORY_50"], ttlSeconds=3600))["segmentsAdded"],
        ]
        user = (await run_operation("storyUserQuery", id="1"))["user"]
        results["memberships"] = [
            [m["segment"]["slug"], m["expiresAt"] is not None, m["cause"]]
            for m in user["memberships"]
        ]
        refused = await added(add=["STORY_30", "NOPE"])
        (error,) = refused["errors"]
        error_fields = [error[name] for name in ("__typename", "code", "path", "slugs")]
        results["refused"] = [refused["user"], [error_fields]]
        history = (await run_operation("storyHistoryQuery", userId="1"))["history"]
        results["history"] = [
            [node["operation"], node["segment"]["slug"], node["actor"]]
            for node in (edge["node"] for edge in history["edges"])
        ]
        month = {"year": service.year, "month": service.month}
        report = (await run_operation("storyReportMutation", input={"userId": "1", **month}))[
            "createReport"
        ]
        report = report["report"]
        async with httpx.AsyncClient() as downloading:
            file = await downloading.get(report["downloadUrl"])
        first, *lines = file.text.strip().split("\n")
        results["report"] = [
            *(report[name] for name in ("status", "rowCount", "fileName")),
            file.status_code,
        ]
        results["lines"] = [first, *(",".join(line.split(",")[:3]) for line in lines)]
        rollout = {"slug": "STORY_ALL", "rollout": {"percent": 100}}
        await run_operation("storyCreateMutation", input=rollout)

        async def read_segment() -> Any:
            return (await run_operation("storyRolloutQuery", slug="STORY_ALL"))["segment"]

        async def completed() -> bool:
            return bool((await read_segment())["rollout"]["status"] == "COMPLETED")

        await until(completed)
        # The query that saw the status may have read the members before it.
        segment = await read_segment()
        results["rollout"] = [segment["rollout"]["percent"], segment["memberCount"]]
        with pytest.raises(TransportQueryError) as raised:
            await run_operation("storyBadQuery")
        results["bad"] = [
            [error["extensions"]["code"], error["extensions"]["argument"]]
            for error in raised.value.errors or ()
        ]
    assert results == service.results


async def test_apollo_client(service: Service) -> None:
    results = await run_json("apollo.mjs", *service.arguments)
    cached = [key.split(":")[0] for key in results.pop("cached")]
    assert sorted(cached) == ["Segment", "Segment", "Segment", "User"]
    assert results == service.results


async def test_urql_client(service: Service) -> None:
    assert await run_json("urql.mjs", *service.arguments) == service.results


async def test_relay_client_with_compiled_queries(service: Service, tmp_path: Path) -> None:
    artifacts = await compiled(tmp_path)
    results = await run_json("relay.mjs", str(artifacts), *service.arguments)
    assert results.pop("page") == 1
    refetched = results.pop("refetched")
    assert refetched.pop("id").startswith("seg_")
    expected = {"__typename": "Segment", "slug": "STORY_30", "version": 1, "rollout": None}
    assert refetched == expected
    assert results == service.results


async def compiled(folder: Path) -> Path:
    """Return the output of Relay's compiler for the documents and `schema.graphql`."""
    await asyncio.to_thread(_write_sources, folder)
    await run_binary("relay-compiler", "relay.config.json", folder=folder)
    return folder / "made"


def _write_sources(folder: Path) -> None:
    (folder / "made").mkdir()
    (folder / "package.json").write_text('{"type": "module"}')
    (folder / "schema.graphql").write_text(SCHEMA.read_text())
    tagged = [
        f"graphql`{print_ast(definition)}`;\n"
        for document in (STORY, PAGES)
        for definition in parse(document).definitions
    ]
    (folder / "story.js").write_text("".join(tagged))
    (folder / "relay.config.json").write_text(
        '{"src": ".", "schema": "schema.graphql", "language": "javascript",'
        ' "artifactDirectory": "made", "eagerEsModules": true}'
    )
