"""Sends one request to a server on this machine.

The requests do not use redis-py, because its asyncio client swallows a cancellation while it
connects (8.1, measured): a stop during the start would then have no effect.
"""

import asyncio
import ssl

TIMEOUT_SECONDS = 5


async def send_request(host: str, port: int, request: bytes, *, lines: int) -> list[bytes]:
    """Send a request and return the first lines of the response, or none if there is no response.

    Args:
        host: The host name or address.
        port: The port.
        request: The bytes to send.
        lines: The number of lines to read.
    """
    try:
        async with asyncio.timeout(TIMEOUT_SECONDS):
            reader, writer = await asyncio.open_connection(host, port)
            try:
                writer.write(request)
                return [await reader.readline() for _ in range(lines)]
            finally:
                writer.close()
    except (OSError, TimeoutError):
        return []


async def http_get(
    host: str, port: int, path: str, *, tls: ssl.SSLContext | None = None
) -> tuple[int, bytes]:
    """Return the status and body of an HTTP response; the status is 0 if there is no response."""
    request = f"GET {path} HTTP/1.0\r\nHost: {host}:{port}\r\n\r\n"
    try:
        async with asyncio.timeout(TIMEOUT_SECONDS):
            reader, writer = await asyncio.open_connection(host, port, ssl=tls)
            try:
                writer.write(request.encode())
                head, _, body = (await reader.read()).partition(b"\r\n\r\n")
            finally:
                writer.close()
        return int(head.split()[1]), body
    except (OSError, TimeoutError, ValueError, IndexError):
        return 0, b""
