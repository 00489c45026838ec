"""The HTTP protocol of uvicorn, with limits on connections, request heads and waiting times.

uvicorn limits neither the time nor the size of a request head, nor the number of connections, and
it appends the trailers of a chunked body to the headers. `LimitedProtocol` adds these limits and
responds with 400, 408, 431 and 503 in the form of a GraphQL error. Streamed responses work as
in uvicorn: deadlines apply only while a head or an unread body is incomplete and between requests,
and never while a response is in progress. `websocket_protocol.py` has upgraded connections.
"""

import asyncio
import contextlib
from enum import Enum, auto
from functools import partial
from typing import Any, Final, cast
from urllib.parse import unquote

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from segmentql.adapters.http_connections import MAX_PIPELINED_REQUESTS, CloseReason, ConnectionTable
from segmentql.adapters.http_cycle import RequestCycle, closing_error

MAX_HEAD_BYTES: Final = 65_536
"""The maximum size of a request head with its URL, and of the trailers of a chunked body."""


class _Stage(Enum):
    """The part of a request that the parser expects next."""

    START = auto()
    HEAD = auto()
    BODY = auto()


class _HeadTooLarge(Exception):
    """The head of a request is larger than `MAX_HEAD_BYTES`."""


class _PipelineFull(Exception):
    """More than `MAX_PIPELINED_REQUESTS` requests wait for the responses before."""


def limited_protocol(table: ConnectionTable) -> type[asyncio.Protocol]:
    """Return a protocol factory for `uvicorn.Config(http=...)` that can be pickled."""
    return cast("type[asyncio.Protocol]", partial(LimitedProtocol, table=table))


class LimitedProtocol(HttpToolsProtocol):
    """An HTTP connection."""

    def __init__(self, *args: Any, table: ConnectionTable, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._table = table
        self._stage = _Stage.START
        self._is_rejected = False
        """Whether the connection accepts no more data. Its last response may still be sent."""
        self._head_bytes = 0
        """An upper bound of the size of the current head."""
        self._foreign_bytes = 0
        """The part of `_head_bytes` that may belong to an earlier request."""
        self._trailer_bytes = 0
        """The bytes since the last piece of the body."""
        self._heads_started = 0
        self._has_body = False
        self.peer = ""

    # Called by asyncio

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.peer = self.client[0] if self.client else ""
        if not self._table.admit(self, connected=len(self.connections)):
            self._reject(
                503,
                CloseReason.FULL,
                f"This process already has its maximum of {self._table.limit} connections.",
                {"code": "UNAVAILABLE", "limit": self._table.limit},
            )

    def connection_lost(self, exc: Exception | None) -> None:
        self._table.forget(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._is_rejected:
            return
        before = self._stage
        size = len(data)
        self._head_bytes = self._head_bytes + size if before is _Stage.HEAD else size
        self._heads_started = 0
        self._has_body = False
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            if self._should_upgrade():
                self.handle_websocket_upgrade()
        except httptools.HttpParserError as error:
            if isinstance(error.__context__, _HeadTooLarge):
                self._reject_head()
            elif isinstance(error.__context__, _PipelineFull):
                self._close_after_pipeline()
            else:
                self._reject(400, CloseReason.MALFORMED, "The request is not valid HTTP/1.1.")
        else:
            if self._stage is _Stage.HEAD:
                self._check_head(before, size)
            elif self._stage is before is _Stage.BODY:
                self._check_trailers(size)

    # Called by the parser

    def on_message_begin(self) -> None:
        self._stage = _Stage.HEAD
        self._heads_started += 1
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        self._stage = _Stage.BODY
        if self._head_bytes > MAX_HEAD_BYTES:
            exact = len(self.url) + sum(len(name) + len(value) for name, value in self.headers)
            if exact > MAX_HEAD_BYTES:
                raise _HeadTooLarge
        self._head_bytes = self._trailer_bytes = 0
        self._table.clear_deadline(self)
        self._begin_request()
        # uvicorn appends trailers to its list. The application keeps the copy.
        self.headers = self.headers.copy()

    def _begin_request(self) -> None:
        """Start the application, as uvicorn's `on_headers_complete` does, with a `RequestCycle`."""
        parser, scope = self.parser, self.scope
        http_version = parser.get_http_version()
        scope["method"] = parser.get_method().decode("ascii")
        if http_version != "1.1":
            scope["http_version"] = http_version
        if parser.should_upgrade() and self._should_upgrade():
            return
        url = httptools.parse_url(self.url)
        path = url.path.decode("ascii")
        scope["path"] = self.root_path + (unquote(path) if "%" in path else path)
        scope["raw_path"] = self.root_path.encode("ascii") + url.path
        scope["query_string"] = url.query or b""
        previous = self.cycle
        if len(self.pipeline) >= MAX_PIPELINED_REQUESTS:
            raise _PipelineFull
        self.cycle = RequestCycle(
            scope=scope,
            transport=self.transport,
            flow=self.flow,
            logger=self.logger,
            access_logger=self.access_logger,
            access_log=self.access_log,
            default_headers=self.server_state.default_headers,
            message_event=asyncio.Event(),
            expect_100_continue=self.expect_100_continue,
            keep_alive=http_version != "1.0"
            and parser.should_keep_alive()
            and not self._table.is_draining,
            on_response=self.on_response_complete,
        )
        if previous is None or previous.response_complete:
            self._start_asgi_task(self.cycle, self.app)
        else:  # a pipelined request waits for the responses before
            self.flow.pause_reading()
            self.pipeline.appendleft((self.cycle, self.app))

    def _close_after_pipeline(self) -> None:
        """Accept no more requests, and close the connection after the response to the last one."""
        self._is_rejected = True
        self._table.record_closed(CloseReason.PIPELINE_FULL, self.peer)
        self._table.clear_deadline(self)
        self.cycle.keep_alive = False

    def on_body(self, body: bytes) -> None:
        self._has_body = True
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._stage = _Stage.START
        super().on_message_complete()
        if self.cycle is not None and self.cycle.response_complete:
            self._table.set_idle(self)

    # Called by uvicorn's request cycle and server

    def on_response_complete(self) -> None:
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        self.flow.resume_reading()
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())
        elif self._stage is _Stage.START:
            self._table.set_idle(self)
        else:
            self._table.await_input(self)

    def shutdown(self) -> None:
        if not self.close_after_response():
            self._table.close_when_idle(self)

    def close_after_response(self) -> bool:
        """Close after the response in progress, if there is one; return whether there is one."""
        if self.is_responding():
            self.cycle.keep_alive = False
        return self.is_responding()

    def _should_upgrade(self) -> bool:
        # Another response may be in progress, if the client did not wait for it.
        return not self.is_responding() and super()._should_upgrade()

    def handle_websocket_upgrade(self) -> None:
        self._table.forget(self)
        super().handle_websocket_upgrade()

    # Called by the connection table

    def is_responding(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def expire(self) -> None:
        if self._stage is _Stage.HEAD:
            self._reject(
                408,
                CloseReason.HEAD_TIMEOUT,
                f"The request's head took longer than {self._table.head_seconds:g} s.",
                {"code": "TIMEOUT", "limit": self._table.head_seconds},
            )
            return
        is_body = self._stage is _Stage.BODY
        reason = CloseReason.BODY_TIMEOUT if is_body else CloseReason.HEAD_TIMEOUT
        self._table.record_closed(reason, self.peer)
        self.close()

    def close(self) -> None:
        self._is_rejected = True
        self._table.linger(self)
        self.transport.close()

    def abort(self) -> None:
        self.transport.abort()

    def _check_head(self, before: _Stage, size: int) -> None:
        """Reject an incomplete head that is too large, or set its deadline."""
        is_only_head = self._heads_started == (0 if before is _Stage.HEAD else 1)
        if not is_only_head or before is _Stage.BODY:
            self._foreign_bytes = size
        elif before is _Stage.START:
            self._foreign_bytes = 0
        if self._head_bytes - self._foreign_bytes > MAX_HEAD_BYTES:
            self._reject_head()
        else:
            self._table.await_input(self)

    def _check_trailers(self, size: int) -> None:
        """Reject trailers, or chunk extensions, that are too large."""
        self._trailer_bytes = 0 if self._has_body else self._trailer_bytes + size
        if self._trailer_bytes > MAX_HEAD_BYTES:
            self._reject_head()

    def _reject_head(self) -> None:
        self._reject(
            431,
            CloseReason.HEAD_TOO_LARGE,
            f"The request's head is larger than {MAX_HEAD_BYTES} bytes.",
            {"code": "LIMIT_EXCEEDED", "limit": MAX_HEAD_BYTES},
        )

    def _reject(
        self,
        status: int,
        reason: CloseReason,
        message: str,
        extensions: dict[str, object] | None = None,
    ) -> None:
        """Close the connection, after an error response if no other response is in progress."""
        self._is_rejected = True
        self._table.record_closed(reason, self.peer)
        if not self.is_responding():
            self._respond_and_linger(status, message, extensions)
        elif self._stage is not _Stage.BODY:
            # The responses to earlier requests are sent first, and the last one closes.
            self._table.clear_deadline(self)
            self.cycle.keep_alive = False
        elif self.pipeline or self.cycle.response_started:
            self.close()
        else:
            self.cycle.disconnected = True
            self.cycle.message_event.set()
            self._respond_and_linger(status, message, extensions)

    def _respond_and_linger(
        self, status: int, message: str, extensions: dict[str, object] | None
    ) -> None:
        self.transport.write(closing_error(status, message, extensions))
        # Closing now would reset the connection if the client is still sending, and the reset might
        # overtake the response. Until the client closes, its data is discarded.
        self._table.linger(self)
        with contextlib.suppress(OSError, NotImplementedError):
            self.transport.write_eof()
