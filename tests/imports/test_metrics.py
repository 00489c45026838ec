"""Each import is counted once, with its rows, after it has ended."""

from collections.abc import Mapping

from prometheus_client import REGISTRY

from segmentql.imports.actors import finish_import
from tests.conftest import Api, Sql
from tests.imports.lists import CANCEL, Imports
from tests.operations import make_segments


def value(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(f"segmentql_{name}", labels) or 0


def rows() -> Mapping[str, float]:
    return {
        outcome: value("import_rows_total", outcome=outcome)
        for outcome in ("JOINED", "DUPLICATE", "ALREADY_IN", "MALFORMED", "NOT_REACHED")
    }


def statuses() -> Mapping[str, float]:
    return {
        status: value("imports_total", status=status)
        for status in ("COMPLETED", "REFUSED", "FAILED", "CANCELLED")
    }


def increases(before: Mapping[str, float], after: Mapping[str, float]) -> dict[str, float]:
    return {name: after[name] - count for name, count in before.items() if after[name] != count}


async def test_completed_import_is_counted_once(api: Api, sql: Sql, imports: Imports) -> None:
    await make_segments(api, "a")
    rows_before, statuses_before = rows(), statuses()
    durations = ("import_validation_seconds_count", "import_duration_seconds_count")
    durations_before = [value(name) for name in durations]
    finished = await imports.run(b"5\n6\n5\n")
    number = int(finished["id"].removeprefix("imp_"))
    for _ in range(2):  # repeated messages
        await finish_import(imports.context, number)
    assert increases(rows_before, rows()) == {"JOINED": 2, "DUPLICATE": 1}
    assert increases(statuses_before, statuses()) == {"COMPLETED": 1}
    assert [value(name) for name in durations] == [count + 1 for count in durations_before]


async def test_other_ends_are_counted(api: Api, sql: Sql, imports: Imports) -> None:
    await make_segments(api, "a")
    rows_before, statuses_before = rows(), statuses()
    await imports.run(b"5\nx\n")
    created = await imports.create(b"5\n")
    await imports.send(CANCEL, id=created["id"])
    await finish_import(imports.context, int(created["id"].removeprefix("imp_")))
    assert increases(rows_before, rows()) == {"MALFORMED": 1, "NOT_REACHED": 1}
    assert increases(statuses_before, statuses()) == {"REFUSED": 1, "CANCELLED": 1}
