"""GraphQL over Server-Sent Events: one stream per request.

A request that accepts event streams only gets its results as events `next`, and then the event
`complete`. The `id` of an event is the cursor of its batch, so that a browser's EventSource resumes
by itself: it sends the last id as `Last-Event-ID`. A stream that the server must end early has no
event `complete`, because clients take a stream that ends without it for a lost connection and
subscribe again.

Source: https://github.com/enisdenjo/graphql-sse/blob/master/PROTOCOL.md (distinct connections mode)
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace
from typing import Final

from starlette.datastructures import QueryParams
from starlette.types import Receive, Scope, Send

from segmentql import metrics
from segmentql.adapters.http import abort
from segmentql.errors import AuthenticationFailure, TimedOut, Unavailable
from segmentql.graphql.context import Context
from segmentql.graphql.execution.executor import MethodNotAllowed
from segmentql.graphql.execution.request import Request
from segmentql.graphql.execution.response_size import ResponseTooLarge
from segmentql.graphql.execution.subscription_events import StreamEvent
from segmentql.graphql.execution.subscriptions import NotASubscription, SubscriptionRejected
from segmentql.graphql.http.event_serializer import unsendable_errors
from segmentql.graphql.http.http_errors import (
    HttpRequestError,
    body_too_slow,
    database_unavailable,
    error_response,
    method_not_allowed,
    mutation_by_get,
    shutting_down,
    too_many_streams,
    unauthenticated,
)
from segmentql.graphql.http.media_types import JSON
from segmentql.graphql.http.request_parsing import Headers, read_request, request_of_query_string
from segmentql.graphql.http.response_sender import UnreadResponsesExceeded, send_in_chunks
from segmentql.graphql.http.sse_response import EventStreamResponse
from segmentql.graphql.http.stream_registry import (
    EndReason,
    StreamConnection,
    StreamLimitExceeded,
)
from segmentql.graphql.http.stream_services import StreamServices, record_end
from segmentql.graphql.types.error_causes import FAULT_CODES
from segmentql.graphql.types.errors import format_timeout

HEARTBEAT_SECONDS: Final = 15
"""The interval of the comments that keep the connection open."""

FINISH_SECONDS: Final = 2
"""The time in which a client must read the end of a stream that the server ends."""


class EventStreams:
    """The ASGI application of requests that accept event streams only."""

    def __init__(
        self, services: StreamServices, *, heartbeat_seconds: float = HEARTBEAT_SECONDS
    ) -> None:
        """Create the application.

        Args:
            services: The objects of the process.
            heartbeat_seconds: The interval of the comments that keep the connection open.
        """
        self._services = services
        self._registry = services.registry
        self._heartbeat_seconds = heartbeat_seconds
        self._events_sent = metrics.STREAM_EVENTS.labels("sse")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = dict(scope["headers"])
        response = EventStreamResponse(send, self._services.send_deadlines)
        try:
            await self._respond(scope, headers, receive, response)
        except HttpRequestError as rejection:
            code = rejection.extensions["code"]
            if self._services.log:
                self._services.log.rejected(
                    is_fault=code in FAULT_CODES,
                    request_id=scope["state"]["request_id"],
                    status=rejection.status,
                    code=code,
                    reason=rejection.reason,
                )
            await send_in_chunks(
                error_response(rejection, JSON), scope["state"]["request_id"], send
            )

    async def _respond(
        self, scope: Scope, headers: Headers, receive: Receive, response: EventStreamResponse
    ) -> None:
        """Execute the request and send its stream.

        Raises:
            HttpRequestError: The request is rejected before the stream has begun.
        """
        if scope["method"] not in {"GET", "POST"}:
            raise method_not_allowed("Use POST or GET for GraphQL requests.", "GET, POST")
        try:
            principal = await self._services.authenticate(headers)
        except (Unavailable, TimedOut) as error:
            raise database_unavailable(error) from None
        if self._registry.is_stopping:
            raise shutting_down()
        try:
            connection = self._registry.connect(principal, headers.get(b"authorization"))
            with connection:
                await self._run(connection, scope, headers, receive, response)
        except StreamLimitExceeded as error:
            raise too_many_streams(error.limit, is_of_key=error.is_of_key) from None
        reason = connection.end_reason
        if not response.is_started:
            if reason is EndReason.REVOKED:
                raise unauthenticated(AuthenticationFailure.REVOKED)
            if reason is EndReason.STOPPING:
                raise shutting_down()
        elif reason is EndReason.UNREAD:
            await abort(receive)
        elif reason is not EndReason.DISCONNECTED:
            try:
                async with asyncio.timeout(FINISH_SECONDS):
                    await response.finish()
            except TimeoutError:
                await abort(receive)

    async def _run(
        self,
        connection: StreamConnection,
        scope: Scope,
        headers: Headers,
        receive: Receive,
        response: EventStreamResponse,
    ) -> None:
        """Send the results of a request until the last one, or until the connection ends."""
        request = await self._read(scope, headers, receive)
        request_id = scope["state"]["request_id"]
        context = self._services.new_context(headers, connection.principal, None, request_id)
        async with (
            self._watched(connection, receive, response),
            self._results(
                connection, request, context, headers=headers, is_get=scope["method"] == "GET"
            ) as results,
        ):
            try:
                await response.start()
                is_stream = True
                async for event in results:
                    sent = await self._send(response, event, context)
                    is_stream = not sent.is_only
                    if is_stream and sent.is_failure:
                        if _is_fault(sent):
                            return  # without `complete`, so that the client tries again
                        break
                if is_stream and self._registry.is_stopping:  # some sources end by themselves then
                    connection.note_end(EndReason.STOPPING)
                else:
                    await response.send_complete()
            except TimeoutError:
                if not response.is_unread:
                    raise
                metrics.REQUESTS_REJECTED.labels("send").inc()
                connection.note_end(EndReason.UNREAD)

    async def _read(self, scope: Scope, headers: Headers, receive: Receive) -> Request:
        if scope["method"] == "GET":
            return request_of_query_string(QueryParams(scope["query_string"]))
        deadline = self._services.execution_deadlines.new_deadline()
        try:
            with deadline:
                return await read_request(headers, receive, self._services.limits.body_bytes)
        except TimeoutError:
            if not deadline.has_expired:
                raise
            raise body_too_slow(self._services.execution_deadlines.seconds) from None

    @asynccontextmanager
    async def _watched(
        self, connection: StreamConnection, receive: Receive, response: EventStreamResponse
    ) -> AsyncIterator[None]:
        """Send heartbeats, and end the connection when the client disconnects."""

        async def watch() -> None:
            while True:
                try:
                    async with asyncio.timeout(self._heartbeat_seconds):
                        message = await receive()
                except TimeoutError:
                    await response.send_heartbeat()
                    continue
                if message["type"] == "http.disconnect":
                    connection.end(EndReason.DISCONNECTED)
                    return

        task = asyncio.create_task(watch())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.wait([task])

    @asynccontextmanager
    async def _results(
        self,
        connection: StreamConnection,
        request: Request,
        context: Context,
        *,
        headers: Headers,
        is_get: bool,
    ) -> AsyncIterator[AsyncGenerator[StreamEvent, None]]:
        """Yield the results of an operation: of a subscription, or the only one of another."""
        last_event_id = headers.get(b"last-event-id", b"").decode("latin-1") or None
        try:
            subscription = await self._services.executor.subscriptions.open(
                request,
                context,
                deadlines=self._services.execution_deadlines,
                last_event_id=last_event_id,
            )
        except NotASubscription:
            event = await self._execute(request, context, queries_only=is_get)
            yield _only(event)
            return
        except SubscriptionRejected as rejected:
            # An EventSource cannot read the body of another status, so the stream has the errors.
            yield _only(StreamEvent({"errors": rejected.errors}, 0, None))
            return
        with self._registry.stream(connection.principal, "sse"):
            try:
                async with aclosing(subscription.events()) as events:
                    yield events
            finally:
                reason = EndReason.FAILED if context.cause else EndReason.DONE
                record_end(subscription, connection.end_reason or reason)

    async def _execute(
        self, request: Request, context: Context, *, queries_only: bool
    ) -> StreamEvent:
        """Execute a query or a mutation.

        Raises:
            HttpRequestError: The operation is a mutation, and `queries_only` is set.
        """
        deadline = context.deadline = self._services.execution_deadlines.new_deadline()
        try:
            with deadline:
                response = await self._services.executor.execute(
                    request, context, queries_only=queries_only
                )
        except MethodNotAllowed:
            raise mutation_by_get() from None
        except TimeoutError:
            if not deadline.has_expired:
                raise
            metrics.REQUESTS_REJECTED.labels("time").inc()
            seconds = self._services.execution_deadlines.seconds
            error = format_timeout(seconds, is_mutation=context.is_mutation)
            return StreamEvent({"data": None, "errors": [error]}, 0, None, is_only=True)
        return StreamEvent(response.body, response.size, None, is_only=True)

    async def _send(
        self, response: EventStreamResponse, event: StreamEvent, context: Context
    ) -> StreamEvent:
        """Send a result, or the errors that replace it; return what was sent."""
        try:
            async with self._services.serializer.serialized(event.body, event.size) as chunks:
                await response.send_next(chunks, event.cursor)
        except (ResponseTooLarge, UnreadResponsesExceeded) as error:
            errors = unsendable_errors(error, context)
            event = replace(event, body={"errors": errors}, cursor=None)
            async with self._services.serializer.serialized(event.body, 0) as chunks:
                await response.send_next(chunks, None)
        self._events_sent.inc()
        return event


def _is_fault(event: StreamEvent) -> bool:
    """Return whether the server has caused the failure of an event."""
    return any(error["extensions"]["code"] in FAULT_CODES for error in event.body["errors"])


async def _only(event: StreamEvent) -> AsyncGenerator[StreamEvent, None]:
    yield event
