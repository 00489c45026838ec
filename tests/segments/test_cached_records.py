"""Records of segments are shared and cached, except those with a long name or description."""

import tracemalloc
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest

from segmentql.segments import rows
from segmentql.segments.records import MAX_CACHED_TEXT, SegmentRecord
from segmentql.segments.rows import (
    MAX_CACHED_SEGMENTS,
    active_segment,
    segment_record,
)


def active_columns(number: int, slug: str, description: str) -> tuple[Any, ...]:
    return (number, slug, None, description, 1, 0.5, number / 8)


def row_of(number: int, slug: str, description: str) -> Any:
    created_at = datetime.fromtimestamp(number, UTC)
    return SimpleNamespace(
        segment_id=number,
        slug=slug,
        name=None,
        description=description,
        version=1,
        segment_created_at=created_at,
        segment_updated_at=created_at,
        deleted_at=None,
    )


@pytest.mark.parametrize(
    ("record_of", "columns"), [(active_segment, active_columns), (segment_record, row_of)]
)
def test_only_records_with_short_texts_are_kept(record_of: Any, columns: Any) -> None:
    for length, is_kept in ((0, True), (MAX_CACHED_TEXT, True), (MAX_CACHED_TEXT + 1, False)):
        first: SegmentRecord = record_of(columns(7, "A", "x" * length))
        again: SegmentRecord = record_of(columns(7, "A", "x" * length))
        assert first == again
        assert (first is again) is is_kept
        assert first.is_shared is is_kept


def test_memory_of_the_caches_is_bounded() -> None:
    """The test uses the longest slugs and texts, and characters of four bytes."""
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for number in range(2 * MAX_CACHED_SEGMENTS):
            for length in (MAX_CACHED_TEXT, 4096):
                text = "\N{GRINNING FACE}" * length
                active_segment(active_columns(number, f"{number:0255}", text))
                segment_record(row_of(number, f"{number:0255}", text))
        size = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
        rows._cached_active_segment.cache_clear()
        rows._cached_record.cache_clear()
    assert size < 20_000_000
