"""`changes` returns the changes after a cursor, page by page, with filters and without."""

from collections.abc import Callable
from typing import Any

import pytest

from segmentql.history.settled import BEFORE_FIRST_ROW
from tests.conftest import Api, Sql
from tests.feed.queries import CHANGES, all_changes, changes
from tests.operations import make_segments, update_user_segments

HISTORY = """
{ history(first: 100) { nodes {
  id userId operation at recordedAt cause actor segment { id slug }
} } }
"""


@pytest.fixture
async def api(feed_api: Api) -> Api:
    """Store 8 changes of three users in two segments."""
    await make_segments(feed_api, "A", "B")
    for user_id in (1, 2, 3):
        await update_user_segments(feed_api, user_id, add=["A", "B"])
    await update_user_segments(feed_api, 1, remove=["A"])
    await update_user_segments(feed_api, 2, remove=["B"])
    return feed_api


async def test_entries_equal_history_in_the_order_of_recording(api: Api) -> None:
    entries = await all_changes(api)
    history = (await api(HISTORY))["history"]["nodes"]
    assert len(entries) == 8
    assert sorted(entries, key=lambda entry: entry["id"]) == sorted(
        history, key=lambda entry: entry["id"]
    )
    assert [entry["at"] for entry in entries] == sorted(entry["at"] for entry in entries)


@pytest.mark.parametrize("first", [1, 2, 3, 8, 9])
async def test_pages_of_every_size_have_the_same_events(api: Api, first: int) -> None:
    assert await all_changes(api, first=first) == await all_changes(api)


async def test_each_event_and_each_batch_has_a_cursor_to_continue(api: Api) -> None:
    events = (await changes(api, start="EARLIEST"))["events"]
    for number, event in enumerate(events):
        batch = await changes(api, after=event["cursor"])
        assert batch["events"] == events[number + 1 :]
        assert batch["cursor"] == events[-1]["cursor"]
    assert all(event["at"] == event["entry"]["at"] for event in events)


async def test_start_now_has_no_events_and_the_cursor_of_the_newest(api: Api) -> None:
    newest = (await changes(api, start="EARLIEST"))["cursor"]
    for start in ("NOW", None):
        assert await changes(api, start=start) == {
            "events": [],
            "cursor": newest,
            "caughtUp": True,
        }


async def test_after_takes_precedence_over_start(api: Api) -> None:
    first = await changes(api, start="EARLIEST", first=3)
    rest = await changes(api, after=first["cursor"], start="EARLIEST")
    assert len(rest["events"]) == 5


async def test_batch_is_caught_up_only_at_the_newest_change(api: Api) -> None:
    assert (await changes(api, start="EARLIEST", first=7))["caughtUp"] is False
    assert (await changes(api, start="EARLIEST", first=8))["caughtUp"] is True


FILTERS: dict[str, tuple[dict[str, Any], Callable[[Any], bool]]] = {
    "slug": ({"slugs": ["A"]}, lambda entry: entry["segment"]["slug"] == "A"),
    "slugs": ({"slugs": ["A", "B", "UNKNOWN"]}, lambda entry: True),
    "unknown slug": ({"slugs": ["UNKNOWN"]}, lambda entry: False),
    "users": ({"userIds": ["1", "3", "99"]}, lambda entry: entry["userId"] in "13"),
    "leaves": ({"operations": ["LEFT"]}, lambda entry: entry["operation"] == "LEFT"),
    "both": ({"operations": ["LEFT", "JOINED"]}, lambda entry: True),
    "all": (
        {"slugs": ["B"], "userIds": ["2"], "operations": ["LEFT"]},
        lambda entry: (
            (entry["segment"]["slug"], entry["userId"], entry["operation"]) == ("B", "2", "LEFT")
        ),
    ),
    "nulls": ({"slugs": None, "userIds": None, "operations": None}, lambda entry: True),
}


@pytest.mark.parametrize("name", FILTERS)
@pytest.mark.parametrize("first", [1, 100])
async def test_filter_selects_events_and_the_cursor_advances(
    api: Api, name: str, first: int
) -> None:
    change_filter, matches = FILTERS[name]
    everything = await changes(api, start="EARLIEST")
    expected = [event["entry"] for event in everything["events"] if matches(event["entry"])]
    assert await all_changes(api, first=first, filter=change_filter) == expected
    if not expected:
        batch = await changes(api, start="EARLIEST", filter=change_filter)
        assert (batch["cursor"], batch["caughtUp"]) == (everything["cursor"], True)


async def test_filter_reads_the_shared_window_like_the_database(api: Api) -> None:
    """The second half comes from the window, because the cursor is near the head."""
    middle = (await changes(api, start="EARLIEST", first=4))["cursor"]
    for change_filter, matches in FILTERS.values():
        after = await changes(api, after=middle)
        found = await changes(api, after=middle, filter=change_filter)
        assert [event["entry"] for event in found["events"]] == [
            event["entry"] for event in after["events"] if matches(event["entry"])
        ]
        assert found["cursor"] == after["cursor"]


REJECTED: dict[str, tuple[dict[str, Any], str, str]] = {
    "malformed cursor": ({"after": "chg_1"}, "BAD_REQUEST", "after"),
    "empty cursor": ({"after": ""}, "BAD_REQUEST", "after"),
    "no events": ({"first": 0}, "BAD_REQUEST", "first"),
    "too many events": ({"first": 1001}, "LIMIT_EXCEEDED", "first"),
    "negative wait": ({"wait": -1}, "BAD_REQUEST", "waitSeconds"),
    "long wait": ({"wait": 61}, "BAD_REQUEST", "waitSeconds"),
    "no slugs": ({"filter": {"slugs": []}}, "BAD_REQUEST", "filter.slugs"),
    "no users": ({"filter": {"userIds": []}}, "BAD_REQUEST", "filter.userIds"),
    "no operations": ({"filter": {"operations": []}}, "BAD_REQUEST", "filter.operations"),
    "bad slug": ({"filter": {"slugs": ["A", " "]}}, "BAD_REQUEST", "filter.slugs"),
    "bad user": ({"filter": {"userIds": ["0"]}}, "BAD_REQUEST", "filter.userIds"),
    "many slugs": (
        {"filter": {"slugs": [f"S{n}" for n in range(101)]}},
        "LIMIT_EXCEEDED",
        "filter.slugs",
    ),
    "many users": (
        {"filter": {"userIds": list(range(1, 1002))}},
        "LIMIT_EXCEEDED",
        "filter.userIds",
    ),
}


@pytest.mark.parametrize("name", REJECTED)
async def test_invalid_arguments_are_rejected(feed_api: Api, name: str) -> None:
    variables, code, argument = REJECTED[name]
    error = await feed_api.error(CHANGES, **variables)
    assert (error["extensions"]["code"], error["extensions"]["argument"]) == (code, argument)


async def test_documented_maxima_are_accepted(api: Api) -> None:
    change_filter = {
        "slugs": [f"{n:03}".ljust(255, "S") for n in range(99)] + ["A"],
        "userIds": [str(2**63 - 1 - n) for n in range(999)] + ["1"],
        "operations": ["JOINED", "LEFT"],
    }
    batch = await changes(api, start="EARLIEST", first=1000, filter=change_filter)
    assert [event["entry"]["operation"] for event in batch["events"]] == ["JOINED", "LEFT"]


async def test_slug_means_every_segment_that_had_it(api: Api) -> None:
    """A consumer keeps its copy by the segment's id, because a slug can have another segment."""
    await api('mutation { deleteSegment(input: {slug: "A"}) { errors { message } } }')
    await make_segments(api, "A")
    await update_user_segments(api, 1, add=["A"])
    entries = await all_changes(api, filter={"slugs": ["A"]})
    ids = list(dict.fromkeys(entry["segment"]["id"] for entry in entries))
    assert len(ids) == 2
    copy: dict[str, set[str]] = {}
    for entry in entries:
        members = copy.setdefault(entry["segment"]["id"], set())
        (members.add if entry["operation"] == "JOINED" else members.discard)(entry["userId"])
    assert copy == {ids[0]: set(), ids[1]: {"1"}}


async def test_empty_history_has_a_cursor_from_which_the_first_change_follows(
    feed_api: Api, sql: Sql
) -> None:
    for start in ("NOW", "EARLIEST"):
        batch = await changes(feed_api, start=start)
        assert batch == {"events": [], "cursor": BEFORE_FIRST_ROW.encode(), "caughtUp": True}
    await make_segments(feed_api, "A")
    await update_user_segments(feed_api, 1, add=["A"])
    (event,) = (await changes(feed_api, after=batch["cursor"]))["events"]
    assert (event["__typename"], event["entry"]["userId"]) == ("MembershipEvent", "1")
