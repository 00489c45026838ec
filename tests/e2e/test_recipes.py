"""The programs of docs/clients, which docs/clients.md shows, work with a running service.

Their types are generated from an older schema: see `tests/e2e/recipe_builds.py`.
"""

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import httpx
import pytest

from segmentql.adapters.database import Database
from tests.conftest import Api, RunWorker, Sql, until
from tests.e2e.conftest import RunServe
from tests.e2e.faulty_proxy import Fault, FaultyProxy
from tests.e2e.recipe_builds import (
    Build,
    build_python,
    build_typescript,
    close_python,
    close_typescript,
)
from tests.keys.clients import make_key
from tests.operations import make_segments, update_user_segments

pytestmark = [pytest.mark.e2e, pytest.mark.usefixtures("s3")]

FIRST_ID: Final = "100000000000000"
LOST_CURSOR: Final = "chg_MTowMDAwMDAwMDAwMDAwMDAw"
"""A cursor of another database, for which `changes` returns FEED_RESET."""

ALL_FAULTS: Final = [Fault.DROP, Fault.BUSY, Fault.UNKNOWN]


@dataclass(frozen=True)
class Service:
    """A service whose user 1 is in three segments, behind a proxy."""

    proxy: FaultyProxy
    token: str
    api: Api
    month: tuple[str, str]

    def connect(self, build: Build) -> Build:
        return build.with_service(self.proxy.address, self.token)


@pytest.fixture
async def service(
    run_serve: RunServe, run_worker: RunWorker, database: Database, sql: Sql
) -> AsyncIterator[Service]:
    key = await make_key(database, "EDITOR", name="recipes")
    moment = await sql.fetchval("SELECT clock_timestamp() AT TIME ZONE 'UTC'")
    headers = {"authorization": f"Bearer {key.token}"}
    async with (
        run_serve(SEGMENTQL_AUTH="required") as serving,
        run_worker(),
        FaultyProxy(serving.address).open() as proxy,
        httpx.AsyncClient(base_url=serving.address, headers=headers, timeout=60) as http,
    ):
        api = Api(http)
        await make_segments(api, "a", "b", "c")
        for slug in ("a", "b", "c"):
            await update_user_segments(api, 1, add=[slug])
        yield Service(proxy, key.token, api, (str(moment.year), str(moment.month)))


@pytest.fixture(scope="module")
async def python(tmp_path_factory: pytest.TempPathFactory) -> Build:
    return await build_python(tmp_path_factory.mktemp("recipe"))


@pytest.fixture(scope="module")
async def typescript(tmp_path_factory: pytest.TempPathFactory) -> Build:
    return await build_typescript(tmp_path_factory.mktemp("recipe"))


async def row_counts(sql: Sql) -> list[int]:
    """Return the number of users who have a key, and of reports."""
    return [
        await sql.fetchval("SELECT count(*) FROM users WHERE key IS NOT NULL"),
        await sql.fetchval("SELECT count(*) FROM reports"),
    ]


async def check_recipe(build: Build, program: str, service: Service, sql: Sql) -> list[str]:
    """Run a recipe whose first mutations fail, and return what it prints."""
    program = build.with_long_limits(program)
    proxy = service.proxy
    proxy.faults = {
        "createUser": [*ALL_FAULTS],
        "createReport": [*ALL_FAULTS],
        "user": [Fault.BUSY],
    }
    printed = await service.connect(build).run(program, "the key", *service.month)
    assert proxy.faults["createUser"] == []
    assert proxy.faults["createReport"] == []
    # One user and one report, although both mutations were sent four times.
    assert proxy.attempts["createUser"] == len(ALL_FAULTS) + 3
    assert proxy.attempts["createReport"] == len(ALL_FAULTS) + 1
    assert await row_counts(sql) == [1, 1]
    return printed.splitlines()


async def test_python_recipe(python: Build, service: Service, sql: Sql) -> None:
    created, exists, rejected, *lines = await check_recipe(python, "recipe.py", service, sql)
    assert created == f"created {FIRST_ID} UTC"
    assert exists == f"exists {FIRST_ID}"
    assert rejected.startswith(
        "InvalidInput INVALID_INPUT ['key']: key is not valid: the key has 0 characters"
    )
    assert lines == [
        "segments a b c",
        *(f"JOINED {slug} MANUAL UTC" for slug in ("c", "b", "a")),
        "rows 3",
    ]


async def test_typescript_recipe(typescript: Build, service: Service, sql: Sql) -> None:
    created, exists, rejected, *lines = await check_recipe(
        typescript, "out/recipe.js", service, sql
    )
    assert created == f"created {FIRST_ID} true"
    assert exists == f"exists {FIRST_ID}"
    assert rejected.startswith(
        "InvalidInput INVALID_INPUT [key]: key is not valid: the key has 0 characters"
    )
    assert lines == [
        "segments a b c",
        *(f"JOINED {slug} MANUAL true" for slug in ("c", "b", "a")),
        "rows 3",
    ]


async def check_time_limit(build: Build, program: str, service: Service) -> None:
    """Check that a program goes on without an answer if the service does not respond to a query."""
    service.proxy.faults = {"user": [Fault.HANG] * 10}
    printed = await service.connect(build).run(program, "the key", *service.month)
    assert "segments" in printed.splitlines()
    assert service.proxy.attempts["user"] >= 1


async def test_python_query_has_a_time_limit(python: Build, service: Service) -> None:
    await check_time_limit(python, "recipe.py", service)


async def test_typescript_query_has_a_time_limit(typescript: Build, service: Service) -> None:
    await check_time_limit(typescript, "out/recipe.js", service)


async def check_no_retry(build: Build, program: str, service: Service) -> None:
    """Check that a program does not repeat a mutation after an error that remains."""
    service.proxy.faults = {"createUser": [Fault.TOO_LARGE]}
    await service.connect(build).run(program, "the key", *service.month, expect_failure=True)
    assert service.proxy.attempts["createUser"] == 1


async def test_python_recipe_does_not_repeat_a_permanent_error(
    python: Build, service: Service
) -> None:
    await check_no_retry(python, "recipe.py", service)


async def test_typescript_recipe_does_not_repeat_a_permanent_error(
    typescript: Build, service: Service
) -> None:
    await check_no_retry(typescript, "out/recipe.js", service)


@pytest.mark.parametrize("program", ["recipe_gql.py", "recipe_httpx.py"])
async def test_python_recipes_without_generated_types(
    python: Build, service: Service, sql: Sql, program: str
) -> None:
    service.proxy.faults = {"createUser": [*ALL_FAULTS]}
    build = service.connect(python)
    program = build.with_long_limits(program)
    created = await build.run(program, "the key")
    assert created.splitlines() == [f"created {FIRST_ID} UTC", "segments a b c"]
    assert service.proxy.attempts["createUser"] == len(ALL_FAULTS) + 1
    assert await row_counts(sql) == [1, 0]
    exists = await build.run(program, "the key")
    assert exists.splitlines()[0] == f"exists {FIRST_ID}"
    rejected = await build.run(program, "")
    assert rejected.startswith("rejected INVALID_INPUT ")


CALLS: Final = """
import asyncio, pydantic, recipe
async def main():
    async with recipe.open_client() as client:
        for call in (
            recipe.create_user(client, ""),
            recipe.create_report(client, "1", 2026, 0),
            anext(recipe.history_of(client, "1")),
        ):
            try:
                await call
            except pydantic.ValidationError as error:
                print(*(problem["type"] for problem in error.errors()))
            except recipe.Rejected:
                print("rejected")
            else:
                print("success")
asyncio.run(main())
"""


async def test_default_python_types_reject_later_versions(
    python: Build, service: Service, tmp_path: Path
) -> None:
    closed = service.connect(await close_python(python, tmp_path))
    printed = await closed.run("-c", CALLS)
    assert printed.splitlines() == ["union_tag_invalid", "literal_error enum", "enum enum"]
    printed = await service.connect(python).run("-c", CALLS)
    assert printed.split() == ["rejected", "rejected", "success"]


CLOSED_TYPESCRIPT: Final = """
import type { Cause, ChangesQuery } from "./generated.js";

export function describe(cause: Cause): string {
  switch (cause) {
    case "ROLLOUT": return "by a rollout";
    case "TTL": return "expired";
    case "SEGMENT_DELETED": return "without a segment";
    case "USER_DELETED": return "without a user";
  }
}

type Event = NonNullable<ChangesQuery["changes"]>["events"][number];
export const userOf = (event: Event): string => event.entry.userId;
"""


async def test_open_typescript_types_demand_a_default_branch(
    typescript: Build, tmp_path: Path
) -> None:
    closed = await close_typescript(typescript, tmp_path)
    (closed.folder / "closed.ts").write_text(CLOSED_TYPESCRIPT)
    tsc = str(typescript.folder / "node_modules" / ".bin" / "tsc")
    # The default types accept the program, which is wrong for every later version.
    await closed.run(tsc)
    script = 'import { describe } from "./out/closed.js"; console.log(describe("MANUAL"));'
    undefined = await closed.run("--input-type=module", "--eval", script)
    assert undefined == "undefined\n"
    (closed.folder / "generated.ts").write_text((typescript.folder / "generated.ts").read_text())
    errors = await closed.run(tsc, expect_failure=True)
    assert sorted(line.split(": ")[1] for line in errors.splitlines() if " error " in line) == [
        "error TS2339",
        "error TS2366",
    ]


async def follow_members(
    build: Build, program: str, service: Service, folder: Path, sql: Sql
) -> None:
    """Run a program that keeps the members of `a`, beside changes and restarts."""
    service.proxy.adds_future_events = True
    file, log = folder / "members.json", folder / "log"
    file.write_text(json.dumps(["seg_1", ["77"], LOST_CURSOR]))
    connected = service.connect(build)

    async def stores(*members: str) -> None:
        async def has_stored() -> bool:
            _, stored, cursor = json.loads(file.read_text())
            return sorted(stored) == sorted(members) and cursor != LOST_CURSOR

        await until(has_stored)

    async with connected.running(program, "a", str(file), log=log):
        await stores("1")
        await update_user_segments(service.api, 2, add=["a", "b"])
        await stores("1", "2")
        await update_user_segments(service.api, 1, remove=["a"])
        await stores("2")
        await update_user_segments(service.api, 3, add=["a"], ttlSeconds=1)
        await stores("2", "3")
        await stores("2")
    await update_user_segments(service.api, 4, add=["a"])
    async with connected.running(program, "a", str(file), log=log):
        await stores("2", "4")
    # The second run continued at the cursor of the file.
    assert await sql.fetchval("SELECT count(*) FROM exports") == 1
    assert all(line.isdigit() for line in log.read_text().splitlines()), log.read_text()


async def test_python_program_keeps_the_members(
    python: Build, service: Service, tmp_path: Path, sql: Sql
) -> None:
    await follow_members(python, "members.py", service, tmp_path, sql)


async def test_typescript_program_keeps_the_members(
    typescript: Build, service: Service, tmp_path: Path, sql: Sql
) -> None:
    await follow_members(typescript, "out/members.js", service, tmp_path, sql)
