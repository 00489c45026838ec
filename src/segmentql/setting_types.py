"""The types of settings that have a form of their own: URLs, origins and keys.

A value in another form raises a `ValueError`, whose message says what is allowed.
"""

import re
from typing import Annotated, Final
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator
from pydantic_settings import NoDecode

from segmentql import validators
from segmentql.database_url import check_database_url
from segmentql.errors import BadValue
from segmentql.redis_url import check_redis_url

BEARER_FORM: Final = r"^[A-Za-z0-9._~+/-]+=*$"
"""The form of a bearer token by RFC 6750."""

MAX_ROOT_PATH_CHARACTERS: Final = 200

SERVICE_PATHS: Final = frozenset(
    {"federation", "graphql", "healthz", "metrics", "ofrep", "readyz", "static"}
)
"""The first segments of the paths of the service."""

_ROOT_PATH: Final = re.compile(rf"(?=.{{0,{MAX_ROOT_PATH_CHARACTERS}}}$)(/[A-Za-z0-9._~-]+)*")


def _store_url(text: str) -> str:
    """Return a valid S3 endpoint. It has no bucket and no keys, which are separate settings."""
    try:
        url = urlsplit(text)
        is_valid = (
            url.scheme in {"http", "https"}
            and bool(url.hostname)
            and url.port != 0  # reading it also validates it
            and url.path in {"", "/"}
            and not (url.username or url.password or url.query or url.fragment)
        )
    except ValueError:
        is_valid = False
    if not is_valid:
        raise ValueError("must be like https://s3.example.com or http://host:9000")
    return text.rstrip("/")


def _origins(value: object) -> object:
    """Split a string with origins at commas and spaces."""
    return value.replace(",", " ").split() if isinstance(value, str) else value


def _origin(text: str) -> str:
    """Return a valid origin, in the exact form that browsers send as `Origin`."""
    try:
        url = urlsplit(text)
        port = f":{url.port}" if url.port else ""
    except ValueError:
        url, port = urlsplit(""), ""
    default_port = {"http": ":80", "https": ":443"}.get(url.scheme)
    if (
        default_port is None
        or port == default_port
        or text != f"{url.scheme}://{url.hostname}{port}"
    ):
        raise ValueError(
            "an origin must be like https://app.example.com or http://localhost:3000,"
            " in lower case, without a path and without the default port"
        )
    return text


def _key_token(text: str) -> str:
    try:
        validators.key_token(text)
    except BadValue as bad:
        raise ValueError(f"{bad.problem}; allowed: {bad.allowed}") from None
    return text


def _slug_prefix(text: str) -> str:
    try:
        return validators.slug_prefix(text)
    except BadValue as bad:
        raise ValueError(f"{bad.problem}; allowed: {bad.allowed}") from None


def _root_path(text: str) -> str:
    """Return a valid root path. It must not be confused with a path of the service."""
    segments = text.split("/")
    if not _ROOT_PATH.fullmatch(text) or {".", ".."} & set(segments):
        raise ValueError(
            "must be empty or like /segmentql or /tools/segmentql: letters, digits and -._~,"
            f" no slash at the end, at most {MAX_ROOT_PATH_CHARACTERS} characters"
        )
    if reserved := [segment for segment in segments if segment in SERVICE_PATHS]:
        raise ValueError(f"must not contain /{reserved[0]}, which is a path of the service")
    return text


DatabaseUrl = Annotated[str, AfterValidator(check_database_url)]
RedisUrl = Annotated[str, AfterValidator(check_redis_url)]
StoreUrl = Annotated[str, AfterValidator(_store_url)]
Origins = Annotated[
    tuple[Annotated[str, AfterValidator(_origin)], ...], NoDecode, BeforeValidator(_origins)
]
KeyToken = Annotated[str, AfterValidator(_key_token)]
SlugPrefix = Annotated[str, AfterValidator(_slug_prefix)]
RootPath = Annotated[str, AfterValidator(_root_path)]
