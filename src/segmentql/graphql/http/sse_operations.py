"""Queries and mutations over Server-Sent Events, whose only result is an event.

A client that gets no result and no `complete` sends the operation again. So every outcome of an
operation that has begun is a result, also one that is unknown.
"""

import asyncio

from segmentql import metrics
from segmentql.graphql.context import Context
from segmentql.graphql.execution.executor import MethodNotAllowed
from segmentql.graphql.execution.request import Request
from segmentql.graphql.execution.subscription_results import StreamResult
from segmentql.graphql.http.http_errors import mutation_by_get
from segmentql.graphql.http.stream_dependencies import StreamDependencies
from segmentql.graphql.types.errors import format_internal_error, format_stopped, format_timeout


async def execute_operation(
    dependencies: StreamDependencies, request: Request, context: Context, *, queries_only: bool
) -> StreamResult:
    """Execute a query or a mutation, and return its result.

    If the server cancels the task, because the time to shut down has passed, the result is an
    error. The caller should send it and return.

    Raises:
        HttpRequestError: The operation is a mutation, and `queries_only` is set.
    """
    deadline = context.deadline = dependencies.execution_deadlines.new_deadline()
    try:
        with deadline:
            response = await dependencies.executor.execute(
                request, context, queries_only=queries_only
            )
    except MethodNotAllowed:
        raise mutation_by_get() from None
    except asyncio.CancelledError:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - this is a coroutine
        task.uncancel()
        error = format_stopped(is_mutation=context.is_mutation)
    except TimeoutError as fault:
        if deadline.has_expired:
            metrics.REQUESTS_REJECTED.labels("time").inc()
            seconds = dependencies.execution_deadlines.seconds
            error = format_timeout(seconds, is_mutation=context.is_mutation)
        else:
            error = format_internal_error(fault, request_id=context.request_id)
    except Exception as fault:  # noqa: BLE001 - it is logged, and the client gets an error
        error = format_internal_error(fault, request_id=context.request_id)
    else:
        return StreamResult(response.body, response.size, None, is_only=True)
    return StreamResult({"data": None, "errors": [error]}, 0, None, is_only=True)
