"""Ask a server on this machine one thing.

By hand, not with redis-py: its asyncio client swallows a cancellation while it connects (8.1,
measured), and then a stop during the start would not stop.
"""

import asyncio
import ssl

ANSWER_SECONDS = 5


async def ask(host: str, port: int, question: bytes, *, lines: int) -> list[bytes]:
    """The first lines of the answer; none where nobody answers."""
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            reader, writer = await asyncio.open_connection(host, port)
            try:
                writer.write(question)
                return [await reader.readline() for _ in range(lines)]
            finally:
                writer.close()
    except (OSError, TimeoutError):
        return []


async def get(
    host: str, port: int, path: str, *, tls: ssl.SSLContext | None = None
) -> tuple[int, bytes]:
    """The status and body of a page; 0 where nobody answers HTTP."""
    question = f"GET {path} HTTP/1.0\r\nHost: {host}:{port}\r\n\r\n"
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            reader, writer = await asyncio.open_connection(host, port, ssl=tls)
            try:
                writer.write(question.encode())
                head, _, body = (await reader.read()).partition(b"\r\n\r\n")
            finally:
                writer.close()
        return int(head.split()[1]), body
    except (OSError, TimeoutError, ValueError, IndexError):
        return 0, b""
