"""GraphQL over Server-Sent Events: one stream per request.

A request that accepts event streams only gets its results as messages `next`, and then the message
`complete`. The `id` of a message is the cursor of its batch, so that a browser's EventSource
resumes by itself: it sends the last id as `Last-Event-ID`. A subscription that the server must end
early has no message `complete`, because clients take a stream that ends without it for a lost
connection and subscribe again. Queries and mutations are not ended early and are always complete.

Source: https://github.com/enisdenjo/graphql-sse/blob/master/PROTOCOL.md (distinct connections mode)
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace
from typing import Final

import orjson
from starlette.datastructures import QueryParams
from starlette.types import Receive, Scope, Send

from segmentql import metrics
from segmentql.adapters.http import abort, limit_unacknowledged_time
from segmentql.errors import AuthenticationFailure, ConcurrencyLimitExceeded, TimedOut, Unavailable
from segmentql.graphql.context import Context
from segmentql.graphql.execution.request import Request
from segmentql.graphql.execution.response_size import ResponseTooLarge
from segmentql.graphql.execution.subscription_results import StreamResult
from segmentql.graphql.execution.subscriptions import NotASubscription, SubscriptionRejected
from segmentql.graphql.http.http_errors import (
    HttpRequestError,
    body_too_slow,
    database_unavailable,
    error_response,
    method_not_allowed,
    shutting_down,
    too_many_streams,
    unauthenticated,
)
from segmentql.graphql.http.media_types import JSON
from segmentql.graphql.http.request_parsing import Headers, read_request, request_of_query_string
from segmentql.graphql.http.response_sender import UnreadResponsesExceeded, send_in_chunks
from segmentql.graphql.http.responses import json_response
from segmentql.graphql.http.result_serializer import unsendable_errors
from segmentql.graphql.http.sse_operations import execute_operation
from segmentql.graphql.http.sse_response import EventStreamResponse, keep_open
from segmentql.graphql.http.stream_dependencies import StreamDependencies, record_stream_end
from segmentql.graphql.http.stream_registry import (
    EndReason,
    StreamConnection,
)
from segmentql.graphql.types.error_causes import FAULT_CODES
from segmentql.graphql.types.errors import format_internal_error

HEARTBEAT_SECONDS: Final = 15
"""The interval of the comments that keep the connection open."""

FINISH_SECONDS: Final = 2
"""The time in which a client must read the end of a stream that the server ends."""

UNACKNOWLEDGED_SECONDS: Final = 60
"""The time after which a connection is lost if the client's host acknowledges no data, not even the
heartbeats. The kernel would otherwise retransmit for 15 minutes or more."""


class EventStreams:
    """The ASGI application of requests that accept event streams only."""

    def __init__(
        self, dependencies: StreamDependencies, *, heartbeat_seconds: float = HEARTBEAT_SECONDS
    ) -> None:
        """Create the application.

        Args:
            dependencies: The objects of the process.
            heartbeat_seconds: The interval of the comments that keep the connection open.
        """
        self._dependencies = dependencies
        self._registry = dependencies.registry
        self._heartbeat_seconds = heartbeat_seconds
        self._results_sent = metrics.STREAM_RESULTS.labels("sse")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = dict(scope["headers"])
        response = EventStreamResponse(send, self._dependencies.send_deadlines)
        try:
            await self._respond(scope, headers, receive, response)
        except HttpRequestError as rejection:
            code = rejection.extensions["code"]
            if self._dependencies.log:
                self._dependencies.log.rejected(
                    is_fault=code in FAULT_CODES,
                    request_id=scope["state"]["request_id"],
                    status=rejection.status,
                    code=code,
                    reason=rejection.reason,
                )
            await send_in_chunks(
                error_response(rejection, JSON), scope["state"]["request_id"], send
            )
        except Exception as fault:  # noqa: BLE001 - it is logged, and the client gets an error
            await self._send_fault(fault, scope["state"]["request_id"], response, receive, send)

    async def _send_fault(
        self,
        fault: Exception,
        request_id: str,
        response: EventStreamResponse,
        receive: Receive,
        send: Send,
    ) -> None:
        """Log and count a fault, and send its error if the client can still read it.

        A subscription then ends without `complete`, so that the client tries again.
        """
        body = {"errors": [format_internal_error(fault, request_id=request_id)]}
        if not response.is_started:
            await send_in_chunks(json_response(body, 500, JSON), request_id, send)
            return
        try:
            async with asyncio.timeout(FINISH_SECONDS):
                if response.is_incomplete:
                    await abort(receive)
                    return
                await response.send_next([orjson.dumps(body)], None)
                if response.is_only:
                    await response.send_complete()
                await response.finish()
        except TimeoutError:
            await abort(receive)

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
            principal = await self._dependencies.authenticate(headers)
        except (Unavailable, TimedOut) as error:
            raise database_unavailable(error) from None
        if self._registry.is_stopping:
            raise shutting_down()
        try:
            connection = self._registry.connect(principal, headers.get(b"authorization"))
            with connection:
                await self._run(connection, scope, headers, receive, response)
        except ConcurrencyLimitExceeded as error:
            raise too_many_streams(error.limit, is_per_key=error.is_per_key) from None
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
        context = self._dependencies.new_context(headers, connection.principal, None, request_id)
        async with (
            keep_open(connection, receive, response, self._heartbeat_seconds),
            self._results(
                connection, request, context, headers=headers, is_get=scope["method"] == "GET"
            ) as results,
        ):
            try:
                limit_unacknowledged_time(
                    receive, max(UNACKNOWLEDGED_SECONDS, self._dependencies.limits.send_seconds)
                )
                await response.start()
                async for result in results:
                    response.is_only = result.is_only
                    sent = await self._send(response, result, context)
                    if sent.is_failure and not sent.is_only:
                        if _is_fault(sent):
                            return  # without `complete`, so that the client tries again
                        break
                # Some sources end by themselves when the process shuts down.
                if self._registry.is_stopping and not response.is_only:
                    connection.set_end_reason(EndReason.STOPPING)
                else:
                    await response.send_complete()
            except TimeoutError:
                if not response.is_unread:
                    raise
                metrics.REQUESTS_REJECTED.labels("send").inc()
                connection.set_end_reason(EndReason.UNREAD)

    async def _read(self, scope: Scope, headers: Headers, receive: Receive) -> Request:
        if scope["method"] == "GET":
            return request_of_query_string(QueryParams(scope["query_string"]))
        deadline = self._dependencies.execution_deadlines.new_deadline()
        try:
            with deadline:
                return await read_request(headers, receive, self._dependencies.limits.body_bytes)
        except TimeoutError:
            if not deadline.has_expired:
                raise
            raise body_too_slow(self._dependencies.execution_deadlines.seconds) from None

    @asynccontextmanager
    async def _results(
        self,
        connection: StreamConnection,
        request: Request,
        context: Context,
        *,
        headers: Headers,
        is_get: bool,
    ) -> AsyncIterator[AsyncGenerator[StreamResult, None]]:
        """Yield the results of an operation: of a subscription, or the only one of another."""
        last_event_id = headers.get(b"last-event-id", b"").decode("latin-1") or None
        try:
            subscription = await self._dependencies.executor.subscriptions.open(
                request,
                context,
                deadlines=self._dependencies.execution_deadlines,
                last_event_id=last_event_id,
            )
        except NotASubscription:
            connection.finish_operation()
            yield _single_result(
                await execute_operation(self._dependencies, request, context, queries_only=is_get)
            )
            return
        except SubscriptionRejected as rejected:
            # An EventSource cannot read the body of another status, so the stream has the errors.
            yield _single_result(StreamResult({"errors": rejected.errors}, 0, None))
            return
        with self._registry.stream(connection.principal, "sse"):
            try:
                async with aclosing(subscription.results()) as results:
                    yield results
            finally:
                reason = EndReason.FAILED if context.cause else EndReason.DONE
                record_stream_end(subscription, connection.end_reason or reason)

    async def _send(
        self, response: EventStreamResponse, result: StreamResult, context: Context
    ) -> StreamResult:
        """Send a result, or the errors that replace it; return what was sent."""
        try:
            async with self._dependencies.serializer.serialized(result.body, result.size) as chunks:
                await response.send_next(chunks, result.cursor)
        except (ResponseTooLarge, UnreadResponsesExceeded) as error:
            errors = unsendable_errors(error, context)
            result = replace(result, body={"errors": errors}, cursor=None)
            async with self._dependencies.serializer.serialized(result.body, 0) as chunks:
                await response.send_next(chunks, None)
        self._results_sent.inc()
        return result


def _is_fault(result: StreamResult) -> bool:
    """Return whether the server has caused the failure of a result."""
    return any(error["extensions"]["code"] in FAULT_CODES for error in result.body["errors"])


async def _single_result(result: StreamResult) -> AsyncGenerator[StreamResult, None]:
    yield result
