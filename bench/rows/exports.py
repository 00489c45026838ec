"""Compares exports with `psql \\copy`, and measures the worker's memory."""

import asyncio
import hashlib
import time
from collections.abc import AsyncIterator, Mapping
from datetime import datetime
from typing import Any, Final

import httpx

from bench import psql, servers
from bench.comparison import WrongResponse, compare
from bench.databases import Connection, cloned_database, superuser_connection
from bench.http import graphql_client
from bench.memory import SIZE_FACTOR, memory_row
from bench.plan import Benchmark
from bench.servers import Server
from bench.table import Row
from segmentql.exports.members_csv import csv_statement
from segmentql.local import ChildProcess, with_database
from segmentql.settings import Settings

REPEATS: Final = 3
"""The number of exports and of copies per slice. One takes about a second, and varies by half."""

TIMEOUT_SECONDS: Final = 300
POLL_SECONDS: Final = 0.05

SMALL: Final = "export-small"
LARGE: Final = "export-large"

CREATE: Final = """
mutation($slug: String!) {
  createExport(input: {slug: $slug, waitSeconds: 60}) {
    export { id status rowCount failure } errors { message }
  }
}
"""
READ: Final = "query($id: ID!) { export(id: $id) { id status rowCount failure downloadUrl } }"

# The users have keys, as random as UUIDs.
ADD_USERS: Final = """
INSERT INTO users (id, key, created_at)
SELECT id, md5(id::text), now() FROM generate_series($1::bigint, $2::bigint) AS id
"""

# The members are not stored in the order of their ids, so that an export has to sort them.
ADD_MEMBERS: Final = """
INSERT INTO memberships (user_id, segment_id, joined_at, updated_at, cause)
SELECT $1::bigint + n * 7919 % $2::bigint, $3, moment.at, moment.at, 'MANUAL'
FROM generate_series(0::bigint, $2::bigint - 1) AS n,
    (SELECT clock_timestamp() AS at OFFSET 0) AS moment
"""


async def measure(bench: Benchmark) -> AsyncIterator[Row]:
    """Export two segments, of which the larger one has ten times as many members.

    The larger one has `report_rows` members, or with `--large` the smaller one. The time of its
    export is compared with that of psql.
    """
    rows = bench.plan.report_rows
    large_rows = SIZE_FACTOR * rows if bench.plan.large else rows
    sizes = {SMALL: large_rows // SIZE_FACTOR, LARGE: large_rows}
    compared = SMALL if bench.plan.large else LARGE
    bench.print_line(f"exports of {rows:,} members")
    async with cloned_database(bench.servers, bench.main) as clone:
        settings = bench.servers.settings(clone)
        await servers.set_up_bucket(settings)
        async with (
            superuser_connection(bench.servers, clone) as sql,
            servers.run_api(bench.servers, settings, "bench-api") as api,
        ):
            await _add_segments(sql, sizes, first_user_id=bench.plan.main.users + 1)
            async with servers.run_worker(bench.servers, settings) as worker:
                exports = _Exports(bench, api, worker, clone)
                yield await _compare_with_psql(exports, sql, compared, rows)
            peaks = [await _peak_memory(bench, settings, api, slug) for slug in (SMALL, LARGE)]
    yield memory_row("export", "members", large_rows, peaks)


async def _add_segments(sql: Connection, sizes: Mapping[str, int], *, first_user_id: int) -> None:
    """Create segments whose members are the first new users.

    Triggers are disabled meanwhile. There is no history of the members, because an export of the
    present members reads none.
    """
    users = max(sizes.values())
    await sql.execute("SET session_replication_role = replica")
    await sql.execute(ADD_USERS, first_user_id, first_user_id + users - 1)
    for slug, members in sizes.items():
        segment_id: int = await sql.fetchval(
            "INSERT INTO segments (slug, created_at, updated_at) VALUES ($1, now(), now())"
            " RETURNING id",
            slug,
        )
        await sql.execute(ADD_MEMBERS, first_user_id, members, segment_id)
    await sql.execute("SET session_replication_role = DEFAULT")
    await sql.execute("VACUUM (FREEZE, ANALYZE)")
    await sql.execute("CHECKPOINT")


class _Exports:
    """Makes the same file by an export and by psql."""

    def __init__(self, bench: Benchmark, api: Server, worker: ChildProcess, database: str) -> None:
        self.slices = bench.plan.slices
        self._api = api
        self._worker = worker
        self._url = with_database(bench.servers.service_url, database)
        self._target = bench.folder.resolve() / "psql-copy.csv"

    async def export(self, slug: str, members: int) -> Any:
        """Export a segment, and return the fields of the API."""
        try:
            export = await create_export(self._api, slug)
        except WrongResponse as error:
            raise WrongResponse(self._worker.error_message(str(error))) from error
        if export["rowCount"] != members:
            raise WrongResponse(f"an export has {export['rowCount']} rows, not {members}")
        return export

    async def download_digest(self, export: Any) -> str:
        """Return the hash of the file of an export."""
        async with graphql_client(self._api.port) as client:
            url = (await client(READ, id=export["id"]))["export"]["downloadUrl"]
        digest = hashlib.sha256()
        async with httpx.AsyncClient(timeout=60) as http, http.stream("GET", url) as response:
            response.raise_for_status()
            async for chunk in response.aiter_bytes():
                digest.update(chunk)
        return digest.hexdigest()

    async def copy(self, segment_id: int, as_of: datetime) -> float:
        """Write the file by psql, and return the time in seconds."""
        statement, arguments = csv_statement(segment_id, as_of)
        started = time.monotonic()
        await psql.copy_to_file(self._url, statement, arguments, self._target)
        return time.monotonic() - started

    def copied_digest(self) -> str:
        """Return the hash of the file that psql wrote."""
        with self._target.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    def delete_copy(self) -> None:
        self._target.unlink(missing_ok=True)


async def create_export(api: Server, slug: str) -> Any:
    """Request an export, wait until it is ready, and return the fields of the API.

    Raises:
        WrongResponse: The export did not become ready.
    """
    async with graphql_client(api.port) as client:
        created = (await client(CREATE, slug=slug))["createExport"]
        export = created["export"]
        if export is None:
            raise WrongResponse(f"an export was rejected: {created}")
        deadline = time.monotonic() + TIMEOUT_SECONDS
        while export["status"] in {"QUEUED", "RUNNING"} and time.monotonic() < deadline:
            await asyncio.sleep(POLL_SECONDS)
            export = (await client(READ, id=export["id"]))["export"]
    if export["status"] != "READY":
        raise WrongResponse(f"an export did not become ready: {export}")
    return export


async def _compare_with_psql(exports: _Exports, sql: Connection, slug: str, members: int) -> Row:
    segment_id: int = await sql.fetchval("SELECT id FROM segments WHERE slug = $1", slug)
    as_of: datetime = await sql.fetchval("SELECT now()")

    async def ours(_number: int) -> Mapping[str, float]:
        started = time.monotonic()
        await exports.export(slug, members)
        return {"seconds": time.monotonic() - started}

    async def theirs(_number: int) -> Mapping[str, float]:
        return {"seconds": await exports.copy(segment_id, as_of)}

    try:
        # The warm-up also compares the files.
        digest = await exports.download_digest(await exports.export(slug, members))
        await exports.copy(segment_id, as_of)
        if digest != exports.copied_digest():
            raise WrongResponse("the file of an export differs from that of psql")
        results = await compare(REPEATS * exports.slices, {"ours": ours, "theirs": theirs})
    finally:
        exports.delete_copy()
    seconds = {name: values["seconds"] for name, values in results.items()}
    return Row(
        name=f"an export of {members:,} members, from the request until ready",
        ours=f"{seconds['ours']:.1f} s",
        compared=f"psql \\copy into a file: {seconds['theirs']:.1f} s",
        value=seconds["ours"] / seconds["theirs"],
        max_value=1.3,
        details=seconds,
    )


async def _peak_memory(
    bench: Benchmark, settings: Settings, api: Server, slug: str
) -> float | None:
    """Return the peak memory of a worker that makes one export."""
    async with servers.run_worker(bench.servers, settings) as worker:
        await create_export(api, slug)
        return servers.peak_memory_mb(worker)
