"""Compares imports with COPY and one SQL statement, and measures reads and memory meanwhile."""

import asyncio
import io
import random
import time
from collections.abc import AsyncIterator, Mapping
from typing import Any, Final

import httpx

from bench import servers
from bench.comparison import WrongResponse, compare, load_measurement, with_background_work
from bench.databases import Connection, cloned_database, ensure_database, superuser_connection
from bench.http import graphql_client
from bench.load import Load
from bench.memory import SIZE_FACTOR, memory_row
from bench.plan import Benchmark
from bench.queries import ROLLOUT
from bench.servers import Server
from bench.table import Row
from segmentql.local import ChildProcess
from segmentql.settings import Settings

READS_PER_SECOND: Final = 300
TIMEOUT_SECONDS: Final = 600
POLL_SECONDS: Final = 0.05

CREATE_SEGMENT: Final = (
    "mutation($slug: String!) { createSegment(input: {slug: $slug}) { errors { message } } }"
)
CREATE: Final = """
mutation($slug: String!, $bytes: BigInt!) {
  createImport(input: {slug: $slug, mode: ADD, source: {upload: {sizeBytes: $bytes}}}) {
    import { id } upload { url method headers { name value } } errors { message }
  }
}
"""
START: Final = "mutation($id: ID!) { startImport(input: {id: $id}) { errors { message } } }"
READ: Final = """
query($id: ID!) { import(id: $id) { status failure counts { outcome count } } }
"""

# The time for which a client waits for the members. The result is written afterwards.
_SECONDS: Final = """
SELECT extract(epoch FROM finished_at - queued_at)::float8 FROM imports WHERE id = $1
"""

_COPY: Final = "CREATE TABLE bench_list (id bigint)"
_INSERT: Final = """
INSERT INTO memberships (user_id, segment_id, joined_at, updated_at, cause)
SELECT id, $1, moment.at, moment.at, 'MANUAL'
FROM bench_list, (SELECT clock_timestamp() AS at OFFSET 0) AS moment ORDER BY id
"""


async def measure(bench: Benchmark) -> AsyncIterator[Row]:
    sizes = bench.plan.rollout
    name = await ensure_database(bench.servers, sizes, bench.print_line)
    bench.print_line(f"imports of {sizes.users:,} ids")
    async with (
        cloned_database(bench.servers, name) as clone,
        superuser_connection(bench.servers, clone) as sql,
    ):
        settings = bench.servers.settings(clone)
        await servers.set_up_bucket(settings)
        async with servers.run_api(bench.servers, settings, "bench-api") as api:
            async with servers.run_worker(bench.servers, settings) as worker:
                yield await _compare_with_sql(bench, api, worker, sql)
                bench.print_line(f"reads at {READS_PER_SECOND} req/s, idle and beside an import")
                yield await _reads_during_imports(bench, api, worker)
            yield await _memory(bench, settings, api)


def _list_of_ids(users: int) -> bytes:
    """Return a file of the ids from 1 to `users`, in random order, the same in each run."""
    ids = list(range(1, users + 1))
    random.Random(1).shuffle(ids)
    return ("\n".join(map(str, ids)) + "\n").encode()


async def _run_import(api: Server, worker: ChildProcess, slug: str, users: int) -> int:
    """Import the first ids into a new segment; return the number of the import.

    Raises:
        WrongResponse: the import is not completed, or not all users joined.
    """
    data = _list_of_ids(users)
    async with graphql_client(api.port) as client:
        await client(CREATE_SEGMENT, slug=slug)
        created = (await client(CREATE, slug=slug, bytes=len(data)))["createImport"]
        await _upload(created["upload"], data)
        import_id: str = created["import"]["id"]
        await client(START, id=import_id)
        deadline = time.monotonic() + TIMEOUT_SECONDS
        found: Any = {"status": "QUEUED"}
        while (
            found["status"] in {"QUEUED", "VALIDATING", "APPLYING"} and time.monotonic() < deadline
        ):
            await asyncio.sleep(POLL_SECONDS)
            found = (await client(READ, id=import_id))["import"]
    expected = {"status": "COMPLETED", "counts": [{"outcome": "JOINED", "count": users}]}
    if found != {**expected, "failure": None}:
        raise WrongResponse(worker.error_message(f"an import did not complete: {found}"))
    return int(import_id.removeprefix("imp_"))


async def _upload(upload: Any, data: bytes) -> None:
    headers = {header["name"]: header["value"] for header in upload["headers"]}
    async with httpx.AsyncClient(timeout=60) as http:
        response = await http.request(
            upload["method"], upload["url"], content=data, headers=headers
        )
    response.raise_for_status()


async def _compare_with_sql(
    bench: Benchmark, api: Server, worker: ChildProcess, sql: Connection
) -> Row:
    """Compare an import with COPY of its file and one statement that adds the same users."""
    users = bench.plan.rollout.users
    data = _list_of_ids(users)

    async def ours(number: int) -> Mapping[str, float]:
        await _vacuum(sql)
        import_id = await _run_import(api, worker, f"{ROLLOUT}import-ours-{number}", users)
        return {"seconds": await sql.fetchval(_SECONDS, import_id)}

    async def theirs(number: int) -> Mapping[str, float]:
        segment_id: int = await sql.fetchval(
            "INSERT INTO segments (slug, created_at, updated_at) VALUES ($1, now(), now())"
            " RETURNING id",
            f"{ROLLOUT}import-theirs-{number}",
        )
        await _vacuum(sql)
        started = time.monotonic()
        await sql.execute(_COPY)
        await sql.copy_to_table("bench_list", source=io.BytesIO(data))
        await sql.execute(_INSERT, segment_id)
        seconds = time.monotonic() - started
        await sql.execute("DROP TABLE bench_list")
        return {"seconds": seconds}

    # The first import of a worker waits until its client of the store is open.
    await _run_import(api, worker, f"{ROLLOUT}import-warm-up", 1)
    results = await compare(bench.plan.slices, {"ours": ours, "theirs": theirs})
    seconds = {name: values["seconds"] for name, values in results.items()}
    return Row(
        name=f"an import of {users:,} ids, from startImport until completed",
        ours=f"{seconds['ours']:.1f} s",
        compared=f"COPY and one INSERT: {seconds['theirs']:.1f} s",
        value=seconds["ours"] / seconds["theirs"],
        max_value=1.3,
        details=seconds,
    )


async def _vacuum(sql: Connection) -> None:
    await sql.execute("VACUUM (ANALYZE)")
    await sql.execute("CHECKPOINT")


async def _reads_during_imports(bench: Benchmark, api: Server, worker: ChildProcess) -> Row:
    plan = bench.plan
    load = load_measurement(
        api,
        Load(
            port=api.port,
            request="OneUserInRollouts",
            sizes=plan.rollout,
            rate=READS_PER_SECOND,
            seconds=2 * plan.slice_seconds,
            warm_up_seconds=plan.warm_up_seconds,
            check_every=plan.check_every,
            max_requests=plan.max_slice_requests,
        ),
    )
    rounds = iter(range(1_000_000))

    async def run_import(_number: int) -> None:
        await _run_import(api, worker, f"{ROLLOUT}import-reads-{next(rounds)}", plan.rollout.users)

    results = await compare(
        plan.slices, {"idle": load, "loaded": with_background_work(load, run_import)}
    )
    idle, loaded = results["idle"], results["loaded"]
    return Row(
        name=f"p99 of a read at {READS_PER_SECOND} req/s beside an import",
        ours=f"{loaded['p99_ms']:.1f} ms",
        compared=f"idle: {idle['p99_ms']:.1f} ms",
        value=loaded["p99_ms"] - idle["p99_ms"],
        unit="ms more",
        max_value=20,
        details=results,
    )


async def _memory(bench: Benchmark, settings: Settings, api: Server) -> Row:
    """Compare the peak memory of two workers, in all, each of which runs one import."""
    users = bench.plan.rollout.users
    peaks: list[float | None] = []
    for number in (users // SIZE_FACTOR, users):
        async with servers.run_worker(bench.servers, settings) as worker:
            await _run_import(api, worker, f"{ROLLOUT}import-memory-{number}", number)
            peaks.append(servers.peak_memory_mb(worker))
    return memory_row("import", "ids", users, peaks)
