"""What a value from outside may be: one function a kind, used by every edge.

Each takes the value as it came and returns it as the services want it, or raises `BadValue`.
"""

import re
from datetime import timedelta
from decimal import Decimal
from typing import Final

from segmentql.errors import BadValue

MAX_USER_ID: Final = 2**63 - 1
MAX_SLUG_LENGTH: Final = 255
MAX_NAME_LENGTH: Final = 255
MAX_DESCRIPTION_LENGTH: Final = 4096
MAX_TTL_SECONDS: Final = 315_360_000
"""Ten years of 365 days."""

MAX_SLUGS_PER_CHANGE: Final = 100
MAX_PAGE_ROWS: Final = 100
MAX_USERS_BY_ID: Final = 1000

MAX_WAIT_SECONDS: Final = 60
DEFAULT_WAIT_SECONDS: Final = 5
MAX_LINK_SECONDS: Final = 604_800
"""A week: S3 takes no older signature."""

DEFAULT_LINK_SECONDS: Final = 900
MAX_STAGES: Final = 50
PERCENT_DECIMALS: Final = 3
PERCENT_TOLERANCE: Final = Decimal("1e-9")

USER_ID_ALLOWED: Final = f"a decimal number from 1 to {MAX_USER_ID}, without sign or leading zeros"
SLUG_ALLOWED: Final = (
    f"1 to {MAX_SLUG_LENGTH} of A-Z a-z 0-9 _ . -, starting with a letter or a digit"
)
TTL_ALLOWED: Final = f"1 to {MAX_TTL_SECONDS} seconds from now"
PERCENT_ALLOWED: Final = f"0 to 100 with up to {PERCENT_DECIMALS} decimals"
AFTER_ALLOWED: Final = f"0 to {MAX_TTL_SECONDS} seconds after the stage before, or after now"
VERSION_ALLOWED: Final = "a whole number of at least 1"

_USER_ID = re.compile(r"[1-9][0-9]{0,18}", re.ASCII)
_KEY_ID = re.compile(r"(?:key_)?([a-z0-9]{12})", re.ASCII)
_KEY_TOKEN = re.compile(r"sgql_([a-z0-9]{12})_([0-9a-f]{64})", re.ASCII)
_REPORT_ID = re.compile(r"rep_([1-9][0-9]{0,18})", re.ASCII)
_SLUG = re.compile(rf"[A-Za-z0-9][A-Za-z0-9_.-]{{0,{MAX_SLUG_LENGTH - 1}}}", re.ASCII)


def user_id(text: str) -> int:
    """The number of a user, 1 to `MAX_USER_ID`."""
    if _USER_ID.fullmatch(text) and (number := int(text)) <= MAX_USER_ID:
        return number
    raise BadValue(f"{_shown(text)} is not a user id", USER_ID_ALLOWED)


def slug(text: str) -> str:
    """A segment's slug; case matters."""
    if _SLUG.fullmatch(text):
        return text
    raise BadValue(f"{_shown(text)} is not a slug", SLUG_ALLOWED)


def is_slug(text: str) -> bool:
    """Whether a segment can have this slug; a lookup by another one finds nothing."""
    return _SLUG.fullmatch(text) is not None


def slug_prefix(text: str) -> str:
    """The beginning of slugs; an empty one begins every slug."""
    return slug(text) if text else text


def name(text: str) -> str:
    """A segment's name for people."""
    return _text("name", text, shortest=1, longest=MAX_NAME_LENGTH)


def description(text: str) -> str:
    """A segment's description for people."""
    return _text("description", text, shortest=0, longest=MAX_DESCRIPTION_LENGTH)


def ttl(seconds: int) -> timedelta:
    """A membership's time to live, `MAX_TTL_SECONDS` at most."""
    if 1 <= seconds <= MAX_TTL_SECONDS:
        return timedelta(seconds=seconds)
    raise BadValue(f"{seconds} seconds is out of range", TTL_ALLOWED)


def percent(number: float) -> Decimal:
    """A part of all users, 0 to 100, rounded to the thousandth that it misses by less than 1e-9.

    Sums of floats miss it by that little: 0.1 + 0.2 is 0.30000000000000004.
    """
    exact = Decimal(repr(number))  # the shortest decimal that means this number, as it was written
    if not exact.is_finite() or not -PERCENT_TOLERANCE < exact < 100 + PERCENT_TOLERANCE:
        raise BadValue(f"{number} percent is out of range", PERCENT_ALLOWED)
    rounded = round(exact, PERCENT_DECIMALS) + 0  # not -0
    if abs(rounded - exact) >= PERCENT_TOLERANCE:
        raise BadValue(f"{number} has more than {PERCENT_DECIMALS} decimals", PERCENT_ALLOWED)
    return rounded


def after(seconds: int) -> timedelta:
    """How long after the stage before it a stage of a rollout starts."""
    if 0 <= seconds <= MAX_TTL_SECONDS:
        return timedelta(seconds=seconds)
    raise BadValue(f"{seconds} seconds is out of range", AFTER_ALLOWED)


def year(number: int) -> int:
    """A year of history."""
    return _within("a year", number, lowest=2000, highest=9999)


def month(number: int) -> int:
    """A month of a year, 1 is January."""
    return _within("a month", number, lowest=1, highest=12)


def wait_seconds(number: int) -> int:
    """How long `createReport` waits for the report."""
    return _within("a wait in seconds", number, lowest=0, highest=MAX_WAIT_SECONDS)


def link_seconds(number: int) -> int:
    """How long a link to a file works."""
    return _within("a life of a link in seconds", number, lowest=1, highest=MAX_LINK_SECONDS)


def report_id(text: str) -> int:
    """The number in a report's opaque id."""
    found = _REPORT_ID.fullmatch(text)
    if found and (number := int(found[1])) <= MAX_USER_ID:
        return number
    raise BadValue(f"{_shown(text)} is not the id of a report", "the `id` of a report")


def key_id(text: str) -> str:
    """The public part of an API key, with or without `key_` before it."""
    found = _KEY_ID.fullmatch(text)
    if found:
        return found[1]
    # What was given is not quoted: it may be a whole key.
    raise BadValue("this is not the id of a key", "the `id` of a key: key_ and 12 of a-z 0-9")


def key_token(text: str) -> tuple[str, str]:
    """A whole API key: its public part and its secret."""
    found = _KEY_TOKEN.fullmatch(text)
    if found:
        return found[1], found[2]
    raise BadValue(
        "this is not an API key", "sgql_, 12 of a-z 0-9, _ and 64 hexadecimal digits in lower case"
    )


def version(number: int) -> int:
    """The version of a segment that a change expects to find."""
    if number >= 1:
        return number
    raise BadValue(f"{number} is not a version", VERSION_ALLOWED)


def _within(what: str, number: int, *, lowest: int, highest: int) -> int:
    if lowest <= number <= highest:
        return number
    raise BadValue(f"{number} is not {what}", f"{lowest} to {highest}")


def _text(what: str, text: str, *, shortest: int, longest: int) -> str:
    allowed = f"{shortest} to {longest} characters, no NUL and no unpaired surrogate"
    if not shortest <= len(text) <= longest:
        raise BadValue(f"the {what} has {len(text)} characters", allowed)
    if "\0" in text or any("\ud800" <= character <= "\udfff" for character in text):
        raise BadValue(f"the {what} has a character that cannot be stored", allowed)
    return text


def _shown(text: str) -> str:
    """What was given, short and printable, so that a message can quote it."""
    shortened = text if len(text) <= 40 else text[:40] + "..."  # noqa: PLR2004
    return ascii(shortened)
