"""The window has the newest rows within its bounds, and drops the oldest ones."""

import dataclasses
import time

import pytest

from segmentql.feed import window
from segmentql.feed.records import NO_FILTER, ChangeFilter, ChangePage, ChangeRecord
from segmentql.feed.window import ChangeWindow
from segmentql.history.records import HistoryEntryRecord
from segmentql.history.settled import BEFORE_FIRST_ROW, HistoryCursor
from segmentql.segments.records import SegmentRecord
from segmentql.tables import Cause, Operation
from tests.back_dating import NOON

SEGMENT = SegmentRecord(1, "A", None, None, NOON, NOON, None, 1)


def change(position: int, segment: SegmentRecord = SEGMENT) -> ChangeRecord:
    entry = HistoryEntryRecord(
        position, position, segment, Operation.JOINED, NOON, NOON, Cause.MANUAL, None
    )
    return ChangeRecord(HistoryCursor.of_row(position, position, "JOINED", NOON), entry)


def page(positions: range, segment: SegmentRecord = SEGMENT) -> ChangePage:
    changes = [change(position, segment) for position in positions]
    return ChangePage(changes, changes[-1].cursor)


def filled(now: float, *pages: ChangePage) -> ChangeWindow:
    made = ChangeWindow(BEFORE_FIRST_ROW, generation=0)
    for added in pages:
        made.append(added, read_at=now)
    return made


@pytest.fixture
def now() -> float:
    return time.monotonic()


def test_window_covers_its_changes_and_its_start(now: float) -> None:
    made = filled(now, page(range(1, 5)), page(range(7, 9)))
    covered = [made.covers(change(position).cursor) for position in range(1, 11)]
    assert covered == [True] * 4 + [False, False, True, True, False, False]
    assert made.covers(BEFORE_FIRST_ROW)
    assert not made.covers(dataclasses.replace(change(3).cursor, fingerprint="0" * 16))


def test_window_returns_matching_changes_and_the_last_cursor(now: float) -> None:
    made = filled(now, page(range(1, 9)))
    odd = ChangeFilter(user_ids=frozenset({1, 3, 5, 7}))
    found = made.read(change(2).cursor, change_filter=odd, max_changes=2)
    assert found == ChangePage([change(3), change(5)], change(5).cursor)
    assert made.read(change(5).cursor, change_filter=odd, max_changes=2) == ChangePage(
        [change(7)], change(8).cursor
    )
    assert made.read(made.end, change_filter=NO_FILTER, max_changes=2) == ChangePage([], made.end)


def test_window_drops_the_oldest_changes_beyond_its_maximum(now: float) -> None:
    made = filled(now, page(range(1, window.MAX_CHANGES + 1)), page(range(50_001, 50_011)))
    assert len(made) == window.MAX_CHANGES
    assert (made.start, made.end) == (change(10).cursor, change(50_010).cursor)
    assert not made.covers(change(9).cursor)


def test_window_drops_the_oldest_changes_beyond_its_bytes(now: float) -> None:
    large = dataclasses.replace(SEGMENT, description="d" * 4096)
    made = filled(now, page(range(1, 3001), large))
    assert made.size <= window.MAX_BYTES
    assert made.size + made.size / len(made) > window.MAX_BYTES
    assert made.start == change(3000 - len(made)).cursor


def test_window_drops_changes_that_are_too_old(now: float) -> None:
    made = filled(now - 2 * window.MAX_AGE_SECONDS, page(range(1, 4)))
    assert len(made) == 0
    assert (made.start, made.end) == (change(3).cursor, change(3).cursor)
    made.append(page(range(4, 6)), read_at=now)
    assert len(made) == 2
    assert made.size == sum(map(window._size, page(range(4, 6)).changes))
