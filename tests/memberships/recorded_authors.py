"""The recorded authors of changes: actors, API keys and imports."""

from typing import Any

from tests.conftest import Sql
from tests.keys.clients import KeyClient


def by(client: KeyClient, name: str) -> tuple[str, str]:
    """Return the actor and the API key id that a change by the client records."""
    return name, client.key.public_id


NOBODY = (None, None)


async def membership_authors(sql: Sql) -> list[Any]:
    """Return slug, cause, actor, API key id and import id of each membership."""
    rows = await sql.fetch(
        """
        SELECT slug, cause::text, actor, api_key_id, import_id
        FROM memberships JOIN segments s ON s.id = segment_id ORDER BY s.id, user_id
        """
    )
    return [tuple(row) for row in rows]


async def history_authors(sql: Sql) -> list[Any]:
    """Return operation, cause, actor, API key id and import id, in order of the positions."""
    rows = await sql.fetch(
        """
        SELECT operation::text, cause::text, actor, api_key_id, import_id
        FROM history ORDER BY position
        """
    )
    return [tuple(row) for row in rows]


async def exclusion_log(sql: Sql) -> list[Any]:
    """Return user, slug, operation, actor, API key id and import id, in order of the entries."""
    rows = await sql.fetch(
        """
        SELECT user_id, slug, operation::text, actor, api_key_id, import_id
        FROM exclusion_log JOIN segments s ON s.id = segment_id ORDER BY exclusion_log.id
        """
    )
    return [tuple(row) for row in rows]


async def exclusion_authors(sql: Sql) -> list[Any]:
    rows = await sql.fetch("SELECT user_id, actor, api_key_id, import_id FROM exclusions")
    return [tuple(row) for row in rows]
