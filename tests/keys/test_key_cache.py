"""The key cache sends no statement for a cached key, and stores the last use of each key."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

import pytest
from prometheus_client import REGISTRY

from segmentql.adapters.database import Database
from segmentql.errors import AuthenticationFailure, Unauthenticated
from segmentql.graphql.types.dataloader import LoaderRegistry
from segmentql.keys import service
from segmentql.keys.cache import ApiKeyCache
from segmentql.keys.loaders import KeyByPublicId
from segmentql.keys.records import StoredKey
from segmentql.settings import Settings
from tests.conftest import Api, Sql, recorded_statements, serving, until
from tests.keys.clients import (
    UNKNOWN,
    VIEWER,
    Key,
    bearer,
    make_key,
    query_data,
    revoke,
    send_query,
)
from tests.network_cut import NetworkLink


class CountingKeyCache:
    """A key cache on a database that counts the lookups of each key."""

    def __init__(self, database: Database, **options: int) -> None:
        self.lookups: Counter[str] = Counter()
        self._load = LoaderRegistry(database, primary=True).get(KeyByPublicId).load
        self.cache = ApiKeyCache(database, self._lookup, **options)

    async def _lookup(self, public_id: str) -> StoredKey | None:
        self.lookups[public_id] += 1
        return await self._load(public_id)

    async def name(self, token: str) -> str | None:
        return (await self.cache.authenticate(bearer(token).encode())).name

    async def failure(self, token: str) -> AuthenticationFailure | None:
        """Return why a key is rejected, or None if it is accepted."""
        try:
            await self.name(token)
        except Unauthenticated as unauthenticated:
            return unauthenticated.failure
        return None


@contextmanager
def requests_own_statements() -> Iterator[list[str]]:
    """Collect statements without those of background tasks; read the list after the exit."""
    own: list[str] = []
    with recorded_statements(with_key_cache=True) as statements:
        yield own
    own += [s for s in statements if "unnest" not in s and "SET last_used_at" not in s]


async def test_cached_key_needs_no_statement(auth_api: Api, database: Database) -> None:
    key = await make_key(database, "READER", "ada")
    expected = {"viewer": {"name": "ada", "role": "READER", "keyId": f"key_{key.public_id}"}}
    assert await query_data(auth_api, key, VIEWER) == expected
    with requests_own_statements() as statements:
        for _ in range(100):
            assert await query_data(auth_api, key, VIEWER) == expected
    assert statements == []


async def test_wrong_secret_of_a_cached_key_needs_no_statement(
    auth_api: Api, database: Database
) -> None:
    key = await make_key(database, "READER")
    await query_data(auth_api, key, VIEWER)
    with requests_own_statements() as statements:
        for _ in range(20):
            assert (
                await send_query(auth_api, bearer(key.with_wrong_secret), VIEWER)
            ).status_code == 401
        assert (await send_query(auth_api, bearer(key.token[:-1]), VIEWER)).status_code == 401
        assert (await send_query(auth_api, None, VIEWER)).status_code == 401
    assert statements == []


async def test_lookups_of_unknown_keys_share_statements(auth_api: Api, sql: Sql) -> None:
    unknown_tokens = [f"sgql_{number:012}_" + "0" * 64 for number in range(500)]
    with requests_own_statements() as statements:
        responses = await asyncio.gather(
            *(send_query(auth_api, bearer(token), VIEWER) for token in unknown_tokens)
        )
    assert {response.status_code for response in responses} == {401}
    assert len(statements) <= 5


@pytest.mark.slow
async def test_refreshes_keep_a_key_cached_without_lookups(database: Database) -> None:
    key = await make_key(database, "READER", "ada")
    counting = CountingKeyCache(database)
    async with counting.cache.running():
        with recorded_statements(with_key_cache=True) as statements:

            async def was_refreshed_often() -> bool:
                assert await counting.name(key.token) == "ada"
                # One of them may be the application's, which drops the last test's keys.
                return len([s for s in statements if "unnest" in s]) >= 6

            began = time.monotonic()
            await until(was_refreshed_often)
    assert time.monotonic() - began > 0.9
    assert counting.lookups == {key.public_id: 1}


async def test_empty_cache_is_not_refreshed(auth_api: Api, database: Database) -> None:
    counting = CountingKeyCache(database)
    async with counting.cache.running():
        for token in (UNKNOWN, "sgql_bbbbbbbbbbbb_" + "0" * 64):
            assert await counting.failure(token) is AuthenticationFailure.UNKNOWN
        assert counting.cache._entries == {}
        assert not counting.cache._is_not_empty.is_set()


async def test_cached_key_is_unavailable_during_a_database_outage(
    auth_settings: Settings, database: Database
) -> None:
    key = await make_key(database, "READER", "ada")
    async with (
        NetworkLink(auth_settings.database_url).open() as link,
        serving(auth_settings.model_copy(update={"database_url": link.url})) as api,
    ):
        await query_data(api, key, VIEWER)
        link.cut()

        async def unavailable() -> bool:
            return (await send_query(api, bearer(key.token), VIEWER)).status_code == 503

        await until(unavailable)
        response = await send_query(api, bearer(key.token), VIEWER)
        (error,) = response.json()["errors"]
        assert error["extensions"] == {"code": "UNAVAILABLE"}
        # A key that is known to be wrong is still rejected.
        assert (await send_query(api, bearer(key.with_wrong_secret), VIEWER)).status_code == 401
        link.restore()

        async def responds() -> bool:
            return (await send_query(api, bearer(key.token), VIEWER)).status_code == 200

        await until(responds)


async def test_cache_evicts_the_least_recently_used_key(
    database: Database,
) -> None:
    keys = [await make_key(database, "READER") for _ in range(3)]
    counting = CountingKeyCache(database, max_keys=2)
    for number in (0, 1, 0, 2, 0, 1):
        await counting.name(keys[number].token)
    assert [counting.lookups[key.public_id] for key in keys] == [1, 2, 1]
    assert len(counting.cache._entries) == 2


def _authentication_failures() -> dict[str, float]:
    """Return the number of rejected requests so far, by reason."""
    name = "segmentql_authentication_failures_total"
    return {
        failure: REGISTRY.get_sample_value(name, {"reason": failure}) or 0
        for failure in AuthenticationFailure
    }


async def test_rejected_requests_are_counted_by_reason(auth_api: Api, database: Database) -> None:
    key, revoked = [await make_key(database, "ADMIN") for _ in range(2)]
    await revoke(database, revoked)
    before = _authentication_failures()
    for authorization in (
        None,
        "Bearer",
        bearer(UNKNOWN),
        bearer(key.with_wrong_secret),
        bearer(revoked.with_wrong_secret),
        bearer(revoked.token),
    ):
        assert (await send_query(auth_api, authorization, VIEWER)).status_code == 401
    assert {
        failure: count - before[failure] for failure, count in _authentication_failures().items()
    } == {
        "missing": 1,
        "malformed": 1,
        "unknown": 1,
        "wrong_secret": 2,
        "revoked": 1,
    }


async def last_used(sql: Sql, key: Key) -> object:
    return await sql.fetchval(
        "SELECT last_used_at FROM api_keys WHERE public_id = $1", key.public_id
    )


async def test_last_use_is_stored_when_the_process_stops(
    auth_settings: Settings, database: Database, sql: Sql
) -> None:
    used, unused = [await make_key(database, "READER") for _ in range(2)]
    before = await sql.fetchval("SELECT clock_timestamp()")
    async with serving(auth_settings) as api:
        await query_data(api, used, VIEWER)
        assert (await send_query(api, bearer(unused.with_wrong_secret), VIEWER)).status_code == 401
    assert before < await last_used(sql, used) < await sql.fetchval("SELECT clock_timestamp()")
    assert await last_used(sql, unused) is None


async def test_last_use_never_moves_back(database: Database, sql: Sql) -> None:
    key = await make_key(database, "READER")
    await sql.execute("UPDATE api_keys SET last_used_at = clock_timestamp() + interval '1 hour'")
    future = await last_used(sql, key)
    await database.transaction(
        lambda session: service.record_last_used(session, {key.public_id, "aaaaaaaaaaaa"})
    )
    assert await last_used(sql, key) == future


@asynccontextmanager
async def renamed_key_table(sql: Sql) -> AsyncIterator[None]:
    await sql.execute("ALTER TABLE api_keys RENAME TO lost")
    try:
        yield
    finally:
        await sql.execute("ALTER TABLE lost RENAME TO api_keys")


async def test_last_use_is_stored_later_if_writing_failed(database: Database, sql: Sql) -> None:
    key = await make_key(database, "READER")
    counting = CountingKeyCache(database)
    async with counting.cache.running():
        await counting.name(key.token)
        async with renamed_key_table(sql):
            await counting.cache._flush_last_used()
        assert counting.cache._used == {key.public_id}
        assert await last_used(sql, key) is None
    assert await last_used(sql, key) is not None
