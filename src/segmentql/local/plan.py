"""The plan of `segmentql up`: the programs to run with their commands, ports and settings."""

import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from segmentql.local.data_dir import DataFolder
from segmentql.local.ports import ServerPorts
from segmentql.local.postgres import OWNER_ROLE, SERVICE_ROLE, postgres_program, postgres_url
from segmentql.local.probes import send_request
from segmentql.local.program import Program
from segmentql.local.redis import redis_program, redis_url
from segmentql.local.store import store_port, store_program, store_settings
from segmentql.settings import (
    METRICS_VARIABLE,
    MIGRATION_VARIABLE,
    PREFIX,
    Settings,
    child_environment,
    is_set,
    load_settings,
    raw_value,
    require_loopback_without_auth,
    require_pages_for_trusted_documents,
)

# Wildcard addresses, on which a server listens, with the address on which clients reach it.
LOOPBACK_ADDRESSES = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104

EXAMPLE_REQUEST = """\
{create_key}curl http://{address}/graphql{key_option} -H 'content-type: application/json' --data '
  {{"query": "mutation {{ createSegment(input: {{slug: \\"beta\\"}}) {{ segment {{ id }} }} }}"}}'
"""

PUSH_COMMAND = "segmentql documents push FILE --data-dir {data_dir}\n"
CREATE_KEY_COMMAND = "KEY=$(segmentql keys create --role ADMIN --name ME --data-dir {data_dir})\n"
KEY_OPTION = ' -H "authorization: Bearer $KEY"'


def _segmentql(*arguments: str) -> tuple[str, ...]:
    return (sys.executable, "-m", "segmentql", *arguments)


@dataclass(frozen=True)
class Commands:
    """The commands of SegmentQL that run as child processes."""

    migrate: Sequence[str] = _segmentql("migrate")
    bucket: Sequence[str] = _segmentql("bucket")
    worker: Sequence[str] = _segmentql("worker")
    serve: Sequence[str] = _segmentql("serve")
    seed: Sequence[str] = _segmentql("seed")


@dataclass(frozen=True, kw_only=True)
class Options:
    """The options of one run."""

    port: int | None = None
    """The port of the API. None: the port of the settings."""
    workers: int = 1
    """The number of API processes."""
    demo: bool = False
    """Whether the demo data are stored before the API is ready."""
    verbose: bool = False
    """Whether the logs of the API and the worker go to the terminal instead of files."""


@dataclass(frozen=True)
class Plan:
    """The programs of one run and their settings."""

    database: Program | None
    """PostgreSQL. This server and the next two are None if an external service is configured."""
    redis: Program | None
    store: Program | None
    migrate: Program
    bucket: Program
    worker: Program
    api: Program
    seed: Program | None
    """The program that stores the demo data. None: no demo data."""
    host: str
    port: int
    addresses: tuple[tuple[str, str], ...]
    """The titles and values of the summary."""
    example: str
    """A first request for the user to try."""
    settings: Mapping[str, str]
    """The settings, by field name, that connect a client to this run."""

    @property
    def programs(self) -> list[Program]:
        """All programs. Each comes before the programs that it uses."""
        programs = (
            *(self.api, self.worker, self.seed, self.migrate, self.bucket),
            *(self.store, self.redis, self.database),
        )
        return [program for program in programs if program]


def make_plan(data: DataFolder, ports: ServerPorts, options: Options, commands: Commands) -> Plan:
    """Return the plan of one run.

    Raises:
        LocalServerError: A program is not installed, or a folder cannot be used.
        SettingsError: The settings of the service are wrong.
    """
    database, database_settings = _plan_database(data, ports)
    redis, redis_settings = _plan_redis(data, ports)
    store, own_store_settings = _plan_store(data, ports)
    overrides = {**database_settings, **redis_settings, **own_store_settings}
    if options.port is not None:
        overrides["port"] = str(options.port)
    if not is_set("auth"):
        overrides["auth"] = "off"
    settings = load_settings(with_store=True, **overrides)
    require_loopback_without_auth(settings)
    require_pages_for_trusted_documents(settings)
    variables = {PREFIX + name.upper(): value for name, value in overrides.items()}
    variables[METRICS_VARIABLE] = str(data.metrics_folder)
    # Only the migrations get the owner's URL, whether it is local or external.
    owner_url = overrides.get("migration_database_url") or raw_value("migration_database_url") or ""
    if not options.verbose:
        variables[PREFIX + "LOG_ERRORS_TO_STDOUT"] = "on"

    def child(
        name: str, file_name: str, command: Sequence[str], *, owner_url: str = "", **fields: Any
    ) -> Program:
        return Program(
            name=name,
            command=command,
            pid_file=data.run_folder / f"{file_name}.pid",
            log_file=None if options.verbose else data.log_file(file_name),
            environment=child_environment({**variables, MIGRATION_VARIABLE: owner_url}),
            **fields,
        )

    address = _client_address(settings.host, settings.port)
    base = address + settings.root_path
    return Plan(
        database,
        redis,
        store,
        child("migrations", "migrations", commands.migrate, owner_url=owner_url),
        child("bucket", "bucket", commands.bucket),
        child("worker", "worker", commands.worker, show_errors=True),
        child(
            "API",
            "api",
            [*commands.serve, "--workers", str(options.workers)],
            show_errors=True,
            is_ready=partial(_is_api_ready, settings.host, settings.port),
            address=address,
        ),
        child("demo data", "demo", [*commands.seed, "--data-dir", str(data.path)])
        if options.demo
        else None,
        settings.host,
        settings.port,
        (
            *((("Console", f"http://{base}/"),) if settings.console == "on" else ()),
            *((("GraphiQL", f"http://{base}/graphql"),) if settings.graphiql == "on" else ()),
            *(() if options.verbose else (("Logs", str(data.logs_folder)),)),
            ("Data", str(data.path)),
        ),
        _example(settings, base, shlex.quote(str(data.path))),
        {**overrides, "port": str(settings.port)},
    )


def _example(settings: Settings, address: str, data_dir: str) -> str:
    """Return a first request, after the creation of an API key if one is needed.

    If the service executes only stored documents, it is the command that stores them.
    """
    if settings.documents == "trusted":
        return PUSH_COMMAND.format(data_dir=data_dir)
    if settings.auth == "off":
        return EXAMPLE_REQUEST.format(address=address, create_key="", key_option="")
    create_key = CREATE_KEY_COMMAND.format(data_dir=data_dir)
    return EXAMPLE_REQUEST.format(address=address, create_key=create_key, key_option=KEY_OPTION)


def _plan_database(data: DataFolder, ports: ServerPorts) -> tuple[Program | None, dict[str, str]]:
    """Return the server and the settings to use it; neither if an external one is configured."""
    if is_set("database_url"):
        return None, {}
    port = ports.port("PostgreSQL")
    settings = {
        "database_url": postgres_url(data, SERVICE_ROLE, port),
        "migration_database_url": postgres_url(data, OWNER_ROLE, port),
    }
    if is_set("database_read_url"):  # it is the URL of another database
        settings["database_read_url"] = settings["database_url"]
    return postgres_program(data, port), settings


def _plan_redis(data: DataFolder, ports: ServerPorts) -> tuple[Program | None, dict[str, str]]:
    if is_set("redis_url"):
        return None, {}
    port = ports.port("Redis")
    return redis_program(data, port), {"redis_url": redis_url(data, port)}


def _plan_store(data: DataFolder, ports: ServerPorts) -> tuple[Program | None, dict[str, str]]:
    if is_set("s3_endpoint_url"):
        return None, {}
    settings = store_settings(data, store_port(ports))
    if is_set("s3_public_endpoint_url"):  # it is the URL of another store
        settings["s3_public_endpoint_url"] = settings["s3_endpoint_url"]
    return store_program(data, ports), settings


def _client_address(host: str, port: int) -> str:
    """Return the address on which clients on this machine reach a server that listens on `host`."""
    host = LOOPBACK_ADDRESSES.get(host, host)
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


async def _is_api_ready(host: str, port: int) -> bool:
    """Return whether `GET /readyz` returns 200."""
    address = _client_address(host, port)
    request = f"GET /readyz HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n"
    host = LOOPBACK_ADDRESSES.get(host, host)
    response = await send_request(host, port, request.encode(), lines=1)
    return [line.split()[1:2] for line in response] == [[b"200"]]
