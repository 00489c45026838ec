"""Every process rejects a revoked key within a second, whatever fails."""

import asyncio
import time
from functools import partial

from segmentql.adapters.database import Database
from segmentql.errors import AuthenticationFailure, Unauthenticated
from segmentql.graphql.types.dataloader import LoaderRegistry
from segmentql.keys.cache import ApiKeyCache
from segmentql.keys.loaders import KeyByPublicId
from segmentql.settings import Settings
from tests.conftest import Api, Sql, serving, until
from tests.keys.clients import VIEWER, Key, bearer, make_key, query_data, revoke, send_query
from tests.network_cut import NetworkLink


async def accepted_delays(apis: list[Api], key: Key, moment: float) -> list[float]:
    """Send requests to each application until it rejects the key.

    Return, for each accepted request, the seconds from `moment` to its start.
    """
    delays: list[float] = []

    async def is_rejected(api: Api) -> bool:
        began = time.monotonic()
        status = (await send_query(api, bearer(key.token), VIEWER)).status_code
        if status == 200:
            delays.append(began - moment)
        return status == 401

    await asyncio.gather(*(until(partial(is_rejected, api)) for api in apis))
    return delays


async def test_revocation_takes_a_second_in_every_process_without_redis(
    auth_settings: Settings, database: Database
) -> None:
    without_redis = auth_settings.model_copy(update={"redis_url": "redis://127.0.0.1:1/0"})
    key = await make_key(database, "READER")
    async with serving(without_redis) as first, serving(without_redis) as second:
        for api in (first, second):
            await query_data(api, key, VIEWER)
        await revoke(database, key)
        delays = await accepted_delays([first, second], key, time.monotonic())
    assert max(delays, default=0) < 1


async def test_revocation_takes_a_second_if_refreshes_fail(
    auth_settings: Settings, database: Database
) -> None:
    """The connection of the refresh loop is cut, while that of requests works."""
    key, other = await make_key(database, "READER", "ada"), await make_key(database, "READER")
    load = LoaderRegistry(database, primary=True).get(KeyByPublicId).load
    async with NetworkLink(auth_settings.database_url).open() as link:
        cut_database = Database(
            auth_settings.model_copy(update={"database_url": link.url}),
            name="tests",
            publish=lambda messages: None,
        )
        cache = ApiKeyCache(cut_database, load)
        link.cut()
        async with cache.running():
            header = bearer(key.token).encode()
            assert (await cache.authenticate(header)).name == "ada"
            await cache.authenticate(bearer(other.token).encode())
            await until(lambda: link.was_attempted(2))
            await revoke(database, key)
            revoked = time.monotonic()
            accepted: list[float] = []

            async def is_rejected() -> bool:
                now = time.monotonic()
                try:
                    await cache.authenticate(header)
                except Unauthenticated as unauthenticated:
                    return unauthenticated.failure is AuthenticationFailure.REVOKED
                accepted.append(now - revoked)
                return False

            await until(is_rejected)
            assert (await cache.authenticate(bearer(other.token).encode())).name == "ada"
        await cut_database.dispose()
    assert max(accepted, default=0) < 1


async def test_key_deleted_by_sql_is_rejected_within_a_second(
    auth_api: Api, database: Database, sql: Sql
) -> None:
    key = await make_key(database, "READER")
    await query_data(auth_api, key, VIEWER)
    await sql.execute("DELETE FROM api_keys")
    assert max(await accepted_delays([auth_api], key, time.monotonic()), default=0) < 1
