"""Validators of input values, shared by the API, the commands and the settings.

Each function checks one kind of value and returns it as the services expect it. If the value is
invalid, it raises `BadValue`.
"""

import re
from datetime import timedelta
from decimal import Decimal
from typing import Final

from segmentql.errors import BadValue

MAX_USER_ID: Final = 2**63 - 1
MAX_SLUG_LENGTH: Final = 255
MAX_USER_KEY_LENGTH: Final = 255
MAX_NAME_LENGTH: Final = 255
MAX_DESCRIPTION_LENGTH: Final = 4096
MAX_TTL_SECONDS: Final = 315_360_000
"""Ten years of 365 days."""

MAX_SLUGS_PER_CHANGE: Final = 100
MAX_USERS_PER_CHANGE: Final = 1000
MAX_PAGE_ROWS: Final = 100
MAX_USERS_PER_QUERY: Final = 1000
MAX_ENTITIES: Final = 1000
MAX_UPLOAD_BYTES: Final = 256 * 1024 * 1024
MAX_COLUMN_NUMBER: Final = 10_000
MAX_SLUGS_OF_SOURCE: Final = 100
MAX_PERCENT: Final = 100
MAX_COUNT_POINTS: Final = 500
DEFAULT_COUNT_POINTS: Final = 100

MAX_WAIT_SECONDS: Final = 60
DEFAULT_WAIT_SECONDS: Final = 5
MAX_LINK_SECONDS: Final = 604_800
"""A week, the longest lifetime of a presigned S3 link."""

DEFAULT_LINK_SECONDS: Final = 900
MAX_STAGES: Final = 50
PERCENT_DECIMALS: Final = 3
PERCENT_TOLERANCE: Final = Decimal("1e-9")

USER_ID_ALLOWED: Final = f"a decimal number from 1 to {MAX_USER_ID}, without sign or leading zeros"
USER_KEY_ALLOWED: Final = (
    f"1 to {MAX_USER_KEY_LENGTH} characters, without control characters and unpaired surrogates"
)
SLUG_ALLOWED: Final = (
    f"1 to {MAX_SLUG_LENGTH} characters of A-Z a-z 0-9 _ . -, starting with a letter or a digit"
)
TTL_ALLOWED: Final = f"1 to {MAX_TTL_SECONDS} seconds from now"
PERCENT_ALLOWED: Final = f"0 to 100 with up to {PERCENT_DECIMALS} decimals"
STAGE_DELAY_ALLOWED: Final = (
    f"0 to {MAX_TTL_SECONDS} seconds after the previous stage, or from now for the first stage"
)
VERSION_ALLOWED: Final = "a whole number of at least 1"

_USER_ID = re.compile(r"[1-9][0-9]{0,18}", re.ASCII)
_NOT_IN_USER_KEY = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
"""The control characters (the Unicode category Cc) and the surrogates."""

_KEY_ID = re.compile(r"(?:key_)?([a-z0-9]{12})", re.ASCII)
_KEY_TOKEN = re.compile(r"sgql_([a-z0-9]{12})_([0-9a-f]{64})", re.ASCII)
_REPORT_ID = re.compile(r"rep_([1-9][0-9]{0,18})", re.ASCII)
_EXPORT_ID = re.compile(r"exp_([1-9][0-9]{0,18})", re.ASCII)
_IMPORT_ID = re.compile(r"imp_([1-9][0-9]{0,18})", re.ASCII)
_SHA256 = re.compile(r"[0-9a-fA-F]{64}", re.ASCII)
_SLUG = re.compile(rf"[A-Za-z0-9][A-Za-z0-9_.-]{{0,{MAX_SLUG_LENGTH - 1}}}", re.ASCII)


def user_id(text: str) -> int:
    """Return the user id that a string contains, 1 to `MAX_USER_ID`."""
    if _USER_ID.fullmatch(text) and (number := int(text)) <= MAX_USER_ID:
        return number
    raise BadValue(f"{_quoted(text)} is not a user id", USER_ID_ALLOWED)


def user_key(text: str) -> str:
    """Return a valid key of a user. Keys are compared byte by byte."""
    # The messages do not quote the key, because it may be an e-mail address.
    if not 1 <= len(text) <= MAX_USER_KEY_LENGTH:
        raise BadValue(f"the key has {len(text)} characters", USER_KEY_ALLOWED)
    if _NOT_IN_USER_KEY.search(text):
        raise BadValue(
            "the key contains a control character or an unpaired surrogate", USER_KEY_ALLOWED
        )
    return text


def idempotency_key(value: object) -> str:
    """Return a valid idempotency key. Keys are compared byte by byte."""
    if not isinstance(value, str):
        raise BadValue("the key is not a string", USER_KEY_ALLOWED)
    return user_key(value)


def slug(text: str) -> str:
    """Return a valid segment slug. Slugs are case-sensitive."""
    if _SLUG.fullmatch(text):
        return text
    raise BadValue(f"{_quoted(text)} is not a slug", SLUG_ALLOWED)


def is_slug(text: str) -> bool:
    """Return whether a string is a valid slug. No segment has an invalid slug."""
    return _SLUG.fullmatch(text) is not None


def slug_prefix(text: str) -> str:
    """Return a valid slug prefix. The empty string is a prefix of every slug."""
    return slug(text) if text else text


def name(text: str) -> str:
    """Return a valid segment or key name."""
    return _check_text("name", text, min_length=1, max_length=MAX_NAME_LENGTH)


def description(text: str) -> str:
    """Return a valid segment description."""
    return _check_text("description", text, min_length=0, max_length=MAX_DESCRIPTION_LENGTH)


def search(text: str) -> str:
    """Return a valid text to search for. The empty string is contained in every text."""
    return _check_text("search text", text, min_length=0, max_length=MAX_NAME_LENGTH)


def ttl(seconds: int) -> timedelta:
    """Return the time to live of a membership, 1 to `MAX_TTL_SECONDS` seconds."""
    if 1 <= seconds <= MAX_TTL_SECONDS:
        return timedelta(seconds=seconds)
    raise BadValue(f"{seconds} seconds is out of range", TTL_ALLOWED)


def percent(number: float) -> Decimal:
    """Return a percentage of all users, 0 to 100, as a decimal with `PERCENT_DECIMALS` places.

    A rounding error of less than 1e-9 is removed, because sums of floats are inexact: 0.1 + 0.2 is
    0.30000000000000004.
    """
    exact = Decimal(repr(number))  # the shortest decimal that represents the float
    if not exact.is_finite() or not -PERCENT_TOLERANCE < exact < 100 + PERCENT_TOLERANCE:
        raise BadValue(f"{number} percent is out of range", PERCENT_ALLOWED)
    rounded = round(exact, PERCENT_DECIMALS) + 0  # not -0
    if abs(rounded - exact) >= PERCENT_TOLERANCE:
        raise BadValue(f"{number} has more than {PERCENT_DECIMALS} decimals", PERCENT_ALLOWED)
    return rounded


def stage_delay(seconds: int) -> timedelta:
    """Return the delay of a rollout stage after the previous one, 0 to `MAX_TTL_SECONDS`."""
    if 0 <= seconds <= MAX_TTL_SECONDS:
        return timedelta(seconds=seconds)
    raise BadValue(f"{seconds} seconds is out of range", STAGE_DELAY_ALLOWED)


def year(number: int) -> int:
    """Return the year of a report, 2000 to 9999."""
    return _check_range(number, minimum=2000, maximum=9999)


def month(number: int) -> int:
    """Return the month of a report, 1 (January) to 12."""
    return _check_range(number, minimum=1, maximum=12)


def wait_seconds(number: int) -> int:
    """Return the wait of `createReport` for its report, 0 to `MAX_WAIT_SECONDS`."""
    return _check_range(number, minimum=0, maximum=MAX_WAIT_SECONDS, unit=" seconds")


def link_seconds(number: int) -> int:
    """Return the lifetime of a download link, 1 to `MAX_LINK_SECONDS`."""
    return _check_range(number, minimum=1, maximum=MAX_LINK_SECONDS, unit=" seconds")


def report_id(text: str) -> int:
    """Return the number in a report id, such as 7 for `rep_7`."""
    match = _REPORT_ID.fullmatch(text)
    if match and (number := int(match[1])) <= MAX_USER_ID:
        return number
    raise BadValue(f"{_quoted(text)} is not a report id", "the `id` of a report")


def export_id(text: str) -> int:
    """Return the number in an export id, such as 7 for `exp_7`."""
    match = _EXPORT_ID.fullmatch(text)
    if match and (number := int(match[1])) <= MAX_USER_ID:
        return number
    raise BadValue(f"{_quoted(text)} is not an export id", "the `id` of an export")


def import_id(text: str) -> int:
    """Return the number in an import id, such as 7 for `imp_7`."""
    match = _IMPORT_ID.fullmatch(text)
    if match and (number := int(match[1])) <= MAX_USER_ID:
        return number
    raise BadValue(f"{_quoted(text)} is not an import id", "the `id` of an import")


def upload_bytes(number: int) -> int:
    """Return the size of an uploaded list, 0 to `MAX_UPLOAD_BYTES`."""
    return _check_range(number, minimum=0, maximum=MAX_UPLOAD_BYTES, unit=" bytes")


def file_name(text: str) -> str:
    """Return a valid name of an uploaded file."""
    return _check_text("file name", text, min_length=1, max_length=MAX_NAME_LENGTH)


def sha256(text: str) -> str:
    """Return a SHA-256 as 64 lowercase hexadecimal digits."""
    if _SHA256.fullmatch(text):
        return text.lower()
    raise BadValue("the value is not a SHA-256", "64 hexadecimal digits")


def column(text: str) -> str:
    """Return a valid name of a file's column."""
    return _check_text("column", text, min_length=1, max_length=MAX_NAME_LENGTH)


def column_number(number: int) -> int:
    """Return the number of a file's column, from 1 to `MAX_COLUMN_NUMBER`."""
    return _check_range(number, minimum=1, maximum=MAX_COLUMN_NUMBER)


def row_count(number: int) -> int:
    """Return a number of rows or members that a client accepts, 0 or more."""
    return _check_range(number, minimum=0, maximum=MAX_USER_ID)


def removed_percent(number: float) -> float:
    """Return a percentage of the members of a segment, 0 to 100."""
    if 0 <= number <= MAX_PERCENT:
        return number
    raise BadValue(f"{number} percent is out of range", "0 to 100")


def key_id(text: str) -> str:
    """Return the public part of an API key, given with or without the prefix `key_`."""
    match = _KEY_ID.fullmatch(text)
    if match:
        return match[1]
    # The message does not quote the value, because it may be a whole key with its secret.
    raise BadValue(
        "the value is not a key id", "the `id` of a key: key_ and 12 characters of a-z 0-9"
    )


def key_token(text: str) -> tuple[str, str]:
    """Return the public part and the secret of an API key."""
    match = _KEY_TOKEN.fullmatch(text)
    if match:
        return match[1], match[2]
    raise BadValue(
        "the value is not an API key",
        "sgql_, 12 characters of a-z 0-9, _ and 64 lowercase hexadecimal digits",
    )


def version(number: int) -> int:
    """Return the version of a segment that a mutation expects, 1 or more."""
    if number >= 1:
        return number
    raise BadValue(f"{number} is not a version", VERSION_ALLOWED)


def _check_range(number: int, *, minimum: int, maximum: int, unit: str = "") -> int:
    if minimum <= number <= maximum:
        return number
    raise BadValue(f"{number}{unit} is out of range", f"{minimum} to {maximum}{unit}")


def _check_text(field: str, text: str, *, min_length: int, max_length: int) -> str:
    allowed = f"{min_length} to {max_length} characters, without NUL and unpaired surrogates"
    if not min_length <= len(text) <= max_length:
        raise BadValue(f"the {field} has {len(text)} characters", allowed)
    if "\0" in text or any("\ud800" <= character <= "\udfff" for character in text):
        raise BadValue(f"the {field} contains NUL or an unpaired surrogate", allowed)
    return text


def _quoted(text: str) -> str:
    """Return a value for an error message, shortened and in printable characters."""
    shortened = text if len(text) <= 40 else text[:40] + "..."  # noqa: PLR2004
    return ascii(shortened)


def invalid_value_message(name: str, problem: str, allowed: str) -> str:
    """Return the message about an invalid value.

    Args:
        name: The name of the argument or header, or the path of the input field.
        problem: What is wrong with the value, as a clause.
        allowed: A description of the allowed values.
    """
    return f"{name} is not valid: {problem}. Allowed: {allowed}."
