"""Executes a GraphQL request: by its plan, or else by graphql-core.

A costly query waits for others that are, and changes begin one by one, so that small reads
overtake them.

Strawberry's own `Schema.execute` builds its extensions anew at each request; this keeps what it
does for a schema without extensions, and remembers documents (`documents.py`). See
`docs/decisions/0003-own-http-view.md`.
"""

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import strawberry
from prometheus_client import Counter, Histogram
from strawberry.execution import optimized_is_awaitable

from graphql import (
    DocumentNode,
    ExecutionResult,
    FieldNode,
    GraphQLError,
    GraphQLSchema,
    OperationDefinitionNode,
    execute,
)
from segmentql import metrics
from segmentql.errors import TimedOut, Unavailable
from segmentql.graphql.context import Context
from segmentql.graphql.cost.document_limits import DocumentLimits, check_variables
from segmentql.graphql.cost.scheduling import MutationGate
from segmentql.graphql.execution.document_cache import DocumentCache, Operation, SchemaExposure
from segmentql.graphql.execution.error_locations import name_argument
from segmentql.graphql.execution.plans import MutationResult, PlanFallback
from segmentql.graphql.execution.response_size import BoundedExecutor, ResponseTooLarge
from segmentql.graphql.types.error_causes import REJECTED_MUTATIONS, FailureCause, cause_of
from segmentql.graphql.types.errors import (
    Code,
    format_errors,
    format_response_too_large,
    limit_exceeded,
)
from segmentql.logs import RequestLog

EXPENSIVE_QUERY_COST: Final = 2_000
"""Queries that cost more wait for each other ..."""

EXPENSIVE_QUERY_CONCURRENCY: Final = 1
"""... so that so many are executed at a time."""

MAX_OPERATION_NAMES: Final = 200
"""Operation names that metrics tell apart; clients choose them, so they must not grow freely."""

MAX_NAME_CHARACTERS: Final = 100
MAX_COERCION_ERRORS: Final = 20


@dataclass(frozen=True, slots=True)
class Request:
    """What a client sent, in its place but not yet looked at."""

    query: str
    variables: Mapping[str, Any] | None = None
    operation_name: str | None = None


@dataclass(frozen=True, slots=True)
class ExecutionResponse:
    """What a client gets; `executed` is false where the document itself was refused."""

    body: dict[str, Any]
    executed: bool
    size: int = 0
    """Bytes of the body, at least."""


class MethodNotAllowed(Exception):
    """A GET asked for something other than a query."""


class GraphQLExecutor:
    """A schema, ready to be asked; without `plans` by graphql-core alone, to compare with."""

    def __init__(
        self,
        schema: strawberry.Schema,
        limits: DocumentLimits,
        schema_exposure: SchemaExposure | None = None,
        *,
        plans: bool = True,
        log: RequestLog | None = None,
    ) -> None:
        self._limits = limits
        self._schema = schema
        self._core: GraphQLSchema = schema._schema
        self._schema_exposure = schema_exposure or SchemaExposure()
        self._documents = DocumentCache(self._core, limits, self._schema_exposure, plans=plans)
        self._expensive_queries = asyncio.Semaphore(EXPENSIVE_QUERY_CONCURRENCY)
        self._mutation_gate = MutationGate()
        self._log = log
        self._names: set[str] = set()
        self._counters: dict[tuple[str, str], tuple[Counter, Histogram]] = {}

    def close(self) -> None:
        """End the thread; nothing is to be asked any more."""
        self._documents.close()

    async def answer(
        self, request: Request, context: Context, *, queries_only: bool
    ) -> ExecutionResponse:
        """Execute one request; the answer tells every failure but one of the method.

        Raises:
            MethodNotAllowed: `queries_only` is set and the operation is none.
        """
        started = time.perf_counter()
        context.response_bytes = context.remaining_bytes = self._limits.response_bytes
        outcome = "refused"
        name = "invalid"
        cost: int | None = None
        rejected_mutations: list[FailureCause] = []
        is_logged = True
        metrics.REQUESTS_IN_FLIGHT.inc()
        try:
            prepared = await self._documents.prepare(request.query)
            if prepared.document is None:
                return self._reject(prepared.errors, context)
            operation = prepared.operations.get(request.operation_name)
            if operation is None:  # graphql-core says why
                result = await self._execute(prepared.document, request, context)
                return self._reject(result.errors or [], context)
            name = self._operation_label(operation.node)
            if not operation.is_query:
                if queries_only:
                    is_logged = False  # the view does
                    raise MethodNotAllowed
                context.primary = context.is_mutation = True
                REJECTED_MUTATIONS.set(rejected_mutations)
            try:
                cost = self._check_cost(operation, request)
            except GraphQLError as error:
                return self._reject([error], context)
            if not operation.is_query:
                await self._mutation_gate.enter()
            # A change may wait for a minute (`waitSeconds`), and must not keep the others so long.
            if cost > EXPENSIVE_QUERY_COST and operation.is_query:
                async with self._expensive_queries:
                    answer = await self._execute_operation(
                        prepared.document, operation, request, context
                    )
            else:
                answer = await self._execute_operation(
                    prepared.document, operation, request, context
                )
            if answer.executed:
                outcome = "failed" if "errors" in answer.body else "done"
                answer.body["extensions"] = {
                    "cost": {"estimated": cost, "allowed": self._limits.cost}
                }
            return answer
        except asyncio.CancelledError:
            outcome = "cancelled"
            context.cause = _cause_of_cancellation(context)
            raise
        finally:
            metrics.REQUESTS_IN_FLIGHT.dec()
            seconds = time.perf_counter() - started
            self._count(name, outcome, seconds)
            if self._log and is_logged:
                cause = context.cause or next(iter(rejected_mutations), None)
                self._log.executed(
                    failed=cause is not None,
                    is_fault=cause is not None and cause.is_fault,
                    request_id=context.request_id,
                    operation=name,
                    outcome=outcome,
                    duration_ms=round(seconds * 1000, 3),
                    cost=cost,
                    key=context.principal.name,
                    **(cause.fields if cause else {}),
                )

    def _count(self, name: str, outcome: str, seconds: float) -> None:
        counters = self._counters.get((name, outcome))
        if (
            counters is None
        ):  # looking them up costs more than counting; `_operation_label` keeps them few
            counters = self._counters[name, outcome] = (
                metrics.REQUESTS.labels(name, outcome),
                metrics.REQUEST_DURATION_SECONDS.labels(name),
            )
        counters[0].inc()
        counters[1].observe(seconds)

    def _check_cost(self, operation: Operation, request: Request) -> int:
        """The operation's cost.

        Raises:
            GraphQLError: it, or a list in the variables, is beyond its limit.
        """
        variables = request.variables or {}
        check_variables(variables, self._limits)
        cost = operation.cost.of(variables)
        if cost > self._limits.cost:
            raise limit_exceeded("cost", limit=self._limits.cost, value=cost)
        return cost

    async def _execute_operation(
        self, document: DocumentNode, operation: Operation, request: Request, context: Context
    ) -> ExecutionResponse:
        outcome: MutationResult | None = None
        if operation.plan is not None:
            try:
                data = await operation.plan.run(context, request.variables or {})
                return ExecutionResponse(
                    {"data": data}, executed=True, size=_counted_bytes(context)
                )
            except ResponseTooLarge as error:
                return self._too_large(error, context)
            except PlanFallback as failed:
                outcome = failed.outcome
                if isinstance(failed.__cause__, Unavailable | TimedOut):
                    # graphql-core is to tell it, not to wait for it once more.
                    context.database_error = failed.__cause__
        context.remaining_bytes = context.response_bytes  # it is built from its beginning again
        result = await self._execute(document, request, context, outcome)
        for found in result.errors or ():
            if isinstance(found, ResponseTooLarge):
                return self._too_large(found, context)
        if result.data is None and not any(error.path for error in result.errors or ()):
            return self._reject(
                [name_argument(error, document, operation.node) for error in result.errors or ()],
                context,
            )
        return ExecutionResponse(
            self._body(result, context), executed=True, size=_counted_bytes(context)
        )

    async def _execute(
        self,
        document: DocumentNode,
        request: Request,
        context: Context,
        outcome: MutationResult | None = None,
    ) -> ExecutionResult:
        """Execute by graphql-core; with the `outcome` of its change, where that was made."""
        result = execute(
            self._core,
            document,
            context_value=context,
            variable_values=dict(request.variables or {}),
            operation_name=request.operation_name,
            max_coercion_errors=MAX_COERCION_ERRORS,
            hide_suggestions=not self._schema_exposure.suggestions,
            executor_class=BoundedExecutor,
            is_awaitable=optimized_is_awaitable,  # type: ignore[arg-type]
            middleware=[outcome] if outcome else None,
        )
        return result if isinstance(result, ExecutionResult) else await result

    def _operation_label(self, operation: OperationDefinitionNode) -> str:
        if operation.name:
            name = operation.name.value
        else:  # the first field says as much as a name would
            first = next(iter(operation.selection_set.selections), None)  # `{ }` has none
            name = first.name.value if isinstance(first, FieldNode) else "anonymous"
        if name in self._names:
            return name
        if len(self._names) >= MAX_OPERATION_NAMES or len(name) > MAX_NAME_CHARACTERS:
            return "other"
        self._names.add(name)
        return name

    @staticmethod
    def _reject(errors: Sequence[GraphQLError], context: Context) -> ExecutionResponse:
        return ExecutionResponse(
            {"errors": _format_errors(errors, context, executed=False)}, executed=False
        )

    @staticmethod
    def _too_large(error: ResponseTooLarge, context: Context) -> ExecutionResponse:
        formatted = format_response_too_large(error, is_mutation=context.is_mutation)
        context.cause = FailureCause(Code.LIMIT_EXCEEDED, formatted["message"])
        return ExecutionResponse({"data": None, "errors": [formatted]}, executed=True)

    @staticmethod
    def _body(result: ExecutionResult, context: Context) -> dict[str, Any]:
        if not result.errors:
            return {"data": result.data}
        return {
            "data": result.data,
            "errors": _format_errors(result.errors, context, executed=True),
        }


def _cause_of_cancellation(context: Context) -> FailureCause:
    if context.deadline and context.deadline.has_passed:
        limit = "SEGMENTQL_REQUEST_TIMEOUT_SECONDS"
        return FailureCause(Code.TIMEOUT, f"the request took longer than {limit}")
    return FailureCause("CANCELLED", "the server stops, or the client has gone")


def _format_errors(
    errors: Sequence[GraphQLError], context: Context, *, executed: bool
) -> list[dict[str, Any]]:
    """Return the errors as the client gets them, and note their cause for the log line."""
    formatted = format_errors(errors, executed=executed, request_id=context.request_id)
    if errors:
        context.cause = cause_of(errors, [error["extensions"]["code"] for error in formatted])
    return formatted


def _counted_bytes(context: Context) -> int:
    """The bytes that were counted of a response."""
    return context.response_bytes - context.remaining_bytes
