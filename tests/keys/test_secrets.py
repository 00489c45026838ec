"""Processes print no secret in any kind of failure."""

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

FIRST_KEY = "sgql_firstfirst12_" + "1f" * 32
METRICS_TOKEN = "the-token-of-prometheus"
FIELDS = "{ apiKeys { nodes { id name } } history { nodes { actor } } viewer { name } }"


class CapturedOutput:
    """The collected outputs, by their source."""

    def __init__(self) -> None:
        self.texts: dict[str, str] = {}

    def add(self, source: str, text: str) -> None:
        self.texts[source] = self.texts.get(source, "") + text

    def leaks(self, secrets: dict[str, str]) -> list[tuple[str, str]]:
        return [
            (source, name)
            for source, text in self.texts.items()
            for name, secret in secrets.items()
            if secret in text
        ]


async def run_command(
    captured: CapturedOutput, settings: Settings, folder: Path, *arguments: str, **changes: str
) -> int:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "segmentql", *arguments),
        cwd=folder,
        env=environment(settings, **changes),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    captured.add(f"{' '.join(arguments[:2])} {sorted(changes)}", output.decode())
    assert process.returncode is not None
    return process.returncode


@asynccontextmanager
async def served(
    captured: CapturedOutput, settings: Settings, folder: Path, **changes: str
) -> AsyncIterator[httpx.AsyncClient]:
    """Run `segmentql serve` in a process of its own and collect its whole log at the end."""
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

            async def responds() -> bool:
                try:
                    return (await client.get("/healthz")).status_code == 200
                except httpx.TransportError:
                    return False

            await until(responds)
            yield client
    finally:
        process.terminate()
        await process.wait()
        captured.add("serve", log.read_text())


async def test_no_failure_prints_a_secret(
    auth_settings: Settings, database: Database, storage: Storage, sql: Sql, tmp_path: Path
) -> None:
    captured = CapturedOutput()
    admin, revoked_key = [await make_key(database, "ADMIN", "root") for _ in range(2)]
    await revoke(database, revoked_key)
    settings = auth_settings.model_copy(
        update={"first_key": FIRST_KEY, "metrics_token": METRICS_TOKEN}
    )

    async with NetworkLink(auth_settings.database_url).open() as link:
        cut_settings = settings.model_copy(update={"database_url": link.url})
        async with served(captured, cut_settings, tmp_path, SEGMENTQL_LOG_LEVEL="debug") as client:

            async def ask(token: str, query: str, **variables: object) -> httpx.Response:
                response = await client.post(
                    "/graphql",
                    json={"query": query, "variables": variables},
                    headers={"authorization": bearer(token)},
                )
                captured.add("answers", response.text)
                return response

            assert (await ask(admin.token, FIELDS)).status_code == 200
            for token in (UNKNOWN, admin.with_wrong_secret, revoked_key.token, admin.token + "0"):
                assert (await ask(token, FIELDS)).status_code == 401
            new_token = (
                await client.post(
                    "/graphql",
                    json={
                        "query": CREATE_KEY,
                        "variables": {"input": {"name": "eve", "role": "READER"}},
                    },
                    headers={"authorization": bearer(admin.token)},
                )
            ).json()["data"]["createApiKey"]["token"]
            # The token is sent instead of the id.
            await ask(admin.token, REVOKE_KEY, input={"id": new_token})
            await sql.execute("ALTER TABLE history RENAME TO lost")
            fault = await ask(admin.token, "{ history { nodes { actor } } }")
            await sql.execute("ALTER TABLE lost RENAME TO history")
            assert fault.json()["errors"][0]["extensions"]["code"] == "INTERNAL"
            await sql.execute("ALTER TABLE api_keys RENAME TO lost")
            assert (await ask(FIRST_KEY, FIELDS)).status_code == 500
            await sql.execute("ALTER TABLE lost RENAME TO api_keys")
            for authorization in (METRICS_TOKEN + "x", METRICS_TOKEN):
                response = await client.get("/metrics", headers={"authorization": authorization})
                captured.add("metrics", response.text)
            link.cut()

            async def unavailable() -> bool:
                return (await ask(admin.token, FIELDS)).status_code == 503

            await until(unavailable)
            captured.add("probes", (await client.get("/readyz")).text)

        assert await run_command(captured, settings, tmp_path, "doctor") == 0
        assert await run_command(captured, cut_settings, tmp_path, "doctor") == 1
        assert await run_command(captured, cut_settings, tmp_path, "keys", "list") == 1
        assert await run_command(captured, cut_settings, tmp_path, "keys", "ensure-first") == 1
    assert await run_command(captured, settings, tmp_path, "keys", "ensure-first") == 0
    assert await run_command(captured, settings, tmp_path, "keys", "revoke", admin.token) == 2
    assert await run_command(captured, settings, tmp_path, "keys", "list") == 0
    for name, value in (
        ("FIRST_KEY", FIRST_KEY + "0"),
        ("METRICS_TOKEN", METRICS_TOKEN + " \u00fc"),
        ("AUTH", FIRST_KEY),
    ):
        wrong = {f"SEGMENTQL_{name}": value}
        assert await run_command(captured, settings, tmp_path, "serve", **wrong) == 1
    assert "Traceback" in captured.texts["serve"]  # the log has the faults in full
    assert "DEBUG" in captured.texts["serve"] or '"debug"' in captured.texts["serve"]

    passwords = {
        "the database's": make_url(settings.database_url).password,
        "the owner's": make_url(settings.owner_database_url).password,
        "Redis'": urlsplit(settings.redis_url).password,
    }
    secrets = {
        "an admin's": admin.token.split("_")[2],
        "a wrong one": admin.with_wrong_secret.split("_")[2],
        "a revoked one": revoked_key.token.split("_")[2],
        "a new one": new_token.split("_")[2],
        "an unknown one": UNKNOWN.split("_")[2],
        "the first": FIRST_KEY.split("_")[2],
        "the token for metrics": METRICS_TOKEN,
        "the store's": settings.store.secret_key,
        **{name: str(password) for name, password in passwords.items()},
    }
    assert all(len(secret) >= 16 for secret in secrets.values())
    # The search is for a part of each secret, because a part in an output is a leak too.
    assert captured.leaks({name: secret[:16] for name, secret in secrets.items()}) == []
