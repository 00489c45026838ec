"""PostGraphile as a peer, if `make bench-peers` has installed it.

Its responses include expired memberships, because the filter of active memberships is not part of
its schema.
"""

import json
import re
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from bench import servers
from bench.databases import superuser_connection
from bench.node import NoNode, find_node
from bench.servers import Server
from segmentql.local import LocalServers, with_database
from segmentql.local.ports import free_port

SOURCES: Final = Path(__file__).parent / "npm"
"""The folder of the package manifest with the pinned version, its lock file and its settings."""

FOLDER: Final = Path(__file__).parents[1] / ".segmentql-bench" / "npm"
"""The folder into which they are copied and installed."""

PINNED: Final[str] = json.loads((SOURCES / "package.json").read_text())["dependencies"][
    "postgraphile"
]
CONFIGURATION: Final = "postgraphile.config.mjs"
MIN_NODE: Final = 22
"""The oldest major version of Node.js for PostGraphile 5.1."""

ADVICE: Final = "run `make bench-peers`"

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
    home: Path
    """The folder that contains `node_modules`."""


@dataclass(frozen=True)
class NotInstalled:
    """The reason why PostGraphile cannot run on this machine."""

    reason: str


def find_postgraphile(
    folder: Path = FOLDER, nodes: Sequence[str] | None = None
) -> Installation | NotInstalled:
    """Find the pinned PostGraphile, and a Node.js that can run it.

    Args:
        folder: The folder that contains `node_modules`.
        nodes: Paths of Node.js in the order of preference. None: those of this machine.
    """
    home = folder.resolve()
    package = home / "node_modules" / "postgraphile" / "package.json"
    if not package.exists():
        return NotInstalled(f"PostGraphile is not installed ({ADVICE})")
    manifest = json.loads(package.read_text())
    if manifest["version"] != PINNED:
        return NotInstalled(f"PostGraphile is {manifest['version']}, not {PINNED} ({ADVICE})")
    # With an older Node.js it starts, but its responses are wrong.
    required_node = _required_node(manifest)
    node = find_node(required_node, nodes)
    if isinstance(node, NoNode):
        return NotInstalled(
            f"PostGraphile {PINNED} needs Node {required_node} or later; {node.reason}"
            f" ({ADVICE}, which installs Node)"
        )
    return Installation(node, home)


def _required_node(manifest: Mapping[str, Any]) -> int:
    """Return the oldest major version of Node.js in `engines` of a package manifest."""
    match = re.match(r">=\s*(\d+)", manifest.get("engines", {}).get("node", ""))
    return int(match[1]) if match else MIN_NODE


@asynccontextmanager
async def postgraphile_server(
    local: LocalServers, peer: Installation, database: str
) -> AsyncIterator[Server]:
    """Run one PostGraphile process with its default preset and the role that owns the tables."""
    async with superuser_connection(local, database) as sql:
        await sql.execute(USERS_BY_ID)
    port = free_port()
    async with servers.run_peer(
        local,
        "bench-postgraphile",
        [
            peer.node,
            str(peer.home / "node_modules" / "postgraphile" / "dist" / "cli-run.js"),
            *(
                "--config",
                str(peer.home / CONFIGURATION),
                "--host",
                "127.0.0.1",
                "--port",
                str(port),
            ),
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
