"""The execution of the events of a subscription.

The source yields events, and each executed event is a result. A plan executes the event; if the
plan fails, graphql-core executes it again. The next event is taken from the source only when the
transport asks for it, so that nothing is buffered for a client that reads slowly.

A result with an error is the last one of its stream. The client got no complete data and perhaps no
cursor, and it would miss the event if the stream went on. It subscribes again with the cursor of
the event before.
"""

from collections.abc import AsyncGenerator, AsyncIterable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

from graphql.execution.async_iterables import aclosing
from graphql.execution.executor import Executor

from graphql import ExecutionResult, FieldNode, GraphQLError, located_error
from segmentql.errors import TimedOut, Unavailable
from segmentql.graphql.context import Context
from segmentql.graphql.cost.deadlines import Deadlines
from segmentql.graphql.execution.document_cache import Operation
from segmentql.graphql.execution.plans import PlanFallback
from segmentql.graphql.execution.request import Request
from segmentql.graphql.execution.request_errors import format_request_errors
from segmentql.graphql.execution.response_size import ResponseTooLarge
from segmentql.graphql.types.error_causes import FailureCause
from segmentql.graphql.types.errors import Code, format_response_too_large, format_timeout


@dataclass(frozen=True, slots=True)
class StreamResult:
    """The result of an event of the source, as the client gets it."""

    body: dict[str, Any]
    """The response: `data`, or `errors` if the result is the last one because it failed."""
    size: int
    """A lower bound of the body's size in bytes."""
    cursor: str | None
    """The cursor with which the client can resume after this result; None if it has none."""
    is_only: bool = False
    """Whether it is the only result of a query or mutation."""

    @property
    def is_failure(self) -> bool:
        return "errors" in self.body


class Subscription:
    """An open subscription."""

    def __init__(
        self,
        source: AsyncIterable[Any],
        executor: Executor[Any],
        operation: Operation,
        request: Request,
        context: Context,
        *,
        deadlines: Deadlines,
        log_outcome: Callable[[str, int], None],
    ) -> None:
        self._source = source
        self._executor = executor
        self._operation = operation
        self._variables = request.variables or {}
        self.context = context
        self._deadlines = deadlines
        self._log_outcome = log_outcome
        self._results = 0

    async def results(self) -> AsyncGenerator[StreamResult, None]:
        """Yield the results until the source ends or a result has an error.

        The consumer must close the generator, which closes the source.
        """
        source = aiter(self._source)
        async with aclosing(source):
            while True:
                try:
                    payload = await anext(source)
                except StopAsyncIteration:
                    return
                except Exception as error:  # noqa: BLE001 - the client gets it, or it is masked
                    yield self._failure([self._with_path(error)])
                    return
                result = await self._make_result(payload)
                self._results += 1
                yield result
                if result.is_failure:
                    return

    def log_outcome(self, outcome: str) -> None:
        """Log the end of the subscription.

        Args:
            outcome: The outcome in the log line, such as "done".
        """
        self._log_outcome("failed" if self.context.cause else outcome, self._results)

    async def _make_result(self, payload: Any) -> StreamResult:
        """Execute an event within the time limit of a request."""
        context = self.context
        context.remaining_bytes = context.response_bytes
        context.database_error = None
        context.deadline = deadline = self._deadlines.new_deadline()
        try:
            with deadline:
                data = await self._execute_event(payload)
        except TimeoutError:
            if not deadline.has_expired:
                raise
            error = format_timeout(self._deadlines.seconds, is_mutation=False)
            context.cause = FailureCause(Code.TIMEOUT, error["message"])
            return StreamResult({"data": None, "errors": [error]}, 0, None)
        except ResponseTooLarge as too_large:
            error = format_response_too_large(too_large, is_mutation=False, is_complete=False)
            context.cause = FailureCause(Code.LIMIT_EXCEEDED, error["message"])
            return StreamResult({"data": None, "errors": [error]}, 0, None)
        finally:
            context.deadline = None
        if isinstance(data, ExecutionResult):
            if data.errors:
                return self._failure(data.errors, data.data)
            data = data.data
        size = context.response_bytes - context.remaining_bytes
        return StreamResult({"data": data}, size, _cursor(payload))

    async def _execute_event(self, payload: Any) -> Any:
        """Return the data of an event, or graphql-core's result if the plan fails."""
        context = self.context
        if self._operation.plan is not None:
            try:
                return await self._operation.plan.run(context, self._variables, payload)
            except PlanFallback as fallback:
                if isinstance(fallback.__cause__, Unavailable | TimedOut):
                    context.database_error = fallback.__cause__
        context.remaining_bytes = context.response_bytes
        executor = self._executor.build_per_event_executor(payload)
        result: Any = executor.execute_operation(serially=False)
        if executor.is_awaitable(result):
            result = await result
        for error in result.errors or ():
            if isinstance(error, ResponseTooLarge):
                raise error
        return result

    def _failure(self, errors: Sequence[GraphQLError], data: Any = None) -> StreamResult:
        formatted = format_request_errors(errors, self.context, executed=True)
        return StreamResult({"data": data, "errors": formatted}, 0, None)

    def _with_path(self, error: Exception) -> GraphQLError:
        """Return an exception of the source with the path of the root field."""
        root = self._operation.node.selection_set.selections[0]
        key = (root.alias or root.name).value if isinstance(root, FieldNode) else None
        return located_error(error, [root], [key] if key else None)


def _cursor(payload: Any) -> str | None:
    """Return the attribute `cursor` of an event: a text, or an object whose `encode` returns one.

    The text must fit on a line of an SSE stream.
    """
    cursor = getattr(payload, "cursor", None)
    if cursor is not None and not isinstance(cursor, str):
        cursor = cursor.encode()
    return cursor if isinstance(cursor, str) and cursor.isprintable() else None
