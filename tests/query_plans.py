"""The rows that PostgreSQL reads for a statement, by EXPLAIN (ANALYZE)."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Engine, event

from tests.conftest import Sql


@contextmanager
def captured_statements() -> Iterator[list[tuple[str, Any]]]:
    """Collect the statements that are sent in the block, with their parameters."""
    results: list[tuple[str, Any]] = []

    def note(_conn: Any, _cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        results.append((statement, parameters))

    event.listen(Engine, "before_cursor_execute", note)
    try:
        yield results
    finally:
        event.remove(Engine, "before_cursor_execute", note)


async def scanned_rows(sql: Sql, statement: str, parameters: Any) -> float:
    """Run a statement, and return the rows that its scans read, including the removed ones."""
    explained = await sql.fetchval(f"EXPLAIN (ANALYZE, FORMAT JSON) {statement}", *parameters)
    return _scanned(json.loads(explained)[0]["Plan"])


def _scanned(plan: Mapping[str, Any]) -> float:
    rows = sum(map(_scanned, plan.get("Plans", ())))
    if "Scan" in plan["Node Type"] and "Relation Name" in plan:
        rows_read = plan["Actual Rows"] + sum(
            plan.get(f"Rows Removed by {reason}", 0) for reason in ("Filter", "Index Recheck")
        )
        rows += rows_read * plan["Actual Loops"]
    return rows
