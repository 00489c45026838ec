"""Database URLs: validates libpq's parameters and translates them for asyncpg.

SQLAlchemy can parse a validated URL. Its query still has libpq's parameters. `connection_target`
translates them to asyncpg's arguments. Several hosts, or the folder of a Unix socket, are the
parameters `host` and `port`, as in libpq.
"""

import re
import ssl
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, unquote, urlencode

from sqlalchemy.engine import URL, make_url

from segmentql.url_parameters import parse_parameters

FORM: Final = "postgresql://user:password@host:5432/name"
DRIVER: Final = "postgresql+asyncpg"
DEFAULT_PORT: Final = 5432
MAX_PORT: Final = 65535
MAX_CONNECT_SECONDS: Final = 3600
SYSTEM: Final = "system"
"""A value of `sslrootcert`, which means the certificate authorities of this machine."""

_VERIFYING: Final = ("verify-ca", "verify-full")
_TLS: Final = ("sslmode", "sslrootcert", "sslcert", "sslkey")
_CHOICES: Final[Mapping[str, tuple[str, ...]]] = {
    "sslmode": ("disable", "allow", "prefer", "require", *_VERIFYING),
    "target_session_attrs": (
        *("any", "read-write", "read-only", "primary", "standby", "prefer-standby"),
    ),
    "channel_binding": ("disable", "prefer", "require"),
}
PARAMETERS: Final = (
    *("application_name", "channel_binding", "connect_timeout", "host", "port"),
    *("sslcert", "sslkey", "sslmode", "sslrootcert", "target_session_attrs"),
)

_URL: Final = re.compile(
    r"(?P<scheme>[^:/?#]+)://"
    r"(?:(?P<user>[^:/@?]*)(?::(?P<password>[^@]*))?@)?"
    r"(?P<hosts>[^/?]*)"
    r"(?:/(?P<database>[^?]*))?"
    r"(?:\?(?P<query>.*))?",
    re.DOTALL,
)
_HOST: Final = re.compile(r"(?:\[(?P<v6>[^\]]+)\]|(?P<name>[^:\[\]]*))(?::(?P<port>[0-9]*))?")


@dataclass(frozen=True)
class ConnectionTarget:
    """The address of a database, for SQLAlchemy and asyncpg."""

    url: URL
    """The URL without its query, which is in the other fields."""
    arguments: Mapping[str, Any] = field(repr=False)
    """Arguments of `asyncpg.connect`: hosts, TLS and the required role of the server."""
    connect_seconds: float | None
    """The `connect_timeout` of the URL, for all hosts together."""
    application_name: str | None


def check_database_url(text: str) -> str:
    """Validate a PostgreSQL URL; return it in the form of `connection_target`.

    The certificate files of the URL are read, so that errors are found at the start.

    Raises:
        ValueError: the URL is invalid. The message has all problems and no password.
    """
    match = _URL.fullmatch(text)
    if match is None:
        raise ValueError(f"not a database URL; like {FORM}")
    if match["scheme"] not in {"postgresql", "postgres", DRIVER} or not match["database"]:
        raise ValueError(f"must be like {FORM}")
    problems: list[str] = []
    query = parse_parameters(match["query"] or "", PARAMETERS, problems.append)
    hosts = _hosts(match["hosts"], query, problems.append)
    problems.extend(_parameter_problems(query))
    if not problems:
        problems.extend(_certificate_problems(query))
    if "\0" in unquote(text):
        problems.append("it contains a null character")
    if problems:
        raise ValueError("; ".join(problems))
    return _render(match, hosts, query)


def connection_target(url: str) -> ConnectionTarget:
    """Translate a validated URL. Its certificates are read now, or at each connection.

    Raises:
        OSError: a certificate cannot be read any more.
    """
    parsed = make_url(url)
    query = {name: str(value) for name, value in parsed.query.items()}
    arguments: dict[str, Any] = _tls_arguments(query)
    if "host" in query:
        arguments["host"] = query["host"].split(",")
        arguments["port"] = [int(port) for port in query["port"].split(",")]
    if "target_session_attrs" in query:
        arguments["target_session_attrs"] = query["target_session_attrs"]
    seconds = query.get("connect_timeout")
    return ConnectionTarget(
        parsed.set(query={}),
        arguments,
        float(seconds) if seconds else None,
        query.get("application_name"),
    )


def display_address(url: str) -> str:
    """Return the host, port and database of a URL, without its password."""
    parsed = make_url(url)
    database = f"/{parsed.database}" if parsed.database else ""
    hosts, ports = parsed.query.get("host"), parsed.query.get("port")
    if isinstance(hosts, str) and isinstance(ports, str):
        pairs = zip(hosts.split(","), ports.split(","), strict=True)
        return ",".join(f"{host}:{port}" for host, port in pairs) + database
    return f"{parsed.host or 'socket'}:{parsed.port or 'default port'}{database}"


def _hosts(
    text: str, query: dict[str, str], report: Callable[[str], None]
) -> list[tuple[str, int]]:
    """Return the hosts and ports of the URL's address or, without one, of its parameters."""
    names, ports = query.pop("host", ""), query.pop("port", "")
    hosts: list[tuple[str, int]] = []
    if names and text:
        report('the parameter "host" and a host before the path cannot be combined')
    elif names:
        numbers = ports.split(",") if ports else []
        if len(numbers) <= 1:  # one port applies to all hosts
            numbers = (numbers or [""]) * len(names.split(","))
        if len(numbers) != len(names.split(",")):
            report("host and port must have the same number of values")
        hosts = [(name, _port(port, report)) for name, port in zip(names.split(","), numbers)]  # noqa: B905
    else:
        for part in text.split(",") if text else []:
            match = _HOST.fullmatch(part)
            if match is None:
                report(f"every host must be like host or host:5432, in a URL like {FORM}")
                break
            name = unquote(match["v6"] or match["name"])
            hosts.append((name, _port(match["port"] or ports, report)))
    if any(not name for name, _ in hosts) and len(hosts) > 1:
        report("if there are several hosts, none may be empty")
    return hosts


def _port(text: str, report: Callable[[str], None]) -> int:
    if not text:
        return DEFAULT_PORT
    if re.fullmatch(r"[0-9]{1,5}", text, re.ASCII) and 0 < int(text) <= MAX_PORT:
        return int(text)
    report(f"every port must be a number from 1 to {MAX_PORT}")
    return DEFAULT_PORT


def _parameter_problems(query: Mapping[str, str]) -> Iterator[str]:
    for name, allowed in _CHOICES.items():
        if query.get(name, allowed[0]) not in allowed:
            yield f'{name} must be one of {", ".join(allowed)}, but is "{query[name]}"'
    if query.get("channel_binding") == "require":
        yield (
            "channel_binding=require is not possible, because asyncpg has no channel binding: use"
            " sslmode=verify-full, which verifies the identity of the server"
        )
    seconds = query.get("connect_timeout", "1")
    is_number = re.fullmatch(r"[0-9]{1,6}", seconds, re.ASCII)
    if not is_number or not 1 <= int(seconds) <= MAX_CONNECT_SECONDS:
        yield f"connect_timeout must be a whole number of seconds from 1 to {MAX_CONNECT_SECONDS}"
    if query.get("sslrootcert") == SYSTEM and query.get("sslmode", "verify-full") != "verify-full":
        yield f"sslrootcert={SYSTEM} requires sslmode=verify-full"


def _certificate_problems(query: Mapping[str, str]) -> Iterator[str]:
    mode, root = query.get("sslmode"), query.get("sslrootcert")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if root is None:
        if mode in _VERIFYING and not _has_default_root():
            yield (
                f"sslmode={mode} requires sslrootcert: the file with the certificate of the"
                f' server\'s authority, or "{SYSTEM}" for the authorities of this machine'
            )
    elif root != SYSTEM:
        yield from _file_problem("sslrootcert", root, lambda: context.load_verify_locations(root))
    cert, key = query.get("sslcert"), query.get("sslkey")
    if cert is not None:
        problems = list(_file_problem("sslcert", cert, lambda: Path(cert).read_bytes()))
        if key is not None:
            problems += _file_problem("sslkey", key, lambda: Path(key).read_bytes())
        if not problems:
            names = "sslcert and sslkey" if key else "sslcert"
            files = f"{cert} and {key}" if key else cert
            problems += _file_problem(
                names, files, lambda: context.load_cert_chain(cert, key, password=lambda: "")
            )
        yield from problems
    elif key is not None:
        yield "sslkey requires sslcert, the certificate of the key"


def _file_problem(name: str, path: str, load: Callable[[], object]) -> Iterator[str]:
    try:
        load()
    except ssl.SSLError:
        expected = "a certificate" if name == "sslrootcert" else "a certificate and its private key"
        yield f'{name}: "{path}" does not contain {expected} in PEM format, without a passphrase'
    except OSError as error:
        yield f'{name}: cannot read "{path}": {error.strerror}'


def _has_default_root() -> bool:
    """Return whether libpq's default file of certificate authorities exists."""
    try:
        return (Path.home() / ".postgresql" / "root.crt").is_file()
    except RuntimeError:  # the user has no home directory
        return False


def _render(match: re.Match[str], hosts: list[tuple[str, int]], query: dict[str, str]) -> str:
    query = {name: value for name, value in query.items() if name != "channel_binding"}
    host, port = hosts[0] if hosts else (None, None)
    if len(hosts) > 1 or (host or "").startswith("/"):
        query["host"] = ",".join(name for name, _ in hosts)
        query["port"] = ",".join(str(number) for _, number in hosts)
        host = port = None
    is_default = port == DEFAULT_PORT and ":" not in match["hosts"].rpartition("]")[2]
    user, password = match["user"], match["password"]
    url = URL.create(
        DRIVER,
        username=unquote(user) if user else None,
        password=None if password is None else unquote(password),
        host=host or None,
        port=None if is_default else port,
        database=unquote(match["database"]),
    ).render_as_string(hide_password=False)
    # SQLAlchemy would encode a space as `+`, which libpq reads as a plus.
    return f"{url}?{urlencode(sorted(query.items()), quote_via=quote, safe='')}" if query else url


def _tls_arguments(query: Mapping[str, str]) -> dict[str, Any]:
    """Translate the TLS parameters.

    asyncpg reads these from a URL as libpq does, including the modes, the fallback of `allow` and
    `prefer`, and the default files. So it gets a URL with only these parameters. It does not
    support `sslrootcert=system`, which becomes an SSL context.
    """
    parameters = {name: query[name] for name in _TLS if name in query}
    if parameters.get("sslrootcert") == SYSTEM:
        context = ssl.create_default_context()
        if "sslcert" in parameters:
            context.load_cert_chain(
                parameters["sslcert"], parameters.get("sslkey"), password=lambda: ""
            )
        return {"ssl": context}
    return {"dsn": "postgresql:///?" + urlencode(parameters, quote_via=quote)} if parameters else {}
