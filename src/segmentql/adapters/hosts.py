"""Connects to the first usable host of a URL with several hosts.

asyncpg itself tries the hosts in order and in one time limit. If the first host accepts no packets
or is suspended, as after the failure of a machine, it would use up this time, so that the second
host is never tried. Here each host has its share of the time, and the last usable host is first.
"""

import asyncio
from collections.abc import Sequence
from typing import Any, Final, TypeAlias

import asyncpg

Hosts: TypeAlias = tuple[tuple[str, int], ...]

_NEXT_HOST_ERRORS: Final = (
    OSError,
    TimeoutError,
    asyncpg.CannotConnectNowError,
    asyncpg.ConnectionDoesNotExistError,
    asyncpg.TargetServerAttributeNotMatched,
)

_last_usable: dict[tuple[Hosts, str | None], tuple[str, int]] = {}


async def connect_to_usable_host(
    *,
    host: Sequence[str],
    port: Sequence[int],
    timeout: float,  # noqa: ASYNC109 - the name of the argument of asyncpg
    target_session_attrs: Any = None,
    **arguments: Any,
) -> Any:
    """Return a connection of asyncpg to the first host that can be used.

    Args:
        host: The hosts.
        port: Their ports.
        timeout: The seconds for all hosts together.
        target_session_attrs: The required role of the server, as in a URL.
        arguments: More arguments of `asyncpg.connect`.

    Raises:
        OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError: The error of the
            last host, or the first one that is not about the host, such as a wrong password.
    """
    hosts: Hosts = tuple(zip(host, port, strict=True))
    key = (hosts, target_session_attrs)
    first = _last_usable.get(key)
    error: BaseException | None = None
    for address in sorted(hosts, key=lambda address: address != first):
        try:
            async with asyncio.timeout(timeout / len(hosts)):
                connection = await asyncpg.connect(
                    host=address[0],
                    port=address[1],
                    target_session_attrs=target_session_attrs,
                    timeout=timeout,
                    **arguments,
                )
        except _NEXT_HOST_ERRORS as failure:
            error = failure
            continue
        _last_usable[key] = address
        return connection
    raise error or ValueError("there is no host")
