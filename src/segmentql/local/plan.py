"""The plan of `segmentql up`: which programs run, with which commands, ports and settings."""

import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from segmentql.local.data_dir import DataFolder
from segmentql.local.ports import ServerPorts
from segmentql.local.postgres import OWNER, SERVICE, postgres, postgres_url
from segmentql.local.probes import ask
from segmentql.local.process import Program
from segmentql.local.redis import redis, redis_url
from segmentql.local.store import store, store_port, store_settings
from segmentql.settings import (
    METRICS_VARIABLE,
    MIGRATION_VARIABLE,
    PREFIX,
    child_environment,
    is_set,
    load_settings,
    raw_value,
    require_loopback_without_auth,
)

# Where to call a server that listens on every address.
EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104

EXAMPLE = """\
{make_key}curl http://{address}/graphql{key} -H 'content-type: application/json' --data '
  {{"query": "mutation {{ createSegment(input: {{slug: \\"beta\\"}}) {{ segment {{ id }} }} }}"}}'
"""

MAKE_KEY = "KEY=$(segmentql keys create --role ADMIN --name ME --data-dir {data_dir})\n"
KEY = ' -H "authorization: Bearer $KEY"'


def _our(*words: str) -> tuple[str, ...]:
    return (sys.executable, "-m", "segmentql", *words)


@dataclass(frozen=True)
class Commands:
    """The commands of ours that run as children."""

    migrate: Sequence[str] = _our("migrate")
    bucket: Sequence[str] = _our("bucket")
    worker: Sequence[str] = _our("worker")
    serve: Sequence[str] = _our("serve")
    seed: Sequence[str] = _our("seed")


@dataclass(frozen=True, kw_only=True)
class Options:
    """What the user chose for one run."""

    port: int | None = None
    """The API's; None: the setting's."""
    workers: int = 1
    """How many processes serve the API."""
    demo: bool = False
    """Whether the demo data are stored before everything is ready."""
    verbose: bool = False
    """Whether the logs of our own programs go to the terminal instead of files."""


@dataclass(frozen=True)
class Plan:
    """What runs and where; nothing of it is started yet."""

    database: Program | None
    """This server and the next two: None where an outside one is used."""
    redis: Program | None
    store: Program | None
    migrate: Program
    bucket: Program
    worker: Program
    api: Program
    seed: Program | None
    """Stores the demo data; None: they are not wanted."""
    host: str
    port: int
    addresses: tuple[tuple[str, str], ...]
    """What is where, by title."""
    example: str
    """What a caller may try first."""
    settings: Mapping[str, str]
    """By field name, those that lead to what we run."""

    @property
    def programs(self) -> list[Program]:
        """Return all of them: first those that use the others."""
        all_of_them = (
            *(self.api, self.worker, self.seed, self.migrate, self.bucket),
            *(self.store, self.redis, self.database),
        )
        return [program for program in all_of_them if program]


def make_plan(data: DataFolder, ports: ServerPorts, options: Options, commands: Commands) -> Plan:
    """Make the plan of one run.

    Raises:
        LocalServerError: a program is missing, or a folder cannot be used.
        SettingsError: the settings of the service are wrong.
    """
    database, for_database = _database(data, ports)
    own_redis, for_redis = _redis(data, ports)
    own_store, for_store = _store(data, ports)
    ours = {**for_database, **for_redis, **for_store}
    if options.port is not None:
        ours["port"] = str(options.port)
    if not is_set("auth"):
        ours["auth"] = "off"
    settings = load_settings(with_store=True, **ours)
    require_loopback_without_auth(settings)
    variables = {PREFIX + name.upper(): value for name, value in ours.items()}
    variables[METRICS_VARIABLE] = str(data.metrics)
    # Only the migrations get the owner's URL, wherever it comes from.
    owner_url = ours.get("migration_database_url") or raw_value("migration_database_url") or ""
    if not options.verbose:
        variables[PREFIX + "LOG_ERRORS_TO_STDOUT"] = "on"

    def child(
        name: str, file: str, command: Sequence[str], *, owner_url: str = "", **particular: Any
    ) -> Program:
        return Program(
            name=name,
            command=command,
            pid_file=data.run / f"{file}.pid",
            log=None if options.verbose else data.log(file),
            environment=child_environment({**variables, MIGRATION_VARIABLE: owner_url}),
            **particular,
        )

    address = _address(settings.host, settings.port)
    return Plan(
        database,
        own_redis,
        own_store,
        child("migrations", "migrations", commands.migrate, owner_url=owner_url),
        child("bucket", "bucket", commands.bucket),
        child("worker", "worker", commands.worker, show_errors=True),
        child(
            "API",
            "api",
            [*commands.serve, "--workers", str(options.workers)],
            show_errors=True,
            ready=partial(_is_ready, settings.host, settings.port),
            address=address,
        ),
        child("demo data", "demo", [*commands.seed, "--data-dir", str(data.path)])
        if options.demo
        else None,
        settings.host,
        settings.port,
        (
            ("GraphiQL", f"http://{address}/graphql"),
            *(() if options.verbose else (("Logs", str(data.logs)),)),
            ("Data", str(data.path)),
        ),
        _example(address, data.path if settings.auth == "required" else None),
        {**ours, "port": str(settings.port)},
    )


def _example(address: str, key_maker: Path | None) -> str:
    """A first request; where keys are needed, after making one in this data folder."""
    if key_maker is None:
        return EXAMPLE.format(address=address, make_key="", key="")
    make_key = MAKE_KEY.format(data_dir=shlex.quote(str(key_maker)))
    return EXAMPLE.format(address=address, make_key=make_key, key=KEY)


def _database(data: DataFolder, ports: ServerPorts) -> tuple[Program | None, dict[str, str]]:
    """The server to run, and the settings that lead to it; nothing where an outside one is set."""
    if is_set("database_url"):
        return None, {}
    port = ports.port("PostgreSQL")
    settings = {
        "database_url": postgres_url(data, SERVICE, port),
        "migration_database_url": postgres_url(data, OWNER, port),
    }
    if is_set("database_read_url"):  # it belongs to some other database
        settings["database_read_url"] = settings["database_url"]
    return postgres(data, port), settings


def _redis(data: DataFolder, ports: ServerPorts) -> tuple[Program | None, dict[str, str]]:
    if is_set("redis_url"):
        return None, {}
    port = ports.port("Redis")
    return redis(data, port), {"redis_url": redis_url(data, port)}


def _store(data: DataFolder, ports: ServerPorts) -> tuple[Program | None, dict[str, str]]:
    if is_set("s3_endpoint_url"):
        return None, {}
    settings = store_settings(data, store_port(ports))
    if is_set("s3_public_endpoint_url"):  # it belongs to some other store
        settings["s3_public_endpoint_url"] = settings["s3_endpoint_url"]
    return store(data, ports), settings


def _address(host: str, port: int) -> str:
    """Where a caller on this machine finds a server that listens on `host`."""
    host = EVERYWHERE.get(host, host)
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


async def _is_ready(host: str, port: int) -> bool:
    """Whether `GET /readyz` answers 200."""
    request = f"GET /readyz HTTP/1.1\r\nHost: {_address(host, port)}\r\nConnection: close\r\n\r\n"
    answer = await ask(EVERYWHERE.get(host, host), port, request.encode(), lines=1)
    return [line.split()[1:2] for line in answer] == [[b"200"]]
