"""Free ports of this machine, and the ports that the servers of a data folder keep between runs."""

import json
import secrets
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from segmentql.local.data_dir import write_private

SERVER_PORTS = range(20_000, 32_768)
"""The ports for servers, below the range of client ports of Linux and macOS. A server may lose a
port of that range while it restarts: a client that repeatedly connects to a closed port is
eventually given the same port as its own, and connects to itself."""
MAX_ATTEMPTS = 100


_reserved: set[int] = set()


def free_port(ports: range = SERVER_PORTS, *, offset: int = 0) -> int:
    """Reserve a free port on 127.0.0.1 in this process, and return it.

    Args:
        ports: The range to choose from.
        offset: If not 0, the port that is `offset` above the chosen one is free as well.

    Raises:
        OSError: No free port was found.
    """
    for _ in range(MAX_ATTEMPTS):
        port = secrets.choice(ports)
        candidates = {port, port + offset}
        if not candidates & _reserved and all(
            is_free("127.0.0.1", candidate) for candidate in candidates
        ):
            _reserved.update(candidates)
            return port
    raise OSError(f"no free port in {ports}")


def is_free(host: str, port: int) -> bool:
    """Return whether a server can listen on the port now."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        # Servers set this option too: connections in TIME_WAIT do not occupy the port.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


@dataclass(frozen=True)
class PortReplacement:
    """The replacement of a server's port that another program uses."""

    server: str
    used_port: int
    new_port: int


class ServerPorts:
    """The ports of a data folder's servers, by server and purpose, stored in a file.

    `port` returns a stored port unchecked, because a server of a killed run may still use it. After
    such servers are stopped, `replace_used` chooses other ports for those in use.
    """

    def __init__(self, file: Path | None) -> None:
        """Read the stored ports.

        Args:
            file: The file with the ports. If None, they are not stored.
        """
        self._file = file
        self._ports = _read(file) if file else {}
        self._requirements: dict[str, tuple[range, int]] = {}

    def port(
        self, server: str, purpose: str = "", *, ports: range = SERVER_PORTS, offset: int = 0
    ) -> int:
        """Return the stored port, or choose one; `ports` and `offset` are those of `free_port`."""
        name = f"{server} {purpose}".strip()
        self._requirements[name] = (ports, offset)
        if (port := self._ports.get(name)) is None or port not in ports:
            port = self._ports[name] = free_port(ports, offset=offset)
        _reserved.update({port, port + offset})
        return port

    def replace_used(self) -> list[PortReplacement]:
        """Replace the ports that another program uses; `port` returns the new ones from now on."""
        replacements = []
        for name, (ports, offset) in self._requirements.items():
            used = [
                port
                for port in dict.fromkeys((self._ports[name], self._ports[name] + offset))
                if not is_free("127.0.0.1", port)
            ]
            if used:
                self._ports[name] = free_port(ports, offset=offset)
                replacements.append(PortReplacement(name, used[0], self._ports[name]))
        return replacements

    def save(self) -> None:
        """Store the ports for the next run."""
        if self._file and self._ports != _read(self._file):
            write_private(self._file, json.dumps(self._ports, indent=2) + "\n")


def _read(file: Path) -> dict[str, int]:
    """Return the ports in a file, or none if the file is missing or damaged."""
    try:
        ports = json.loads(file.read_text())
    except (FileNotFoundError, ValueError):
        return {}
    if not isinstance(ports, Mapping):
        return {}
    return {name: port for name, port in ports.items() if type(port) is int}
