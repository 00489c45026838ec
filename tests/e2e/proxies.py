"""nginx and Caddy with the files of docs/operations/proxy, and the API processes behind them."""

import asyncio
import os
import shutil
import ssl
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, TypeAlias

import httpx
import pytest

from segmentql.local.certificates import make_certificate
from segmentql.local.ports import free_port
from segmentql.settings import Settings
from tests.conftest import environment, until
from tests.e2e.up import READY_SECONDS

FILES: Final = Path(__file__).parents[2] / "docs" / "operations" / "proxy"
PAGE: Final = FILES.parent / "reverse-proxy.md"

ROOT_PATH: Final = "/segmentql"

ProxyName: TypeAlias = Literal["nginx", "caddy"]

PACKAGES: Final[Mapping[ProxyName, str]] = {"nginx": "nginx-light", "caddy": "caddy"}

NGINX_MAIN: Final = """
daemon off;
worker_processes 1;
error_log stderr notice;
pid {folder}/nginx.pid;
{user}
events {{ worker_connections 1024; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    include {folder}/segmentql.conf;
}}
"""

CADDY_OPTIONS: Final = "{\n\tadmin off\n\tauto_https disable_redirects\n}\n"


class ApiProcess:
    """A `segmentql serve` on a port of its own, which a test can restart."""

    def __init__(self, settings: Settings, log: Path, **changes: str) -> None:
        self.port = free_port()
        self._environment = environment(settings, **changes)
        self._log = log
        self._process: asyncio.subprocess.Process | None = None

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    async def start(self) -> None:
        with self._log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "segmentql", "serve", "--port", str(self.port)),
                env=self._environment,
                stderr=log,
            )
        await until(self._is_ready, seconds=READY_SECONDS)

    async def _is_ready(self) -> bool:
        assert self._process is not None
        assert self._process.returncode is None, self._log.read_text()[-2000:]
        return await _responds(f"http://127.0.0.1:{self.port}/readyz")

    async def stop(self) -> None:
        if self._process is not None:
            with suppress(ProcessLookupError):  # a failed start
                self._process.terminate()
            await self._process.wait()
            self._process = None


@dataclass(frozen=True)
class Proxy:
    """A running proxy."""

    name: ProxyName
    port: int
    plain_port: int
    folder: Path

    @property
    def url(self) -> str:
        return f"https://localhost:{self.port}"

    @property
    def log(self) -> str:
        return (self.folder / "segmentql.log").read_text()

    def tls(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=self.folder / "fullchain.pem")

    def client(self, token: str | None = None) -> httpx.AsyncClient:
        """Return a client that sends an API key, if there is one."""
        headers = {"authorization": f"Bearer {token}"} if token else {}
        return httpx.AsyncClient(
            base_url=self.url, verify=self.tls(), headers=headers, timeout=30, trust_env=False
        )


def skip_if_missing(name: ProxyName) -> str:
    """Return the path of the program; skip the test if this machine does not have it."""
    program = shutil.which(name) or shutil.which(name, path="/usr/sbin")
    if program is None:
        pytest.skip(f"no {name} on PATH: apt-get install {PACKAGES[name]}")
    return program


@asynccontextmanager
async def running_proxy(
    name: ProxyName,
    folder: Path,
    apis: Sequence[str],
    *changes: tuple[str, str],
    ready_path: str = "/readyz",
) -> AsyncIterator[Proxy]:
    """Run a proxy with its file, in which only addresses, folders and `changes` are replaced.

    Args:
        name: The proxy.
        folder: An empty folder for its files.
        apis: The addresses of the API processes, at least two.
        changes: Texts of the file with their replacements.
        ready_path: The path that responds with 200 when the proxy and the API are ready.
    """
    program = skip_if_missing(name)
    proxy = Proxy(name, free_port(), free_port(), folder)
    certificate = make_certificate()
    (folder / "fullchain.pem").write_text(certificate.certificate)
    (folder / "privkey.pem").write_text(certificate.key)
    command = _nginx(proxy) if name == "nginx" else _caddy(proxy)
    file = folder / ("segmentql.conf" if name == "nginx" else "Caddyfile")
    between = " max_fails=0;\n    server " if name == "nginx" else " "
    shared = [("127.0.0.1:8080", apis[0]), ("127.0.0.1:8081", between.join(apis[1:]))]
    folders = [("/etc/ssl/segmentql", str(folder)), (f"/var/log/{name}", str(folder))]
    file.write_text(_replaced(file.read_text(), [*changes, *folders, *shared]))
    with (folder / "program.log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            program, *command, stdout=log, stderr=log, env={**os.environ, "HOME": str(folder)}
        )

    async def responds() -> bool:
        assert process.returncode is None, (folder / "program.log").read_text()
        return await _responds(proxy.url + ready_path, proxy.tls())

    try:
        try:
            await until(responds, seconds=READY_SECONDS)
        except TimeoutError:
            pytest.fail((folder / "program.log").read_text()[-4000:])
        yield proxy
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


def _nginx(proxy: Proxy) -> list[str]:
    changes = [
        ("listen 443", f"listen 127.0.0.1:{proxy.port}"),
        ("listen 80;", f"listen 127.0.0.1:{proxy.plain_port};"),
        ("server_name segmentql.example.com;", "server_name localhost;"),
    ]
    text = _replaced((FILES / "nginx.conf").read_text(), changes)
    (proxy.folder / "segmentql.conf").write_text(text)
    user = "user root;" if os.geteuid() == 0 else ""
    main = proxy.folder / "nginx.conf"
    main.write_text(NGINX_MAIN.format(folder=proxy.folder, user=user))
    return ["-c", str(main), "-p", str(proxy.folder), "-e", "stderr"]


def _caddy(proxy: Proxy) -> list[str]:
    changes = [("segmentql.example.com {", f"{proxy.url} {{\n\tbind 127.0.0.1")]
    text = _replaced((FILES / "Caddyfile").read_text(), changes)
    file = proxy.folder / "Caddyfile"
    file.write_text(CADDY_OPTIONS + text)
    return ["run", "--config", str(file), "--adapter", "caddyfile"]


def _replaced(text: str, changes: list[tuple[str, str]]) -> str:
    for old, new in changes:
        assert old in text, old
        text = text.replace(old, new)
    return text


def documented_changes(proxy: ProxyName, *, is_path_kept: bool) -> list[tuple[str, str]]:
    """Return the changes of a proxy's file for a root path, as the documentation shows them.

    Each part of its diff is a text of the file with the text that replaces it.
    """
    heading = f"### The proxy {'keeps' if is_path_kept else 'removes'} the path\n"
    section = PAGE.read_text().partition(heading)[2].partition("\n#")[0]
    diff = section.partition(f"```diff {proxy}\n")[2].partition("```")[0]
    assert diff, (proxy, heading)
    return [
        (_side(part.splitlines(), " -"), _side(part.splitlines(), " +"))
        for part in diff.split("@@\n")
    ]


def _side(lines: list[str], marks: str) -> str:
    return "\n".join(line[1:] for line in lines if line[0] in marks)


async def _responds(url: str, tls: ssl.SSLContext | None = None) -> bool:
    async with httpx.AsyncClient(verify=tls or False, trust_env=False) as client:
        try:
            return (await client.get(url)).status_code == 200
        except httpx.TransportError:
            return False
