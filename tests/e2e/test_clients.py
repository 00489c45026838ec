"""The README's story by clients that people use, as they come, with a key, against the service."""

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
    """Where the service is, who asks, and the month that it is by PostgreSQL's clock."""

    def __init__(self, address: str, token: str, year: int, month: int) -> None:
        self.url = f"{address}/graphql"
        self.token = token
        self.year, self.month = year, month

    @property
    def arguments(self) -> tuple[str, ...]:
        return self.url, self.token, str(self.year), str(self.month)

    @property
    def seen(self) -> dict[str, Any]:
        name = f"segments-1-{self.year}-{self.month:02}.csv"
        return {**SEEN, "report": ["READY", 2, name, 200]}


@pytest.fixture
async def service(
    run_serve: RunServe, run_worker: RunWorker, database: Database, sql: Sql, s3: object
) -> Any:
    """The whole service, which asks for keys, with empty tables."""
    key = await make_key(database, "ADMIN", name="clients")
    moment = await sql.fetchval("SELECT clock_timestamp() AT TIME ZONE 'UTC'")
    async with run_serve(SEGMENTQL_AUTH="required") as serving, run_worker():
        yield Service(serving.address, key.token, moment.year, moment.month)


async def test_gql_of_python(service: Service) -> None:
    transport = HTTPXAsyncTransport(
        url=service.url, headers={"authorization": f"Bearer {service.token}"}
    )
    seen: dict[str, Any] = {}
    # With the schema, which it asks for, it checks what it sends.
    async with Client(transport=transport, fetch_schema_from_transport=True) as session:

        async def ask(name: str, **variables: Any) -> Any:
            request = GraphQLRequest(STORY, variable_values=variables, operation_name=name)
            return await session.execute(request)

        seen["created"] = []
        for slug in ("STORY_30", "STORY_50"):
            payload = (await ask("storyCreateMutation", input={"slug": slug}))["createSegment"]
            seen["created"].append([payload["segment"]["slug"], len(payload["errors"])])

        async def added(**changes: Any) -> Any:
            answer = await ask("storyUpdateMutation", input={"userId": "1", **changes})
            return answer["updateUserSegments"]

        seen["added"] = [
            (await added(add=["STORY_30"]))["segmentsAdded"],
            (await added(add=["STORY_50"], ttlSeconds=3600))["segmentsAdded"],
        ]
        user = (await ask("storyUserQuery", id="1"))["user"]
        seen["memberships"] = [
            [m["segment"]["slug"], m["expiresAt"] is not None, m["cause"]]
            for m in user["memberships"]
        ]
        refused = await added(add=["STORY_30", "NOPE"])
        (error,) = refused["errors"]
        told = [error[name] for name in ("__typename", "code", "path", "slugs")]
        seen["refused"] = [refused["user"], [told]]
        history = (await ask("storyHistoryQuery", userId="1"))["history"]
        seen["history"] = [
            [node["operation"], node["segment"]["slug"], node["actor"]]
            for node in (edge["node"] for edge in history["edges"])
        ]
        month = {"year": service.year, "month": service.month}
        report = (await ask("storyReportMutation", input={"userId": "1", **month}))["createReport"]
        report = report["report"]
        async with httpx.AsyncClient() as downloading:
            file = await downloading.get(report["downloadUrl"])
        first, *lines = file.text.strip().split("\n")
        seen["report"] = [
            *(report[name] for name in ("status", "rowCount", "fileName")),
            file.status_code,
        ]
        seen["lines"] = [first, *(",".join(line.split(",")[:3]) for line in lines)]
        rollout = {"slug": "STORY_ALL", "rollout": {"percent": 100}}
        await ask("storyCreateMutation", input=rollout)

        async def completed() -> bool:
            segment = (await ask("storyRolloutQuery", slug="STORY_ALL"))["segment"]
            seen["rollout"] = [segment["rollout"]["percent"], segment["memberCount"]]
            return bool(segment["rollout"]["status"] == "COMPLETED")

        await until(completed)
        with pytest.raises(TransportQueryError) as raised:
            await ask("storyBadQuery")
        seen["bad"] = [
            [error["extensions"]["code"], error["extensions"]["argument"]]
            for error in raised.value.errors or ()
        ]
    assert seen == service.seen


async def test_apollo_client(service: Service) -> None:
    seen = await run_json("apollo.mjs", *service.arguments)
    cached = [key.split(":")[0] for key in seen.pop("cached")]
    assert sorted(cached) == ["Segment", "Segment", "Segment", "User"]
    assert seen == service.seen


async def test_urql(service: Service) -> None:
    assert await run_json("urql.mjs", *service.arguments) == service.seen


async def test_relay_on_what_its_compiler_makes_of_the_schema(
    service: Service, tmp_path: Path
) -> None:
    made = await compiled(tmp_path)
    seen = await run_json("relay.mjs", str(made), *service.arguments)
    assert seen.pop("page") == 1
    assert seen == service.seen


async def compiled(folder: Path) -> Path:
    """What Relay's compiler makes of the story and of `schema.graphql`."""
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
