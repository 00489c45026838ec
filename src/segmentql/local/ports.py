"""Ports of this machine, and those that the servers of a data folder keep between runs."""

import json
import secrets
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from segmentql.local.data_dir import write_private

# Below the range that Linux and macOS take the near ends of connections from. A port inside it can
# be lost while its server restarts: a client that keeps dialling a closed port of that range is
# given the same number for its own end sooner or later, and then is connected to itself.
SERVER_PORTS = range(20_000, 32_768)
ATTEMPTS = 100


_given: set[int] = set()


def free_port(ports: range = SERVER_PORTS, *, offset: int = 0) -> int:
    """Choose a port on 127.0.0.1 that nothing listens on and that this process did not choose yet.

    Args:
        ports: The range to choose from.
        offset: If not 0, the port that is `offset` above the chosen one is free as well.
    """
    for _ in range(ATTEMPTS):
        port = secrets.choice(ports)
        both = {port, port + offset}
        if not both & _given and all(is_free("127.0.0.1", each) for each in both):
            _given.update(both)
            return port
    raise OSError(f"no free port in {ports}")


def is_free(host: str, port: int) -> bool:
    """Whether a server could listen there now."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        # As servers do: connections that linger after the last one do not count.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


@dataclass(frozen=True)
class Replaced:
    """A server's port that another program uses, and the port that the server takes instead."""

    server: str
    taken: int
    port: int


class ServerPorts:
    """The ports of a data folder's servers, by server and purpose; a file keeps them.

    `port` returns a kept port unchecked, because a server of a killed run may still use it. After
    such servers are stopped, `replace_taken` chooses other ports for those in use.
    """

    def __init__(self, file: Path | None) -> None:
        """Read the kept ports.

        Args:
            file: Where the ports are kept. If None, they are not kept.
        """
        self._file = file
        self._kept = _read(file) if file else {}
        self._asked: dict[tuple[str, str], tuple[range, int]] = {}

    def port(
        self, server: str, purpose: str = "", *, ports: range = SERVER_PORTS, offset: int = 0
    ) -> int:
        """Return the kept port, or choose one; `ports` and `offset` are those of `free_port`."""
        name = f"{server} {purpose}".strip()
        self._asked[server, purpose] = (ports, offset)
        if (port := self._kept.get(name)) is None or port not in ports:
            port = self._kept[name] = free_port(ports, offset=offset)
        _given.update({port, port + offset})
        return port

    def replace_taken(self) -> list[Replaced]:
        """Choose other ports for those that another program uses; `port` returns them from now."""
        replaced = []
        for (server, purpose), (ports, offset) in self._asked.items():
            name = f"{server} {purpose}".strip()
            taken = [
                port
                for port in dict.fromkeys((self._kept[name], self._kept[name] + offset))
                if not is_free("127.0.0.1", port)
            ]
            if taken:
                self._kept[name] = free_port(ports, offset=offset)
                replaced.append(Replaced(name, taken[0], self._kept[name]))
        return replaced

    def save(self) -> None:
        """Keep the ports for the next run."""
        if self._file and self._kept != _read(self._file):
            write_private(self._file, json.dumps(self._kept, indent=2) + "\n")


def _read(file: Path) -> dict[str, int]:
    """The ports in a file; none if it is missing or was damaged by hand."""
    try:
        kept = json.loads(file.read_text())
    except (FileNotFoundError, ValueError):
        return {}
    if not isinstance(kept, Mapping):
        return {}
    return {name: port for name, port in kept.items() if type(port) is int}
