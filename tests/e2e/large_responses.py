"""Requests responses at the size limit:

`python -m tests.e2e.large_responses PORT CALLERS`. Half of the callers read their responses, the
others do not. The process ends at the end of its input, and prints the sizes of the smallest and
the largest response.
"""

import asyncio
import json
import os
import sys

ALIASES = " ".join(f"a{number:02}{'x' * 252}: id" for number in range(58))
QUERY = f"query($ids: [ID!]!) {{ usersById(ids: $ids) {{ {ALIASES} }} }}"
"""About 15.5 MB of the 16 MiB that a response may have, for 1,000 users."""

BODY = json.dumps({"query": QUERY, "variables": {"ids": list(range(1, 1001))}}).encode()
REQUEST = (
    b"POST /graphql HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    b"Connection: close\r\nContent-Length: %d\r\n\r\n" % len(BODY)
) + BODY


async def ask(port: int, sizes: list[int], *, reads: bool) -> None:
    """Send requests in a loop; without `reads` leave each response unread."""
    while True:
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=4096)
        try:
            writer.write(REQUEST)
            if not reads:
                await asyncio.sleep(3600)
            size = 0
            while chunk := await reader.read(1 << 20):
                size += len(chunk)
            sizes.append(size)
        except ConnectionError:
            await asyncio.sleep(0.1)
        finally:
            writer.close()


async def main(port: int, callers: int) -> None:
    sizes: list[int] = []
    tasks = [
        asyncio.create_task(ask(port, sizes, reads=number % 2 == 0)) for number in range(callers)
    ]
    await asyncio.to_thread(sys.stdin.read)
    print(min(sizes, default=0), max(sizes, default=0), flush=True)  # noqa: T201 - its output
    # Exit at once, because a response that is not read keeps its connection from closing.
    os._exit(len(tasks) - callers)


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), int(sys.argv[2])))
