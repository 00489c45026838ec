"""A worker deletes expired keys."""

from tests.conftest import RunWorker, Sql, until

INSERT = """
INSERT INTO idempotency_keys (key, fingerprint, result, created_at)
SELECT age, decode(repeat('00', 32), 'hex'), '{}', now() - age::interval
FROM unnest(ARRAY['23 hours', '25 hours']) AS age
"""


async def test_worker_deletes_expired_keys(run_worker: RunWorker, sql: Sql) -> None:
    await sql.execute(INSERT)

    async def is_deleted() -> bool:
        keys = await sql.fetch("SELECT key FROM idempotency_keys")
        return [row["key"] for row in keys] == ["23 hours"]

    async with run_worker():
        await until(is_deleted)
