"""The stop of an API process by a signal: the drain period, then the end of the listening socket.

uvicorn closes its listening socket and all idle connections at SIGTERM. A proxy that has just sent
a request on one of them gets a reset, and cannot know whether the request was executed. So here

1. `/readyz` responds with 503 and each response closes its connection, for the drain period. New
   connections are accepted meanwhile, because load balancers need some seconds to react;
2. connections that the kernel has already accepted are served before the socket is closed.

If the managing process of several API processes is killed, the API processes stop as well, without
a drain period. Otherwise they would keep the port, and a restart would fail.

`LimitedProtocol.shutdown` closes the idle connections.
"""

import asyncio
import multiprocessing
import signal
import socket
from collections.abc import Callable
from types import FrameType
from typing import Any, Final

import uvicorn
from uvicorn.supervisors import Multiprocess

STOP_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)


class ApiProcesses(Multiprocess):
    """The managing process. At its stop it closes its copy of the listening socket at once.

    Otherwise the kernel would accept connections until the last process has ended, and reset them
    then, because no process serves them.
    """

    def terminate_all(self) -> None:
        super().terminate_all()
        for listening in self.sockets:
            listening.close()


class GracefulStop:
    """Handles the stop signals of one API process.

    SIGTERM starts the drain period. SIGINT, or a second SIGTERM, ends it. After it, another signal
    stops the process without waiting for requests. In one of several processes a second SIGTERM has
    no effect: the managing process sends it SIGTERM as well, so that it gets two signals if a
    service manager signals all processes.
    """

    def __init__(
        self,
        *,
        drain_seconds: float,
        on_drain: Callable[[], None],
        on_stop: Callable[[], None],
    ) -> None:
        """Create the handler.

        Args:
            drain_seconds: The time from SIGTERM until no new connection is accepted.
            on_drain: What the event loop calls at the first signal.
            on_stop: What the event loop calls when no new connection is accepted.
        """
        self._drain_seconds = drain_seconds
        self._on_drain = on_drain
        self._on_stop = on_stop
        self._is_only_process = multiprocessing.parent_process() is None
        self._is_draining = False
        self._is_stopping = False
        self._uvicorn_handlers: dict[int, Any] = {}
        self._loop: asyncio.AbstractEventLoop

    def install(self) -> None:
        """Install the handlers in the running event loop; uvicorn has installed its own before."""
        self._loop = asyncio.get_running_loop()
        for number in STOP_SIGNALS:
            self._uvicorn_handlers[number] = signal.signal(number, self._handle)
        if manager := multiprocessing.parent_process():
            self._loop.add_reader(manager.sentinel, self._stop_without_manager, manager.sentinel)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self._is_stopping:
            force = self._is_only_process or number == signal.SIGINT
            self._call_uvicorn(signal.SIGINT if force else number)
        elif number == signal.SIGINT or not self._drain_seconds:
            self._stop(number)
        elif not self._is_draining:
            self._is_draining = True
            self._loop.call_soon_threadsafe(self._drain)
        elif self._is_only_process:
            self._stop(number)

    def _stop_without_manager(self, sentinel: int) -> None:
        self._loop.remove_reader(sentinel)
        if not self._is_stopping:
            self._stop(signal.SIGTERM)

    def _drain(self) -> None:
        self._close_connections()
        self._loop.call_later(self._drain_seconds, self._end_drain)

    def _end_drain(self) -> None:
        if not self._is_stopping:
            self._stop(signal.SIGTERM)

    def _stop(self, number: int) -> None:
        self._is_stopping = True
        self._loop.call_soon_threadsafe(self._stop_accepting)
        self._call_uvicorn(number)

    def _stop_accepting(self) -> None:
        self._close_connections()
        if server := self._server():
            _close_listening(server, self._loop)
        self._on_stop()

    def _close_connections(self) -> None:
        """Let each response close its connection, also those in progress."""
        from segmentql.adapters.http_protocol import LimitedProtocol  # noqa: PLC0415 - has metrics

        self._on_drain()
        if server := self._server():
            for connection in server.server_state.connections:
                if isinstance(connection, LimitedProtocol):
                    connection.close_after_response()

    def _server(self) -> uvicorn.Server | None:
        server = getattr(self._uvicorn_handlers[signal.SIGTERM], "__self__", None)
        return server if isinstance(server, uvicorn.Server) else None

    def _call_uvicorn(self, number: int) -> None:
        handler = self._uvicorn_handlers[number]
        if callable(handler):
            handler(number, None)


def _close_listening(server: uvicorn.Server, loop: asyncio.AbstractEventLoop) -> None:
    """Close the listening sockets, and serve the connections that they already have.

    uvicorn closes them again at its shutdown, which has no effect.
    """
    for listener in getattr(server, "servers", ()):  # none before the end of the startup
        copies = [socket.socket(fileno=socket.dup(item.fileno())) for item in listener.sockets]
        listener.close()
        for copy in copies:
            with copy:
                _accept_waiting(copy, server, loop)


def _accept_waiting(
    listening: socket.socket, server: uvicorn.Server, loop: asyncio.AbstractEventLoop
) -> None:
    listening.settimeout(0)
    while True:
        try:
            accepted, _ = listening.accept()
        except OSError:  # no connection waits, or no file descriptor is free
            return
        accepted.settimeout(0)
        task = loop.create_task(
            loop.connect_accepted_socket(lambda: _make_protocol(server), accepted)
        )
        server.server_state.tasks.add(task)  # type: ignore[arg-type]  # waited for at the shutdown
        task.add_done_callback(server.server_state.tasks.discard)


def _make_protocol(server: uvicorn.Server) -> asyncio.Protocol:
    config = server.config
    assert not isinstance(config.http_protocol_class, str)  # noqa: S101 - the configuration is loaded
    protocol: asyncio.Protocol = config.http_protocol_class(  # type: ignore[call-arg]
        config=config, server_state=server.server_state, app_state=server.lifespan.state
    )
    return protocol
