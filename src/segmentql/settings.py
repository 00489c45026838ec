"""The settings: a frozen object that is read once from the environment or `.env`."""

import os
import re
from collections.abc import Mapping
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from segmentql import env_file
from segmentql.env_file import EnvFile, read_env_file, unknown_names
from segmentql.errors import SettingsError
from segmentql.setting_types import (
    BEARER_FORM,
    DatabaseUrl,
    KeyToken,
    Origins,
    RedisUrl,
    RootPath,
    SlugPrefix,
    StoreUrl,
)
from segmentql.store_settings import (
    Addressing,
    StoreSettings,
    aws_endpoint_url,
    store_problems,
)

PREFIX = "SEGMENTQL_"

ENV_FILE = Path(".env")
SETTING_NAME = re.compile(rf"{PREFIX}(?!TEST_)\w+")
"""The form of setting names. Names for tests have a different form."""
OTHER_VARIABLES = frozenset({f"{PREFIX}CHILD", f"{PREFIX}VERSION"})
"""Variables that are not settings: the mark of `segmentql up` for its child processes, and the
image tag in compose.yaml."""

CLIENT_VARIABLES = {f"{PREFIX}URL": "http://127.0.0.1:8080", f"{PREFIX}API_KEY": ""}
"""Settings of the commands that are clients of the API, with their defaults."""

METRICS_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"
MIGRATION_VARIABLE = PREFIX + "MIGRATION_DATABASE_URL"
"""The URL of the owner, who could change history. Only migrations get it."""


class Settings(BaseSettings):
    """The settings of the service. `.env.example` has each field as `SEGMENTQL_<NAME>`."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_file=ENV_FILE,
        env_file_encoding=env_file.ENCODING,
        env_ignore_empty=True,
        frozen=True,
        extra="ignore",
    )

    database_url: DatabaseUrl = Field(repr=False)
    migration_database_url: DatabaseUrl | None = Field(default=None, repr=False)
    database_read_url: DatabaseUrl | None = Field(default=None, repr=False)
    replica_max_lag_seconds: float = Field(default=10, ge=0, le=3600)
    database_pooler: Literal["none", "transaction"] = "none"
    database_pool_size: int = Field(default=10, ge=1, le=200)
    statement_timeout_seconds: float = Field(default=10, gt=0, le=3600)
    redis_url: RedisUrl = Field(repr=False)
    s3_endpoint_url: StoreUrl | None = None
    s3_public_endpoint_url: StoreUrl | None = None
    s3_region: str = Field(default="us-east-1", pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")
    s3_bucket: str = Field(
        default="segmentql-reports", pattern=r"^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$"
    )
    s3_addressing: Addressing = "auto"
    s3_access_key: str | None = Field(default=None, repr=False)
    s3_secret_key: str | None = Field(default=None, repr=False)
    s3_cors_origins: Origins = ()
    report_retention_days: int = Field(default=30, ge=1, le=3650)
    history_retention_months: int = Field(default=0, ge=0, le=1200)
    host: str = "127.0.0.1"
    port: int = Field(default=8080, ge=1, le=65535)
    root_path: RootPath = ""
    auth: Literal["required", "off"] = "required"
    first_key: KeyToken | None = Field(default=None, repr=False)
    metrics_token: str | None = Field(
        default=None, repr=False, min_length=16, max_length=256, pattern=BEARER_FORM
    )
    cors_origins: Origins = ()
    ofrep_targeting_key: Literal["id", "key"] = "id"
    ofrep_prefix: SlugPrefix = ""
    documents: Literal["open", "trusted"] = "open"
    federation: Literal["on", "off"] = "off"
    introspection: Literal["on", "off"] = "on"
    suggestions: Literal["on", "off"] = "on"
    console: Literal["on", "off"] = "on"
    graphiql: Literal["on", "off"] = "on"
    compression: Literal["on", "off"] = "on"
    get_max_age_seconds: int = Field(default=0, ge=0, le=3600)
    max_body_bytes: int = Field(default=4_194_304, ge=1024)
    max_response_bytes: int = Field(default=16_777_216, ge=1024)
    max_tokens: int = Field(default=4000, ge=100)
    max_depth: int = Field(default=20, ge=1, le=100)
    max_aliases: int = Field(default=100, ge=0)
    max_directives: int = Field(default=50, ge=0)
    max_root_fields: int = Field(default=50, ge=1)
    max_list_items: int = Field(default=2000, ge=1)
    max_cost: int = Field(default=25_000, ge=1)
    request_timeout_seconds: float = Field(default=30, gt=0, le=3600)
    send_timeout_seconds: float = Field(default=60, gt=0, le=3600)
    max_requests_in_flight: int = Field(default=1000, ge=1)
    max_feed_consumers: int = Field(default=500, ge=1)
    max_feed_consumers_per_key: int = Field(default=200, ge=1)
    max_connections: int = Field(default=1000, ge=10, le=100_000)
    keep_alive_seconds: int = Field(default=75, ge=1, le=3600)
    drain_seconds: int = Field(default=0, ge=0, le=300)
    rate_per_second: int = Field(default=5000, ge=0)
    worker_port: int = Field(default=0, ge=0, le=65535)
    worker_threads: int = Field(default=8, ge=1, le=100)
    scheduler: Literal["on", "off"] = "on"
    # The folder in which several processes share their metrics. prometheus-client reads the
    # variable at import. `segmentql up` sets it.
    metrics_dir: Path | None = Field(default=None, validation_alias=METRICS_VARIABLE)
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["auto", "json", "console"] = "auto"
    log_requests: Literal["on", "off"] = "on"
    log_errors_to_stdout: Literal["on", "off"] = "off"

    @property
    def owner_database_url(self) -> str:
        """The URL for migrations: that of the owner if it is set."""
        return self.migration_database_url or self.database_url

    @property
    def store(self) -> StoreSettings:
        """The object store.

        Raises:
            SettingsError: it is not set. `load_settings(with_store=True)` checks this earlier.
        """
        problems = list(
            store_problems(
                endpoint_url=self.s3_endpoint_url,
                bucket="s3_bucket" in self.model_fields_set,
                access_key=self.s3_access_key,
                secret_key=self.s3_secret_key,
            )
        )
        if problems:
            raise SettingsError(problems)
        endpoint_url = self.s3_endpoint_url or aws_endpoint_url(self.s3_region)
        return StoreSettings(
            endpoint_url=endpoint_url,
            public_endpoint_url=self.s3_public_endpoint_url or endpoint_url,
            region=self.s3_region,
            bucket=self.s3_bucket,
            addressing=self.s3_addressing,
            access_key=self.s3_access_key or "",
            secret_key=self.s3_secret_key or "",
            cors_origins=self.s3_cors_origins,
        )


def require_loopback_without_auth(settings: Settings) -> None:
    """Check that a service without authentication listens on a loopback address only.

    Raises:
        SettingsError: authentication is off and the address is not a loopback address.
    """
    if settings.auth == "required" or is_loopback(settings.host):
        return
    raise SettingsError(
        [
            f"SEGMENTQL_AUTH is off, so every client that can reach {settings.host} would be ADMIN."
            " Set SEGMENTQL_AUTH=required and create a key with"
            " `segmentql keys create --role ADMIN --name NAME`, or listen on 127.0.0.1"
        ]
    )


def require_pages_for_trusted_documents(settings: Settings) -> None:
    """Check that a service that executes only stored documents has no page that sends others.

    Raises:
        SettingsError: Only stored documents are executed, and GraphiQL is on.
    """
    if settings.documents == "trusted" and settings.graphiql == "on":
        raise SettingsError(
            [
                "SEGMENTQL_DOCUMENTS is trusted, so the service would reject what people write in"
                " GraphiQL. Set SEGMENTQL_GRAPHIQL=off, or SEGMENTQL_DOCUMENTS=open"
            ]
        )


def is_loopback(host: str) -> bool:
    """Return whether a host name or an address is a loopback one."""
    try:
        return ip_address(host).is_loopback
    except ValueError:  # a host name
        return host.lower() == "localhost"


def load_settings(*, with_store: bool = False, **overrides: Any) -> Settings:
    """Read the settings.

    Args:
        with_store: whether the object store must be set.
        overrides: values by field name that take precedence over the environment, except None.

    Raises:
        SettingsError: settings are missing or invalid. The error has a line for each of them.
    """
    overridden = {name: value for name, value in overrides.items() if value is not None}
    env = check_env_file()
    problems = list(
        unknown_names(env, ENV_FILE, os.environ, _variable_names() | OTHER_VARIABLES, SETTING_NAME)
    )
    try:
        settings = Settings(**overridden)
    except ValidationError as error:
        problems += [_problem(detail, env, overridden) for detail in error.errors()]
    if with_store:
        names = ("endpoint_url", "bucket", "access_key", "secret_key")
        values = {name: overridden.get(f"s3_{name}") or raw_value(f"s3_{name}") for name in names}
        problems += store_problems(**values)
    if problems:
        raise SettingsError(problems)
    return settings


def check_env_file() -> EnvFile:
    """Return the names in `.env`.

    Raises:
        SettingsError: the file is not in UTF-8, or has lines in another form than NAME=value.
    """
    env = read_env_file(ENV_FILE, PREFIX)
    if env.problems:
        raise SettingsError(list(env.problems))
    return env


def _variable_names() -> frozenset[str]:
    """Return the names of the environment variables of all settings."""
    return frozenset(
        str(info.validation_alias or PREFIX + name.upper())
        for name, info in Settings.model_fields.items()
    ) | frozenset(CLIENT_VARIABLES)


def _problem(detail: Any, env: EnvFile, overridden: Mapping[str, Any]) -> str:
    field_name = "_".join(part for part in detail["loc"] if isinstance(part, str))
    name = PREFIX + field_name.upper()
    if detail["type"] == "missing":
        return f"{name} is not set"
    is_from_file = name in env.lines and not os.environ.get(name) and field_name not in overridden
    location = f" ({ENV_FILE}, line {env.lines[name]})" if is_from_file else ""
    return f"{name}: {detail['msg'].removeprefix('Value error, ')}{location}"


def share_metrics(folder: Path) -> None:
    """Make child processes share their metrics in a folder, which must be empty."""
    os.environ[METRICS_VARIABLE] = str(folder)


def is_set(name: str) -> bool:
    """Return whether the environment or `.env` has a setting, by the name of its field."""
    return raw_value(name) is not None


def raw_value(name: str) -> str | None:
    """Return the raw value of a setting from the environment or `.env`, or None.

    Raises:
        SettingsError: `.env` cannot be read.
    """
    from dotenv import dotenv_values  # noqa: PLC0415 - few commands need it

    variable = PREFIX + name.upper()
    if value := os.environ.get(variable):
        return value
    check_env_file()
    return dotenv_values(ENV_FILE, encoding=env_file.ENCODING).get(variable) or None


def wants_no_colour() -> bool:
    """Return whether the environment disables colours, see no-color.org."""
    return bool(os.environ.get("NO_COLOR"))


def open_telemetry_variables() -> dict[str, str]:
    """Return the variables of OpenTelemetry, which are no settings and are not read from `.env`."""
    return {name: value for name, value in os.environ.items() if name.startswith("OTEL_")}


def child_environment(changes: Mapping[str, str]) -> dict[str, str]:
    """Return this process' environment with changed variables, for a child process."""
    return {**os.environ, **changes}
