"""The operations of a WebSocket: each is a task that sends the events of a subscription."""

import asyncio
import contextlib
import uuid
from collections.abc import Sequence
from contextlib import aclosing
from typing import Any, Final

from segmentql import metrics
from segmentql.graphql.execution.request import Request
from segmentql.graphql.execution.response_size import ResponseTooLarge
from segmentql.graphql.execution.subscription_events import Subscription
from segmentql.graphql.execution.subscriptions import NotASubscription, SubscriptionRejected
from segmentql.graphql.http.event_serializer import unsendable_errors
from segmentql.graphql.http.http_errors import (
    HttpRequestError,
    rate_limited,
    too_many_operations,
    too_many_streams,
)
from segmentql.graphql.http.request_parsing import Headers
from segmentql.graphql.http.response_sender import UnreadResponsesExceeded
from segmentql.graphql.http.stream_registry import (
    EndReason,
    StreamConnection,
    StreamLimitExceeded,
)
from segmentql.graphql.http.stream_services import StreamServices, record_end
from segmentql.graphql.http.websocket_channel import (
    ChannelClosed,
    ClientNotReading,
    WebSocketChannel,
)
from segmentql.graphql.http.websocket_messages import CloseCode, ProtocolViolation
from segmentql.graphql.types.errors import Code, format_internal_error

MAX_OPERATIONS: Final = 50
"""The maximum number of operations on one socket."""


class WebSocketOperations:
    """The operations of one socket, by their ids."""

    def __init__(
        self,
        services: StreamServices,
        channel: WebSocketChannel,
        connection: StreamConnection,
        headers: Headers,
    ) -> None:
        self._services = services
        self._channel = channel
        self._connection = connection
        self._headers = headers
        self._tasks: dict[str, asyncio.Task[None]] = {}
        """The tasks of the operations that the client may complete."""
        self._unfinished: set[asyncio.Task[None]] = set()
        """The same tasks, and those that are sending their last message."""
        self._events_sent = metrics.STREAM_EVENTS.labels("websocket")

    async def start(self, operation_id: str, request: Request) -> None:
        """Start an operation.

        Raises:
            ProtocolViolation: An operation has this id already (4409).
        """
        if operation_id in self._tasks:
            reason = f"Subscriber for {operation_id} already exists"
            raise ProtocolViolation(CloseCode.SUBSCRIBER_EXISTS, reason)
        limiter = self._services.rate_limiter
        key_id = self._connection.principal.key_id
        rejection: HttpRequestError | None = None
        if key_id and not limiter.try_acquire(key_id):
            rejection = rate_limited(limiter.per_second)
        elif len(self._unfinished) >= MAX_OPERATIONS:
            rejection = too_many_operations(MAX_OPERATIONS)
        if rejection is not None:
            await self._send_rejection(operation_id, rejection)
            return
        task = asyncio.create_task(self._run(operation_id, request))
        self._tasks[operation_id] = task
        self._unfinished.add(task)
        task.add_done_callback(self._unfinished.discard)

    def complete(self, operation_id: str) -> None:
        """End an operation, because the client does not need it any more."""
        task = self._tasks.pop(operation_id, None)
        if task is not None:
            task.cancel()

    async def end_all(self) -> None:
        """End all operations, because the socket is closed."""
        self._tasks.clear()
        unfinished = set(self._unfinished)
        for task in unfinished:
            task.cancel()
        if unfinished:
            await asyncio.wait(unfinished)

    async def _run(self, operation_id: str, request: Request) -> None:
        try:
            await self._execute(operation_id, request)
        except ClientNotReading:
            self._connection.end(EndReason.UNREAD)
        except ChannelClosed:
            self._connection.end(EndReason.DISCONNECTED)
        except Exception as fault:  # noqa: BLE001 - it is logged, and the client gets an error
            error = format_internal_error(fault, request_id=uuid.uuid4().hex)
            with contextlib.suppress(ClientNotReading, ChannelClosed):
                await self._channel.send({"id": operation_id, "type": "error", "payload": [error]})
        finally:
            self._forget(operation_id)

    def _forget(self, operation_id: str) -> None:
        """Allow the client to use the id again, unless another operation already has it."""
        if self._tasks.get(operation_id) is asyncio.current_task():
            del self._tasks[operation_id]

    async def _execute(self, operation_id: str, request: Request) -> None:
        services = self._services
        principal = self._connection.principal
        context = services.new_context(self._headers, principal, None, uuid.uuid4().hex)
        try:
            with services.registry.stream(principal, "websocket"):
                subscription = await services.executor.subscriptions.open(
                    request, context, deadlines=services.execution_deadlines
                )
                try:
                    errors = await self._send_events(operation_id, subscription)
                except ClientNotReading:
                    self._connection.end(EndReason.UNREAD)
                    raise
                except ChannelClosed:
                    self._connection.end(EndReason.DISCONNECTED)
                    raise
                finally:
                    reason = EndReason.FAILED if context.cause else EndReason.DONE
                    record_end(subscription, self._connection.end_reason or reason)
        except StreamLimitExceeded as error:
            rejection = too_many_streams(error.limit, is_of_key=error.is_of_key)
            await self._send_rejection(operation_id, rejection)
            return
        except SubscriptionRejected as rejected:
            errors = rejected.errors
        except NotASubscription:
            rejection = HttpRequestError(
                400, "A WebSocket takes subscriptions only. Send other operations in HTTP requests."
            )
            await self._send_rejection(operation_id, rejection)
            return
        if services.registry.is_stopping:
            return  # `complete` would tell the client not to subscribe again
        self._forget(operation_id)
        if errors:
            await self._channel.send({"id": operation_id, "type": "error", "payload": errors})
        else:
            await self._channel.send({"id": operation_id, "type": "complete"})

    async def _send_events(
        self, operation_id: str, subscription: Subscription
    ) -> Sequence[dict[str, Any]]:
        """Send the events of a subscription; return the errors of the last one."""
        async with aclosing(subscription.events()) as events:
            async for event in events:
                if event.is_failure:
                    errors: list[dict[str, Any]] = event.body["errors"]
                    return errors
                message = {"id": operation_id, "type": "next", "payload": event.body}
                try:
                    await self._channel.send(message, event.size)
                except (ResponseTooLarge, UnreadResponsesExceeded) as error:
                    return unsendable_errors(error, subscription.context)
                self._events_sent.inc()
        return []

    async def _send_rejection(self, operation_id: str, rejection: HttpRequestError) -> None:
        """Send that an operation is not executed, count and log it."""
        self._forget(operation_id)
        code = Code(str(rejection.extensions["code"]))
        metrics.ERRORS.labels(code).inc()
        if self._services.log:
            self._services.log.rejected(
                is_fault=code is Code.UNAVAILABLE,
                code=code,
                reason=rejection.reason,
                key=self._connection.principal.name,
            )
        error = {"message": rejection.message, "extensions": rejection.extensions}
        await self._channel.send({"id": operation_id, "type": "error", "payload": [error]})
