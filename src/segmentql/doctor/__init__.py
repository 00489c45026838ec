"""Checks what a running service needs, and says what to do about what is wrong."""

from collections.abc import AsyncIterator

from segmentql.doctor.database import examine_databases
from segmentql.doctor.findings import Finding, Verdict
from segmentql.doctor.servers import examine_redis, examine_store
from segmentql.settings import Settings

__all__ = ["Finding", "Verdict", "examine"]


async def examine(settings: Settings) -> AsyncIterator[Finding]:
    """Run every check, each as far as those before it allow."""
    async for finding in examine_databases(settings):
        yield finding
    async for finding in examine_redis(settings.redis_url):
        yield finding
    async for finding in examine_store(settings):
        yield finding
