"""Generated values are accepted by their rule or rejected without harm in every argument."""

import base64
import re
from datetime import UTC, datetime
from typing import Any

from hypothesis import HealthCheck, given
from hypothesis import settings as profile
from hypothesis import strategies as st

from tests.fuzz.requests import graphql_request
from tests.fuzz.response_checks import Answer, EffectMonitor

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
    """Draw valid values, valid values with one changed character, and arbitrary text."""
    valid = st.sampled_from(examples)
    changed = st.tuples(valid, st.integers(0, 300), st.text(max_size=2)).map(
        lambda drawn: drawn[0][: drawn[1]] + drawn[2] + drawn[0][drawn[1] + 1 :]
    )
    return st.one_of(valid, changed, st.text(max_size=300))


def is_accepted(answer: Answer | None) -> bool:
    """Return whether the response has no error; a rejection must have a known code."""
    assert answer is not None
    return "errors" not in answer


@fuzzed
@given(value=near("1", "99", "9223372036854775807", "9223372036854775808", "-1"))
async def test_ids_are_accepted_or_rejected(monitor: EffectMonitor, value: str) -> None:
    is_right = ID.fullmatch(value)
    answer = await monitor.send(graphql_request(USER, {"value": value}))
    assert is_accepted(answer) is (bool(is_right) and int(value) < 2**63)


@fuzzed
@given(value=st.one_of(st.integers(), st.integers(2**62, 2**64), st.integers(-5, 5)))
async def test_integer_ids_are_accepted_or_rejected(monitor: EffectMonitor, value: int) -> None:
    answer = await monitor.send(graphql_request(USER, {"value": value}))
    assert is_accepted(answer) is (0 < value < 2**63)


@fuzzed
@given(value=st.one_of(st.floats(allow_nan=False, allow_infinity=False), st.booleans()))
async def test_non_integer_ids_are_rejected(monitor: EffectMonitor, value: float) -> None:
    answer = await monitor.send(graphql_request(USER, {"value": value}))
    assert not is_accepted(answer)


@fuzzed
@given(value=near("A", "a.b-c_D9", "A" * 255, "A" * 256))
async def test_slugs_are_accepted_or_rejected(monitor: EffectMonitor, value: str) -> None:
    is_right = bool(SLUG.fullmatch(value))
    assert is_accepted(await monitor.send(graphql_request(SEGMENT, {"value": value})))
    created = await monitor.send(graphql_request(CREATE, {"value": value}))
    assert created
    reasons = [error["__typename"] for error in created["data"]["createSegment"]["refusals"]]
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
async def test_timestamps_are_accepted_or_rejected(monitor: EffectMonitor, value: str) -> None:
    answer = await monitor.send(graphql_request(HISTORY, {"value": value}))
    assert is_accepted(answer) is is_timestamp(value)


def is_timestamp(text: str) -> bool:
    if not MOMENT.fullmatch(text):
        return False
    try:
        datetime.fromisoformat(re.sub(r"(\.\d{6})\d+", r"\1", text.upper())).astimezone(UTC)
    except (ValueError, OverflowError):
        return False
    return True


@st.composite
def cursors(draw: st.DrawFn) -> dict[str, str]:
    """Draw a cursor for each list: any text, or any bytes in base64."""
    encoded = st.binary(max_size=60).map(lambda some: base64.urlsafe_b64encode(some).decode())
    return {name: draw(st.one_of(encoded, st.text(max_size=60))) for name in PAGES}


@fuzzed
@given(drawn=cursors())
async def test_generated_cursors_are_rejected(
    monitor: EffectMonitor, drawn: dict[str, str]
) -> None:
    selected = " ".join(f"{name}(after: ${name}) {{ nodes {{ id }} }}" for name in PAGES)
    declared = ", ".join(f"${name}: String" for name in PAGES)
    answer = await monitor.send(graphql_request(f"query({declared}) {{ {selected} }}", drawn))
    assert answer
    assert sorted(error["path"][0] for error in answer["errors"]) == sorted(PAGES)


@fuzzed
@given(
    page=st.sampled_from(PAGES[:3]),
    position=st.integers(0, 200),
    character=st.characters(codec="utf-8"),
)
async def test_changed_cursors_are_rejected(
    monitor: EffectMonitor, page: str, position: int, character: str
) -> None:
    selected = f"{page}(first: 1, after: $after) {{ pageInfo {{ endCursor }} }}"
    query = f"query($after: String) {{ {selected} }}"
    first: Any = await monitor.send(graphql_request(query))
    cursor = first["data"][page]["pageInfo"]["endCursor"]
    position %= len(cursor)
    changed = cursor[:position] + character + cursor[position + 1 :]
    assert await monitor.send(graphql_request(query, {"after": changed}))
