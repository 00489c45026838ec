"""What a process knows of keys: no statement for a known one, and nobody in who was revoked."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial

import pytest
from prometheus_client import REGISTRY

from segmentql.adapters.database import Database
from segmentql.errors import AuthenticationFailure, Unauthenticated
from segmentql.graphql.types.dataloader import LoaderRegistry
from segmentql.keys import service
from segmentql.keys.cache import ApiKeyCache
from segmentql.keys.loaders import KeyByPublicId
from segmentql.keys.service import StoredKey
from segmentql.settings import Settings
from tests.conftest import Api, Sql, recorded_statements, serving, until
from tests.keys.clients import UNKNOWN, Key, bearer, make_key, query_data, revoke, send_query
from tests.network_cut import NetworkLink

WHO = "{ viewer { name role keyId } }"


class ScrapedGauge:
    """A ring on a database, and how often each key was asked for by a request."""

    def __init__(self, database: Database, **options: int) -> None:
        self.times: Counter[str] = Counter()
        self._load = LoaderRegistry(database, primary=True).get(KeyByPublicId).load
        self.cache = ApiKeyCache(database, self._lookup, **options)

    async def _lookup(self, public_id: str) -> StoredKey | None:
        self.times[public_id] += 1
        return await self._load(public_id)

    async def name(self, token: str) -> str | None:
        return (await self.cache.authenticate(bearer(token).encode())).name

    async def failure(self, token: str) -> AuthenticationFailure | None:
        """Why a key is refused; None where it is not."""
        try:
            await self.name(token)
        except Unauthenticated as unauthenticated:
            return unauthenticated.failure
        return None


@contextmanager
def requests_own_statements() -> Iterator[list[str]]:
    """Statements but for the background's; to be read after the exit."""
    own: list[str] = []
    with recorded_statements() as statements:
        yield own
    own += [s for s in statements if "unnest" not in s and "SET last_used_at" not in s]


async def test_a_known_key_costs_no_statement(keyed: Api, database: Database) -> None:
    key = await make_key(database, "READER", "ada")
    expected = {"viewer": {"name": "ada", "role": "READER", "keyId": f"key_{key.public_id}"}}
    assert await query_data(keyed, key, WHO) == expected
    with requests_own_statements() as statements:
        for _ in range(100):
            assert await query_data(keyed, key, WHO) == expected
    assert statements == []


async def test_the_wrong_secret_of_a_known_key_costs_no_statement(
    keyed: Api, database: Database
) -> None:
    key = await make_key(database, "READER")
    await query_data(keyed, key, WHO)
    with requests_own_statements() as statements:
        for _ in range(20):
            assert (await send_query(keyed, bearer(key.with_wrong_secret), WHO)).status_code == 401
        assert (await send_query(keyed, bearer(key.token[:-1]), WHO)).status_code == 401
        assert (await send_query(keyed, None, WHO)).status_code == 401
    assert statements == []


async def test_keys_that_somebody_makes_up_share_statements(keyed: Api, sql: Sql) -> None:
    made_up = [f"sgql_{number:012}_" + "0" * 64 for number in range(500)]
    with requests_own_statements() as statements:
        answers = await asyncio.gather(
            *(send_query(keyed, bearer(token), WHO) for token in made_up)
        )
    assert {answer.status_code for answer in answers} == {401}
    assert len(statements) <= 5


@pytest.mark.slow
async def test_looks_keep_a_key_trusted_without_its_being_asked_for(database: Database) -> None:
    key = await make_key(database, "READER", "ada")
    asked = ScrapedGauge(database)
    async with asked.cache.running():
        with recorded_statements() as statements:

            async def looked_often() -> bool:
                assert await asked.name(key.token) == "ada"
                # One of them may be the application's, which forgets the last test's keys.
                return len([s for s in statements if "unnest" in s]) >= 6

            began = time.monotonic()
            await until(looked_often)
    assert time.monotonic() - began > 0.9
    assert asked.times == {key.public_id: 1}


async def test_a_process_that_knows_no_key_does_not_look(keyed: Api, database: Database) -> None:
    asked = ScrapedGauge(database)
    async with asked.cache.running():
        for token in (UNKNOWN, "sgql_bbbbbbbbbbbb_" + "0" * 64):
            assert await asked.failure(token) is AuthenticationFailure.UNKNOWN
        assert asked.cache._entries == {}
        assert not asked.cache._is_not_empty.is_set()


async def accepted_after(apis: list[Api], key: Key, moment: float) -> list[float]:
    """Ask all until each refuses; how long after `moment` requests began that were let in."""
    late: list[float] = []

    async def refused(api: Api) -> bool:
        began = time.monotonic()
        status = (await send_query(api, bearer(key.token), WHO)).status_code
        if status == 200:
            late.append(began - moment)
        return status == 401

    await asyncio.gather(*(until(partial(refused, api)) for api in apis))
    return late


async def test_revoking_works_within_a_second_in_every_process_also_without_redis(
    guarded: Settings, database: Database
) -> None:
    astray = guarded.model_copy(update={"redis_url": "redis://127.0.0.1:1/0"})
    key = await make_key(database, "READER")
    async with serving(astray) as first, serving(astray) as second:
        for api in (first, second):
            await query_data(api, key, WHO)
        await revoke(database, key)
        late = await accepted_after([first, second], key, time.monotonic())
    assert max(late, default=0) < 1


async def test_revoking_works_within_a_second_where_looks_fail(
    guarded: Settings, database: Database
) -> None:
    """The looks' way to the database is cut, that of requests is not."""
    key, other = await make_key(database, "READER", "ada"), await make_key(database, "READER")
    load = LoaderRegistry(database, primary=True).get(KeyByPublicId).load
    async with NetworkLink(guarded.database_url).open() as line:
        away = Database(
            guarded.model_copy(update={"database_url": line.url}),
            name="tests",
            publish=lambda messages: None,
        )
        cache = ApiKeyCache(away, load)
        line.cut()
        async with cache.running():
            header = bearer(key.token).encode()
            assert (await cache.authenticate(header)).name == "ada"
            await cache.authenticate(bearer(other.token).encode())
            await until(lambda: line.has_been_tried(2))
            await revoke(database, key)
            revoked = time.monotonic()
            let_in: list[float] = []

            async def refused() -> bool:
                now = time.monotonic()
                try:
                    await cache.authenticate(header)
                except Unauthenticated as unauthenticated:
                    return unauthenticated.failure is AuthenticationFailure.REVOKED
                let_in.append(now - revoked)
                return False

            await until(refused)
            assert (await cache.authenticate(bearer(other.token).encode())).name == "ada"
        await away.dispose()
    assert max(let_in, default=0) < 1


async def test_a_key_deleted_by_hand_lets_nobody_in_a_second_later(
    keyed: Api, database: Database, sql: Sql
) -> None:
    key = await make_key(database, "READER")
    await query_data(keyed, key, WHO)
    await sql.execute("DELETE FROM api_keys")
    assert max(await accepted_after([keyed], key, time.monotonic()), default=0) < 1


async def test_with_the_database_away_a_known_key_is_soon_unavailable_and_comes_back(
    guarded: Settings, database: Database
) -> None:
    key = await make_key(database, "READER", "ada")
    async with (
        NetworkLink(guarded.database_url).open() as line,
        serving(guarded.model_copy(update={"database_url": line.url})) as api,
    ):
        await query_data(api, key, WHO)
        line.cut()

        async def unavailable() -> bool:
            return (await send_query(api, bearer(key.token), WHO)).status_code == 503

        await until(unavailable)
        response = await send_query(api, bearer(key.token), WHO)
        (error,) = response.json()["errors"]
        assert error["extensions"] == {"code": "UNAVAILABLE"}
        # What is known to be wrong is still refused.
        assert (await send_query(api, bearer(key.with_wrong_secret), WHO)).status_code == 401
        line.mend()

        async def answers() -> bool:
            return (await send_query(api, bearer(key.token), WHO)).status_code == 200

        await until(answers)


async def test_only_so_many_keys_are_known_and_the_least_lately_used_go_first(
    database: Database,
) -> None:
    keys = [await make_key(database, "READER") for _ in range(3)]
    asked = ScrapedGauge(database, max_keys=2)
    for number in (0, 1, 0, 2, 0, 1):
        await asked.name(keys[number].token)
    assert [asked.times[key.public_id] for key in keys] == [1, 2, 1]
    assert len(asked.cache._entries) == 2


def _flaws() -> dict[str, float]:
    """How many requests were refused so far, by reason."""
    name = "segmentql_authentication_failures_total"
    return {
        failure: REGISTRY.get_sample_value(name, {"reason": failure}) or 0
        for failure in AuthenticationFailure
    }


async def test_what_is_refused_is_counted_by_what_was_wrong(keyed: Api, database: Database) -> None:
    key, revoked = [await make_key(database, "ADMIN") for _ in range(2)]
    await revoke(database, revoked)
    before = _flaws()
    for authorization in (
        None,
        "Bearer",
        bearer(UNKNOWN),
        bearer(key.with_wrong_secret),
        bearer(revoked.with_wrong_secret),
        bearer(revoked.token),
    ):
        assert (await send_query(keyed, authorization, WHO)).status_code == 401
    assert {failure: count - before[failure] for failure, count in _flaws().items()} == {
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


async def test_the_last_use_is_kept_also_of_a_process_that_stops(
    guarded: Settings, database: Database, sql: Sql
) -> None:
    used, unused = [await make_key(database, "READER") for _ in range(2)]
    before = await sql.fetchval("SELECT clock_timestamp()")
    async with serving(guarded) as api:
        await query_data(api, used, WHO)
        assert (await send_query(api, bearer(unused.with_wrong_secret), WHO)).status_code == 401
    assert before < await last_used(sql, used) < await sql.fetchval("SELECT clock_timestamp()")
    assert await last_used(sql, unused) is None


async def test_the_last_use_never_goes_back(database: Database, sql: Sql) -> None:
    key = await make_key(database, "READER")
    await sql.execute("UPDATE api_keys SET last_used_at = clock_timestamp() + interval '1 hour'")
    ahead = await last_used(sql, key)
    await database.transaction(
        lambda session: service.record_last_used(session, {key.public_id, "aaaaaaaaaaaa"})
    )
    assert await last_used(sql, key) == ahead


@asynccontextmanager
async def lost(sql: Sql) -> AsyncIterator[None]:
    await sql.execute("ALTER TABLE api_keys RENAME TO lost")
    try:
        yield
    finally:
        await sql.execute("ALTER TABLE lost RENAME TO api_keys")


async def test_uses_that_could_not_be_noted_are_noted_later(database: Database, sql: Sql) -> None:
    key = await make_key(database, "READER")
    asked = ScrapedGauge(database)
    async with asked.cache.running():
        await asked.name(key.token)
        async with lost(sql):
            await asked.cache._flush_last_used()
        assert asked.cache._used == {key.public_id}
        assert await last_used(sql, key) is None
    assert await last_used(sql, key) is not None
