"""Checks everything that a running service needs, and suggests remedies."""

from collections.abc import AsyncIterator

from segmentql.doctor.database import examine_databases
from segmentql.doctor.findings import Finding, Verdict
from segmentql.doctor.servers import examine_redis, examine_store
from segmentql.settings import Settings

__all__ = ["Finding", "Verdict", "examine"]


async def examine(settings: Settings) -> AsyncIterator[Finding]:
    """Yield the findings of all checks. A check that depends on a failed one is skipped."""
    async for finding in examine_databases(settings):
        yield finding
    async for finding in examine_redis(settings.redis_url):
        yield finding
    async for finding in examine_store(settings):
        yield finding
