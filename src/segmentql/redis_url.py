"""Redis URLs: validates them, and parses the form for Redis Sentinel, which redis-py lacks.

Other libraries use the same form: `redis+sentinel://user:password@host1,host2/master-name/0`.
"""

import re
import ssl
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from urllib.parse import unquote

from segmentql.url_parameters import parse_parameters

FORM: Final = "redis://:password@host:6379/0"
SENTINEL_FORM: Final = "redis+sentinel://:password@host1,host2,host3/master-name/0"
DEFAULT_PORT: Final = 6379
DEFAULT_SENTINEL_PORT: Final = 26379
MAX_PORT: Final = 65535

CERT_REQS: Final = ("required", "optional", "none")
TLS_PARAMETERS: Final = (
    *("ssl_ca_certs", "ssl_cert_reqs", "ssl_certfile", "ssl_check_hostname", "ssl_keyfile"),
)
SENTINEL_PARAMETERS: Final = ("sentinel_password", "sentinel_username")
PARAMETERS: Final = ("db", *SENTINEL_PARAMETERS, *TLS_PARAMETERS)

_SENTINEL: Final = "+sentinel"
_TLS_SCHEME: Final = "rediss"
_SCHEMES: Final = ("redis", "rediss", "unix", "redis+sentinel", "rediss+sentinel")
_BOOLEANS: Final[Mapping[str, bool]] = {"true": True, "yes": True, "1": True} | {
    "false": False,
    "no": False,
    "0": False,
}
_URL: Final = re.compile(
    r"(?P<scheme>[a-z+]+)://"
    r"(?:(?P<user>[^:/@?#]*)(?::(?P<password>[^/?#]*))?@)?"
    r"(?P<hosts>[^/?#@]*)"
    r"(?P<path>/[^?#@]*)?"
    r"(?:\?(?P<query>[^#@]*))?",
)
_HOST: Final = re.compile(r"(?:\[(?P<v6>[^\]]+)\]|(?P<name>[^:\[\]]+))(?::(?P<port>[0-9]*))?")


@dataclass(frozen=True)
class RedisTarget:
    """The address of Redis, or of the Sentinels that know it, with the credentials."""

    hosts: tuple[tuple[str, int], ...] = ()
    """Redis, or the Sentinels. Empty for a Unix socket."""
    socket_path: str | None = None
    master_name: str | None = None
    """The name under which Sentinels know Redis. None without Sentinels."""
    database: int = 0
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    sentinel_username: str | None = None
    sentinel_password: str | None = field(default=None, repr=False)
    is_tls: bool = False
    tls: Mapping[str, str | bool] = field(default_factory=dict)
    """The arguments of redis-py for TLS, by their names in the URL."""

    @property
    def address(self) -> str:
        """The address without credentials, for messages."""
        hosts = ",".join(f"{host}:{port}" for host, port in self.hosts)
        place = f"{self.master_name} of Sentinel {hosts}" if self.master_name else hosts
        return f"{self.socket_path or place}/{self.database}"


def check_redis_url(text: str) -> str:
    """Validate a Redis URL and return it. The certificate files are read.

    Raises:
        ValueError: the URL is invalid. The message has all problems and no password.
    """
    parse_redis_url(text)
    return text


def parse_redis_url(text: str) -> RedisTarget:
    """Parse a Redis URL.

    Raises:
        ValueError: the URL is invalid. The message has all problems and no password.
    """
    match = _URL.fullmatch(text)
    if match is None or match["scheme"] not in _SCHEMES:
        raise ValueError(
            f"must be like {FORM}, rediss://... for TLS, unix:///path?db=0 or {SENTINEL_FORM}."
            " Characters such as / ? # @ in a password are percent-encoded"
        )
    problems: list[str] = []
    scheme = match["scheme"]
    query = parse_parameters(match["query"] or "", PARAMETERS, problems.append)
    problems.extend(_unsuitable_parameters(scheme, query))
    master, database = None, query.get("db", "")
    hosts: list[tuple[str, int]] = []
    path = unquote(match["path"] or "")
    if scheme == "unix":
        if match["hosts"] or not path:
            problems.append("a socket must be like unix:///path/to/redis.sock?db=0")
    else:
        hosts = list(_hosts(scheme, match["hosts"], problems.append))
        master, database_of_path = _master_and_database(scheme, path, problems.append)
        database = database or database_of_path
    if not re.fullmatch(r"[0-9]{0,5}", database, re.ASCII):
        problems.append("the database must be a number, like /0")
    tls = _tls_arguments(query, problems.append)
    if problems:
        raise ValueError("; ".join(problems))
    return RedisTarget(
        hosts=tuple(hosts),
        socket_path=path if scheme == "unix" else None,
        master_name=master,
        database=int(database or 0),
        username=unquote(match["user"]) if match["user"] else None,
        password=unquote(match["password"]) if match["password"] else None,
        sentinel_username=query.get("sentinel_username"),
        sentinel_password=query.get("sentinel_password"),
        is_tls=scheme.startswith(_TLS_SCHEME),
        tls=tls,
    )


def _unsuitable_parameters(scheme: str, query: Mapping[str, str]) -> Iterator[str]:
    if not scheme.startswith(_TLS_SCHEME):
        for name in sorted(query.keys() & set(TLS_PARAMETERS)):
            yield f'the parameter "{name}" requires rediss:// or rediss{_SENTINEL}://'
    if not scheme.endswith(_SENTINEL):
        for name in sorted(query.keys() & set(SENTINEL_PARAMETERS)):
            yield f'the parameter "{name}" requires redis{_SENTINEL}://'


def _master_and_database(
    scheme: str, path: str, report: Callable[[str], None]
) -> tuple[str | None, str]:
    """Return the master's name, if the scheme has one, and the database of a path."""
    first, *rest = path.strip("/").split("/")
    if not scheme.endswith(_SENTINEL):
        master, database = None, [first, *rest]
    else:
        master, database = first, rest or [""]
        if not master:
            report(f"the name of the master is missing: the URL must be like {SENTINEL_FORM}")
    if len(database) > 1:
        report(f"must be like {FORM if master is None else SENTINEL_FORM}")
    return master, database[0]


def _hosts(scheme: str, text: str, report: Callable[[str], None]) -> Iterator[tuple[str, int]]:
    is_sentinel = scheme.endswith(_SENTINEL)
    default_port = DEFAULT_SENTINEL_PORT if is_sentinel else DEFAULT_PORT
    parts = (text or "localhost").split(",")
    if len(parts) > 1 and not is_sentinel:
        report(
            f"several hosts require Redis Sentinel, like {SENTINEL_FORM};"
            " Redis Cluster is not supported"
        )
    for part in parts:
        match = _HOST.fullmatch(part)
        port = int(match["port"] or default_port) if match else 0
        if match is None or not 0 < port <= MAX_PORT:
            report(f"every host must be like host or host:{default_port}")
        else:
            yield unquote(match["v6"] or match["name"]), port


def _tls_arguments(
    query: Mapping[str, str], report: Callable[[str], None]
) -> Mapping[str, str | bool]:
    """Return redis-py's arguments for TLS. By default, certificate and host name are verified."""
    arguments: dict[str, str | bool] = {
        name: query[name] for name in TLS_PARAMETERS if name in query
    }
    reqs = query.get("ssl_cert_reqs", CERT_REQS[0])
    if reqs not in CERT_REQS:
        report(f'ssl_cert_reqs must be one of {", ".join(CERT_REQS)}, but is "{reqs}"')
    if (check := query.get("ssl_check_hostname")) is not None:
        if check.lower() in _BOOLEANS:
            arguments["ssl_check_hostname"] = _BOOLEANS[check.lower()]
        else:
            report(f'ssl_check_hostname must be true or false, but is "{check}"')
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if root := query.get("ssl_ca_certs"):
        _load_file("ssl_ca_certs", root, lambda: context.load_verify_locations(root), report)
    cert, key = query.get("ssl_certfile"), query.get("ssl_keyfile")
    if cert:
        if _load_file("ssl_certfile", cert, lambda: Path(cert).read_bytes(), report):
            name = "ssl_certfile and ssl_keyfile" if key else "ssl_certfile"
            path = f"{cert} and {key}" if key else cert
            _load_file(
                name,
                path,
                lambda: context.load_cert_chain(cert, key, password=lambda: ""),
                report,
            )
    elif key:
        report("ssl_keyfile requires ssl_certfile, the certificate of the key")
    return arguments


def _load_file(
    name: str, path: str, load: Callable[[], object], report: Callable[[str], None]
) -> bool:
    try:
        load()
    except ssl.SSLError:
        expected = "a certificate" if name == "ssl_ca_certs" else "a certificate and its key"
        report(f'{name}: "{path}" does not contain {expected} in PEM format, without a passphrase')
    except OSError as error:
        report(f'{name}: cannot read "{path}": {error.strerror}')
    else:
        return True
    return False
