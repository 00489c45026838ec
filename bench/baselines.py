"""Two servers that show what Python can do, with the protocol stack of the API.

Both run one uvicorn process with httptools and uvloop, and read the body of each request. The
first one responds with the same body each time. It shows the CPU time of the protocol stack. The
second one parses the request, sends one statement to asyncpg, and serializes the result. It shows
the CPU time of a correct response to one fixed query, without GraphQL and without limits.

Run them with `python -m bench.baselines PORT constant BODY` and
`python -m bench.baselines PORT hand-written`.
"""

import asyncio
import sys
from collections.abc import Sequence
from typing import Any, Final, TypeAlias

import asyncpg
import orjson
import uvicorn
from asyncpg.prepared_stmt import PreparedStatement
from sqlalchemy.engine import make_url
from starlette.types import ASGIApp, Receive, Scope, Send

from segmentql.settings import load_settings

SEGMENTS_OF_USER: Final = """
SELECT ARRAY(
    SELECT s.slug FROM memberships m JOIN segments s ON s.id = m.segment_id
    WHERE m.user_id = u.id AND s.deleted_at IS NULL
      AND (m.expires_at IS NULL OR m.expires_at > now())
    ORDER BY s.slug)
FROM users u WHERE u.id = $1
"""

Statement: TypeAlias = "PreparedStatement[asyncpg.Record]"


def make_constant(body: bytes) -> ASGIApp:
    """Return an application that responds to each request with this JSON."""

    async def app(_scope: Scope, receive: Receive, send: Send) -> None:
        await _read_body(receive)
        await _send_json(send, 200, body)

    return app


async def make_hand_written(url: str, *, connections: int) -> ASGIApp:
    """Return an application that responds to the query of `OneUser`.

    Args:
        url: The URL of the database, in SQLAlchemy's form.
        connections: The number of connections to the database.
    """
    dsn = make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)
    # asyncpg's own pool would send a second statement per request, which resets the connection.
    idle: asyncio.LifoQueue[Statement] = asyncio.LifoQueue()
    for _ in range(connections):
        connection = await asyncpg.connect(dsn)
        idle.put_nowait(await connection.prepare(SEGMENTS_OF_USER))

    async def app(_scope: Scope, receive: Receive, send: Send) -> None:
        body = await _read_body(receive)
        if not body:
            await _send_json(send, 400, b"{}")
            return
        user_id = int(orjson.loads(body)["variables"]["id"])
        statement = await idle.get()
        try:
            slugs = await statement.fetchval(user_id)
        finally:
            idle.put_nowait(statement)
        user = None if slugs is None else {"segments": [{"slug": slug} for slug in slugs]}
        await _send_json(send, 200, orjson.dumps({"data": {"user": user}}))

    return app


async def _read_body(receive: Receive) -> bytes:
    message = await receive()
    body: bytes = message.get("body", b"")
    while message.get("more_body"):
        message = await receive()
        body += message.get("body", b"")
    return body


async def _send_json(send: Send, status: int, body: bytes) -> None:
    headers: list[tuple[bytes, bytes]] = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def _serve(arguments: Sequence[str]) -> None:
    port, kind, *rest = arguments
    if kind == "constant":
        app = make_constant(rest[0].encode())
    else:
        settings = load_settings()
        # The same number of connections as the service.
        app = await make_hand_written(
            settings.database_url, connections=settings.database_pool_size
        )
    options: dict[str, Any] = {
        "access_log": False,
        "http": "httptools",
        "lifespan": "off",
        "log_level": "warning",
        "proxy_headers": False,
        "server_header": False,
    }
    await uvicorn.Server(uvicorn.Config(app, port=int(port), **options)).serve()


def main(arguments: Sequence[str]) -> None:
    try:
        import uvloop  # noqa: PLC0415 - not available on every system
    except ImportError:
        asyncio.run(_serve(arguments))
    else:
        uvloop.run(_serve(arguments))


if __name__ == "__main__":
    main(sys.argv[1:])
