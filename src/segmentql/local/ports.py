"""Ports of this machine."""

import secrets
import socket

# Below the range that Linux and macOS take the near ends of connections from. A port inside it can
# be lost while its server restarts: a client that keeps dialling a closed port of that range is
# given the same number for its own end sooner or later, and then is connected to itself.
SERVER_PORTS = range(20_000, 32_768)
ATTEMPTS = 100


_given: set[int] = set()


def free_port(ports: range = SERVER_PORTS) -> int:
    """A port on 127.0.0.1 that nothing listens on now, and that this gave to nobody before."""
    for _ in range(ATTEMPTS):
        port = secrets.choice(ports)
        if port not in _given and is_free("127.0.0.1", port):
            _given.add(port)
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
