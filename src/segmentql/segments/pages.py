"""SQL of pages of segments: the prefix, the search, and the deleted segments."""

from typing import Final

from sqlalchemy import text

from segmentql.adapters.sessions import ReadSession
from segmentql.segments.records import SegmentPage, SegmentRecord
from segmentql.segments.rows import SEGMENT_COLUMNS, segment_record

MAX_SEARCH_CANDIDATES: Final = 2000
"""The number of segments up to which a search reads all candidates of the index and sorts them.

If there are more, the search reads the segments in the order of the list instead. As every fiftieth
segment of 100,000 is a candidate, it soon finds a page."""

_FOLDED_SEARCH: Final = "(SELECT casefold(CAST(:search AS text) COLLATE pg_unicode_fast))"


def _page(*, include_deleted: bool, with_search: bool) -> str:
    """Return the query of a page of segments. `SegmentPage` describes its parameters."""
    order = "slug, segment_id" if include_deleted else "slug"
    live = "" if include_deleted else "AND s.deleted_at IS NULL"

    def conditions(segment_id: str) -> str:
        after = (
            f"(s.slug, {segment_id}) > (:after_slug, :after_id)"
            if include_deleted
            else "s.slug > :after_slug"
        )
        found = "true"
        if with_search:
            found = " OR ".join(
                f"strpos(casefold(s.{column} COLLATE pg_unicode_fast), {_FOLDED_SEARCH}) > 0"
                for column in ("slug", "name")
            )
        return f"{after} AND s.slug >= :prefix AND s.slug < :prefix_end AND ({found})"

    in_order = f"""
    SELECT {SEGMENT_COLUMNS} FROM segments s WHERE {conditions("s.id")} {live}
    {{condition}} ORDER BY {order} LIMIT :rows
    """
    if not with_search:
        return in_order.format(condition="")
    # The planner cannot know the number of candidates, because it may plan the statement without
    # the parameters.
    candidate_count = "(SELECT count(*) FROM candidates)"
    return f"""
    WITH candidates AS MATERIALIZED (
        SELECT {SEGMENT_COLUMNS} FROM segments s
        WHERE segment_search_vector(s.slug, s.name) @@ segment_search_query(:search) {live}
        LIMIT {MAX_SEARCH_CANDIDATES} + 1
    )
    SELECT * FROM (
        (SELECT * FROM candidates s
         WHERE {candidate_count} <= {MAX_SEARCH_CANDIDATES} AND {conditions("s.segment_id")}
         ORDER BY {order} LIMIT :rows)
        UNION ALL
        ({in_order.format(condition=f"AND {candidate_count} > {MAX_SEARCH_CANDIDATES}")})
    ) AS page
    ORDER BY {order} LIMIT :rows
    """


_PAGES: Final = {
    (include_deleted, with_search): text(
        _page(include_deleted=include_deleted, with_search=with_search)
    )
    for include_deleted in (False, True)
    for with_search in (False, True)
}


async def segment_page(session: ReadSession, page: SegmentPage) -> list[SegmentRecord]:
    """Return a page of segments, in code point order of their slugs, then by id."""
    values: dict[str, str | int] = {
        "after_slug": page.after_slug,
        "prefix": page.prefix,
        # Slugs are ASCII, so this sorts after all slugs with the prefix: an index range.
        "prefix_end": page.prefix + "\x7f",
        "rows": page.rows,
    }
    if page.include_deleted:
        values["after_id"] = page.after_id
    if page.search:
        values["search"] = page.search
    statement = _PAGES[page.include_deleted, bool(page.search)]
    return [segment_record(row) for row in await session.execute(statement, values)]
