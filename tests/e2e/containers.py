"""Runs commands as containers would run, without an engine: namespaces of Linux instead of images.

All containers share one network namespace in which every service name is 127.0.0.1, so that ports
and host names are those of compose.yaml. Each has a root folder of its own: the programs are this
machine's, while /etc is a copy, /run and /tmp are empty, and the mounts of the service are at the
paths of its image.
"""

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from tests.compose_file import ROOT

TOOLS: Final = ("unshare", "nsenter", "setpriv", "ip")

# Holds the namespace until its input is closed.
HOLD: Final = "ip link set lo up && echo ready && cat"

# Arguments: the new root; pairs of a path and its mount point, up to "--"; the command. The folders
# of this machine cannot be written.
ENTER: Final = """
set -e
root=$1; shift
mount --bind "$root" "$root"
for path in /*; do
    case $path in
    /etc | /home | /root | /run | /tmp | /proc | /dev | /sys) continue ;;
    esac
    if [ -L "$path" ]; then
        [ -L "$root$path" ] || cp -P "$path" "$root$path"
    elif [ -d "$path" ]; then
        mkdir -p "$root$path"
        mount --bind "$path" "$root$path"
        mount -o remount,ro,bind "$root$path"
    fi
done
mkdir -p "$root/run" "$root/tmp" "$root/proc" "$root/dev"
mount -t tmpfs -o mode=1777 tmpfs "$root/tmp"
mount -t proc proc "$root/proc"
mount --rbind /dev "$root/dev"
while [ "$1" != -- ]; do
    if [ -d "$1" ]; then mkdir -p "$root$2"; else mkdir -p "$root${2%/*}"; : >>"$root$2"; fi
    mount --bind "$1" "$root$2"
    shift 2
done
shift
if [ "$READ_ONLY" = 1 ]; then mount -o remount,ro,bind "$root"; fi
exec chroot "$root" setpriv $PRIVILEGES -- "$@"
"""

# Prints the status and the body of a response, which may be an error.
FETCH: Final = """
import json, sys, urllib.error, urllib.request
url, method, headers, body = json.load(sys.stdin)
request = urllib.request.Request(url, body and body.encode(), headers, method=method)
try:
    response = urllib.request.urlopen(request, timeout=60)
except urllib.error.HTTPError as error:
    response = error
except OSError as error:
    print(json.dumps([0, {}, str(error)])); sys.exit()
text = response.read().decode()
print(json.dumps([response.status, {k.lower(): v for k, v in response.headers.items()}, text]))
"""


@dataclass(frozen=True)
class Response:
    """An HTTP response. The status is 0 if there was no connection."""

    status: int
    headers: Mapping[str, str]
    text: str

    def json(self) -> Any:
        return json.loads(self.text)


@dataclass(frozen=True)
class Container:
    """What a service is started with.

    `mounts` are pairs of a path on this machine and the path in the container. `capabilities` are
    the only ones that the process can have; None means all. `stop_seconds` is the time between the
    signal to stop and SIGKILL.
    """

    environment: Mapping[str, str]
    mounts: Sequence[tuple[Path, str]] = ()
    user: int = 0
    capabilities: Sequence[str] | None = None
    read_only: bool = False
    stop_seconds: int = 10
    search_path: Sequence[Path] = field(default=())


class Machine:
    """The network namespace, and the folders of the containers."""

    def __init__(self, folder: Path, hosts: Sequence[str]) -> None:
        self._folder = folder
        self._hosts = hosts
        self._running: dict[str, tuple[Container, asyncio.subprocess.Process]] = {}
        self._holder: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Create the network namespace."""
        self._holder = subprocess.Popen(
            ["unshare", "--net", "sh", "-c", HOLD], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert self._holder.stdout
        assert self._holder.stdout.readline() == b"ready\n"

    async def stop(self) -> None:
        """Stop the containers in the reverse order of their start, and remove the namespace."""
        for name in reversed(list(self._running)):
            await self.stop_container(name)
        if self._holder:
            self._holder.communicate()

    async def run(self, name: str, container: Container, command: Sequence[str]) -> str:
        """Run a command until it exits with 0, and return its output."""
        process = await self._launch(name, container, command)
        output = self.log(name)
        code = await process.wait()
        text = output.read_text()
        assert code == 0, f"{name}: {command} exited with {code}:\n{text[-4000:]}"
        return text

    async def start_container(
        self, name: str, container: Container, command: Sequence[str]
    ) -> None:
        self._running[name] = container, await self._launch(name, container, command)

    async def stop_container(self, name: str, stop_signal: int = signal.SIGTERM) -> int:
        """Stop a container, and return its exit code. It is killed after its time to stop."""
        container, process = self._running.pop(name)
        if process.returncode is None:
            process.send_signal(stop_signal)
        try:
            async with asyncio.timeout(container.stop_seconds):
                return await process.wait()
        except TimeoutError:
            process.kill()
            return await process.wait()

    def log(self, name: str) -> Path:
        return self._folder / f"{name}.log"

    async def is_healthy(self, name: str, container: Container, test: Sequence[str]) -> bool:
        """Return whether the health check of compose.yaml succeeds in the running container."""
        _, running = self._running[name]
        if running.returncode is not None:
            raise AssertionError(f"{name} exited:\n{self.log(name).read_text()[-4000:]}")
        kind, *words = test
        command = words if kind == "CMD" else ["sh", "-c", *words]
        process = await self._launch(f"{name}-check", container, command)
        return await process.wait() == 0

    async def fetch(
        self,
        url: str,
        *,
        method: str = "GET",
        headers: Mapping[str, str] | None = None,
        body: str | None = None,
    ) -> Response:
        """Send a request from inside the network namespace."""
        process = await asyncio.create_subprocess_exec(
            *(*self._enter_network(), sys.executable, "-c", FETCH),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        request = json.dumps([url, method, headers or {}, body])
        output, _ = await process.communicate(request.encode())
        return Response(*json.loads(output))

    def _enter_network(self) -> list[str]:
        assert self._holder
        return ["nsenter", f"--net=/proc/{self._holder.pid}/ns/net"]

    async def _launch(
        self, name: str, container: Container, command: Sequence[str]
    ) -> asyncio.subprocess.Process:
        root = self._folder / f"{name}-root"
        if not root.exists():
            root.mkdir()
            shutil.copytree("/etc", root / "etc", symlinks=True)
            (root / "etc/hosts").write_text(f"127.0.0.1 localhost {' '.join(self._hosts)}\n")
        # The programs and this repository, which may be in a folder that is empty in the container.
        needed = {ROOT, Path(sys.prefix), Path(sys.base_prefix)}
        mounts = [(path, str(path)) for path in sorted(needed)] + list(container.mounts)
        search = [str(Path(sys.prefix) / "bin"), *map(str, container.search_path)]
        with self.log(name).open("wb") as log:
            return await asyncio.create_subprocess_exec(
                *(*self._enter_network(), "unshare", "--mount", "sh", "-c", ENTER, "sh", str(root)),
                *(str(part) for mount in mounts for part in mount),
                *("--", *command),
                cwd="/",
                env={
                    "PATH": os.pathsep.join([*search, "/usr/local/bin", "/usr/bin", "/usr/sbin"]),
                    "PYTHONPATH": str(ROOT / "src"),
                    "PYTHONDONTWRITEBYTECODE": "1",
                    "PRIVILEGES": _privileges(container),
                    "READ_ONLY": str(int(container.read_only)),
                    **container.environment,
                },
                stdout=log,
                stderr=subprocess.STDOUT,
            )


def _privileges(container: Container) -> str:
    """Return the options of setpriv for the user and the capabilities."""
    options = ["--no-new-privs"]
    if container.capabilities is not None:
        kept = ",".join(f"+{name.lower()}" for name in container.capabilities)
        dropped = ",".join(filter(None, ("-all", kept)))
        options += [f"--bounding-set={dropped}", f"--inh-caps={dropped}"]
    if container.user:
        options += [
            f"--reuid={container.user}",
            f"--regid={container.user}",
            "--clear-groups",
        ]
    return " ".join(options)
