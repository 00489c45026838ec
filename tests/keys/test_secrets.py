"""No secret is ever told: all that processes say through failures of every kind is searched."""

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
from sqlalchemy.engine import make_url

from segmentql.adapters.database import Database
from segmentql.adapters.storage import Storage
from segmentql.local.ports import free_port
from segmentql.settings import Settings
from tests.conftest import Sql, environment, until
from tests.keys.clients import CREATE_KEY, REVOKE_KEY, UNKNOWN, bearer, make_key, revoke
from tests.network_cut import NetworkLink

pytestmark = pytest.mark.slow  # each test starts processes of the command

FIRST = "sgql_firstfirst12_" + "1f" * 32
METRICS_TOKEN = "the-token-of-prometheus"
FIELDS = "{ apiKeys { nodes { id name } } history { nodes { actor } } viewer { name } }"


class Said:
    """All that was said, and by whom."""

    def __init__(self) -> None:
        self.texts: dict[str, str] = {}

    def hear(self, who: str, text: str) -> None:
        self.texts[who] = self.texts.get(who, "") + text

    def who_told(self, secrets: dict[str, str]) -> list[tuple[str, str]]:
        return [
            (who, name)
            for who, text in self.texts.items()
            for name, secret in secrets.items()
            if secret in text
        ]


async def run(said: Said, settings: Settings, folder: Path, *words: str, **changes: str) -> int:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "segmentql", *words),
        cwd=folder,
        env=environment(settings, **changes),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    said.hear(f"{' '.join(words[:2])} {sorted(changes)}", output.decode())
    assert process.returncode is not None
    return process.returncode


@asynccontextmanager
async def served(
    said: Said, settings: Settings, folder: Path, **changes: str
) -> AsyncIterator[httpx.AsyncClient]:
    """`segmentql serve` in a process of its own; its whole log is heard at the end."""
    port, log = free_port(), folder / "serve.log"
    with log.open("wb") as file:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "segmentql", "serve", "--port", str(port)),
            cwd=folder,
            env=environment(settings, **changes),
            stdout=file,
            stderr=file,
        )
    try:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:

            async def answers() -> bool:
                try:
                    return (await client.get("/healthz")).status_code == 200
                except httpx.TransportError:
                    return False

            await until(answers)
            yield client
    finally:
        process.terminate()
        await process.wait()
        said.hear("serve", log.read_text())


async def test_no_failure_of_any_kind_tells_a_secret(
    guarded: Settings, database: Database, storage: Storage, sql: Sql, tmp_path: Path
) -> None:
    said = Said()
    admin, gone = [await make_key(database, "ADMIN", "root") for _ in range(2)]
    await revoke(database, gone)
    settings = guarded.model_copy(update={"first_key": FIRST, "metrics_token": METRICS_TOKEN})

    async with NetworkLink(guarded.database_url).open() as line:
        cut = settings.model_copy(update={"database_url": line.url})
        async with served(said, cut, tmp_path, SEGMENTQL_LOG_LEVEL="debug") as client:

            async def ask(token: str, query: str, **variables: object) -> httpx.Response:
                response = await client.post(
                    "/graphql",
                    json={"query": query, "variables": variables},
                    headers={"authorization": bearer(token)},
                )
                said.hear("answers", response.text)
                return response

            assert (await ask(admin.token, FIELDS)).status_code == 200
            for token in (UNKNOWN, admin.with_wrong_secret, gone.token, admin.token + "0"):
                assert (await ask(token, FIELDS)).status_code == 401
            made = (
                await client.post(
                    "/graphql",
                    json={
                        "query": CREATE_KEY,
                        "variables": {"input": {"name": "eve", "role": "READER"}},
                    },
                    headers={"authorization": bearer(admin.token)},
                )
            ).json()["data"]["createApiKey"]["token"]
            await ask(admin.token, REVOKE_KEY, input={"id": made})  # which is not the id
            await sql.execute("ALTER TABLE history RENAME TO lost")
            fault = await ask(admin.token, "{ history { nodes { actor } } }")
            await sql.execute("ALTER TABLE lost RENAME TO history")
            assert fault.json()["errors"][0]["extensions"]["code"] == "INTERNAL"
            await sql.execute("ALTER TABLE api_keys RENAME TO lost")
            assert (await ask(FIRST, FIELDS)).status_code == 500
            await sql.execute("ALTER TABLE lost RENAME TO api_keys")
            for authorization in (METRICS_TOKEN + "x", METRICS_TOKEN):
                response = await client.get("/metrics", headers={"authorization": authorization})
                said.hear("metrics", response.text)
            line.cut()

            async def unavailable() -> bool:
                return (await ask(admin.token, FIELDS)).status_code == 503

            await until(unavailable)
            said.hear("probes", (await client.get("/readyz")).text)

        assert await run(said, settings, tmp_path, "doctor") == 0
        assert await run(said, cut, tmp_path, "doctor") == 1
        assert await run(said, cut, tmp_path, "keys", "list") == 1
        assert await run(said, cut, tmp_path, "keys", "ensure-first") == 1
    assert await run(said, settings, tmp_path, "keys", "ensure-first") == 0
    assert await run(said, settings, tmp_path, "keys", "revoke", admin.token) == 2
    assert await run(said, settings, tmp_path, "keys", "list") == 0
    for name, value in (
        ("FIRST_KEY", FIRST + "0"),
        ("METRICS_TOKEN", METRICS_TOKEN + " \u00fc"),
        ("AUTH", FIRST),
    ):
        wrong = {f"SEGMENTQL_{name}": value}
        assert await run(said, settings, tmp_path, "serve", **wrong) == 1
    assert "Traceback" in said.texts["serve"]  # of the faults: that log is the full one
    assert "DEBUG" in said.texts["serve"] or '"debug"' in said.texts["serve"]

    passwords = {
        "the database's": make_url(settings.database_url).password,
        "the owner's": make_url(settings.owner_database_url).password,
        "Redis'": urlsplit(settings.redis_url).password,
    }
    secrets = {
        "an admin's": admin.token.split("_")[2],
        "a wrong one": admin.with_wrong_secret.split("_")[2],
        "a revoked one": gone.token.split("_")[2],
        "a new one": made.split("_")[2],
        "an unknown one": UNKNOWN.split("_")[2],
        "the first": FIRST.split("_")[2],
        "the token for metrics": METRICS_TOKEN,
        "the store's": settings.store.secret_key,
        **{name: str(password) for name, password in passwords.items()},
    }
    assert all(len(secret) >= 16 for secret in secrets.values())
    # A part of a secret would do: many cannot be read of a dozen characters.
    assert said.who_told({name: secret[:16] for name, secret in secrets.items()}) == []
