"""The documented fields of entries, and the deletion of all entries."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from segmentql.audit.records import AuditAction
from tests.conftest import Sql

DOCUMENT = (Path(__file__).parents[2] / "docs" / "audit-log.md").read_text()
FIELDS = {
    action: (re.findall(r"`(\w+)`", before), re.findall(r"`(\w+)`", after))
    for action, before, after in re.findall(
        r"^\| `(\w+\.\w+)` \| `\w+` \|(.*)\|(.*)\|$", DOCUMENT, re.MULTILINE
    )
}
"""The documented fields of `before` and `after`, by action."""


async def empty_log(sql: Sql) -> None:
    await sql.execute("DELETE FROM audit_log")


def assert_documented(entries: Sequence[Any]) -> None:
    """Check that the states have exactly the documented fields."""
    for entry in entries:
        before, after = FIELDS[entry["action"]]
        if entry["before"] is None:
            assert not before or entry["action"] == AuditAction.ROLLOUT_SET
        else:
            assert sorted(entry["before"]) == sorted(before)
        assert sorted(entry["after"] or ()) == sorted(after)
