"""Redis clients for a validated URL: Redis over TCP, TLS or a socket, or found by Sentinels.

With Sentinels, each new connection asks them for the master. A connection breaks at a failover,
because the old master is down, or because Sentinel closes its connections when it makes it a
replica. So the usual handling of a broken connection is enough.
"""

from copy import copy
from typing import Any

from redis import Redis
from redis.sentinel import Sentinel, SentinelConnectionPool

from segmentql.redis_url import RedisTarget, parse_redis_url


def redis_client(url: str, *, seconds: float) -> Redis:
    """Return a client that connects at its first command, and does not repeat commands.

    Args:
        url: the URL in the form that the settings accept.
        seconds: the timeout of a connection attempt and of a command. Each Sentinel that does not
            respond takes as long.
    """
    target = parse_redis_url(url)
    options: dict[str, Any] = {
        "db": target.database,
        "username": target.username,
        "password": target.password,
        **_connection_options(target, seconds),
    }
    if target.master_name is not None:
        sentinels = _Sentinels(  # type: ignore[no-untyped-call]
            target.hosts,
            sentinel_kwargs={
                "username": target.sentinel_username,
                "password": target.sentinel_password,
                **_connection_options(target, seconds),
            },
        )
        return Redis.from_pool(
            _SentinelConnectionPool(target.master_name, sentinels, **options)  # type: ignore[no-untyped-call]
        )
    if target.socket_path is not None:
        return Redis(unix_socket_path=target.socket_path, **options)
    ((host, port),) = target.hosts
    return Redis(host=host, port=port, **options)


def _connection_options(target: RedisTarget, seconds: float) -> dict[str, Any]:
    return {
        "socket_timeout": seconds,
        "socket_connect_timeout": seconds,
        "retry": None,
        **({"ssl": True, **target.tls} if target.is_tls else {}),
    }


class _Sentinels(Sentinel):
    def discover_master(self, service_name: str) -> tuple[str, int]:
        # redis-py moves the Sentinel that responds to the front of its list. If two threads do so
        # at the same time, the list can lose a Sentinel. Here each thread has a list of its own.
        own = copy(self)
        own.sentinels = list(self.sentinels)
        address: tuple[str, int] = Sentinel.discover_master(own, service_name)  # type: ignore[no-untyped-call]
        self.sentinels = own.sentinels
        return address


class _SentinelConnectionPool(SentinelConnectionPool):
    def disconnect(self, inuse_connections: bool = True) -> None:  # noqa: FBT001, FBT002
        super().disconnect(inuse_connections)
        if inuse_connections:  # the client is being closed
            self.sentinel_manager.close()
