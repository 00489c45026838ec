"""GraphQL queries of the numbers of members, now and in the past."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from tests.conftest import Api

COUNT = """query($asOf: DateTime) { segment(slug: "A") { memberCount(asOf: $asOf) } }"""
SERIES = """
query($from: DateTime!, $to: DateTime!, $points: Int) {
  segment(slug: "A") { memberCounts(from: $from, to: $to, points: $points) { at count } }
}
"""


async def count(api: Api, at: datetime) -> int:
    number: int = (await api(COUNT, asOf=at.isoformat()))["segment"]["memberCount"]
    return number


async def series(api: Api, since: datetime, until: datetime, **points: Any) -> list[Any]:
    variables = {"from": since.isoformat(), "to": until.isoformat(), **points}
    found: list[Any] = (await api(SERIES, **variables))["segment"]["memberCounts"]
    return found


def counts(points: Sequence[Mapping[str, int]]) -> list[int]:
    return [point["count"] for point in points]
