"""Made-up values in every place that takes one: taken by their rule, or refused, without harm."""

import base64
import re
from datetime import UTC, datetime
from typing import Any

from hypothesis import HealthCheck, given
from hypothesis import settings as profile
from hypothesis import strategies as st

from tests.fuzz.requests import asking
from tests.fuzz.response_checks import Answer, Judge

USER = "query($value: ID!) { user(id: $value) { id } }"
SEGMENT = "query($value: String!) { segment(slug: $value) { id } }"
CREATE = (
    "mutation($value: String!) { createSegment(input: {slug: $value})"
    " { segment { slug } refusals: errors { __typename } } }"
)
HISTORY = "query($value: DateTime) { history(from: $value) { nodes { id } } }"
PAGES = ("users", "segments", "history", "reports")

ID = re.compile(r"[1-9][0-9]{0,18}")
SLUG = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,254}")
MOMENT = re.compile(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d{1,9})?([Zz]|[+-]\d\d:\d\d)", re.ASCII)

fuzzed = profile(max_examples=60, suppress_health_check=list(HealthCheck))


def near(*examples: str) -> st.SearchStrategy[str]:
    """What is right, what was right before one character was changed, and anything."""
    right = st.sampled_from(examples)
    changed = st.tuples(right, st.integers(0, 300), st.text(max_size=2)).map(
        lambda made: made[0][: made[1]] + made[2] + made[0][made[1] + 1 :]
    )
    return st.one_of(right, changed, st.text(max_size=300))


def is_taken(answer: Answer | None) -> bool:
    """Whether no error was told; what is refused is told by its code."""
    assert answer is not None
    return "errors" not in answer


@fuzzed
@given(value=near("1", "99", "9223372036854775807", "9223372036854775808", "-1"))
async def test_ids(judge: Judge, value: str) -> None:
    is_right = ID.fullmatch(value)
    answer = await judge.send(asking(USER, {"value": value}))
    assert is_taken(answer) is (bool(is_right) and int(value) < 2**63)


@fuzzed
@given(value=st.one_of(st.integers(), st.integers(2**62, 2**64), st.integers(-5, 5)))
async def test_ids_that_are_numbers(judge: Judge, value: int) -> None:
    answer = await judge.send(asking(USER, {"value": value}))
    assert is_taken(answer) is (0 < value < 2**63)


@fuzzed
@given(value=st.one_of(st.floats(allow_nan=False, allow_infinity=False), st.booleans()))
async def test_ids_that_are_no_integers(judge: Judge, value: float) -> None:
    answer = await judge.send(asking(USER, {"value": value}))
    assert not is_taken(answer)


@fuzzed
@given(value=near("A", "a.b-c_D9", "A" * 255, "A" * 256))
async def test_slugs(judge: Judge, value: str) -> None:
    is_right = bool(SLUG.fullmatch(value))
    assert is_taken(await judge.send(asking(SEGMENT, {"value": value})))
    made = await judge.send(asking(CREATE, {"value": value}))
    assert made
    reasons = [told["__typename"] for told in made["data"]["createSegment"]["refusals"]]
    assert ("InvalidInput" in reasons) is not is_right


@fuzzed
@given(
    value=near(
        "2024-01-31T12:00:00Z",
        "2024-02-29T23:59:59.999999999+23:59",
        "0001-01-01T00:00:00+00:01",
        "9999-12-31T23:59:59-00:01",
        "2016-12-31t23:59:60z",
    )
)
async def test_moments(judge: Judge, value: str) -> None:
    answer = await judge.send(asking(HISTORY, {"value": value}))
    assert is_taken(answer) is is_a_moment(value)


def is_a_moment(text: str) -> bool:
    if not MOMENT.fullmatch(text):
        return False
    try:
        datetime.fromisoformat(re.sub(r"(\.\d{6})\d+", r"\1", text.upper())).astimezone(UTC)
    except (ValueError, OverflowError):
        return False
    return True


@st.composite
def cursors(draw: st.DrawFn) -> dict[str, str]:
    """A cursor for each list: any text, or any bytes as base64 has them."""
    encoded = st.binary(max_size=60).map(lambda some: base64.urlsafe_b64encode(some).decode())
    return {name: draw(st.one_of(encoded, st.text(max_size=60))) for name in PAGES}


@fuzzed
@given(made=cursors())
async def test_cursors_that_are_made_up(judge: Judge, made: dict[str, str]) -> None:
    asked = " ".join(f"{name}(after: ${name}) {{ nodes {{ id }} }}" for name in PAGES)
    declared = ", ".join(f"${name}: String" for name in PAGES)
    answer = await judge.send(asking(f"query({declared}) {{ {asked} }}", made))
    assert answer
    assert sorted(error["path"][0] for error in answer["errors"]) == sorted(PAGES)


@fuzzed
@given(
    page=st.sampled_from(PAGES[:3]),
    place=st.integers(0, 200),
    character=st.characters(codec="utf-8"),
)
async def test_cursors_that_were_changed(
    judge: Judge, page: str, place: int, character: str
) -> None:
    asked = f"{page}(first: 1, after: $after) {{ pageInfo {{ endCursor }} }}"
    query = f"query($after: String) {{ {asked} }}"
    first: Any = await judge.send(asking(query))
    cursor = first["data"][page]["pageInfo"]["endCursor"]
    place %= len(cursor)
    changed = cursor[:place] + character + cursor[place + 1 :]
    assert await judge.send(asking(query, {"after": changed}))
