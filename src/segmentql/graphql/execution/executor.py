"""The executor of GraphQL requests, which runs a plan or else graphql-core.

Expensive queries run one at a time and one mutation starts per iteration of the event loop, so that
small reads overtake them.

Strawberry's `Schema.execute` creates its extensions again for each request. This module does what
it does for a schema without extensions. See `docs/decisions/0003-own-http-view.md`.
"""

import asyncio
import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, Final

import strawberry
from strawberry.execution import optimized_is_awaitable

from graphql import DocumentNode, ExecutionResult, GraphQLError, GraphQLSchema
from graphql import execute as execute_by_core
from segmentql import metrics
from segmentql.errors import TimedOut, Unavailable
from segmentql.graphql.context import Context
from segmentql.graphql.cost.document_limits import DocumentLimits, check_variables
from segmentql.graphql.cost.scheduling import ExpensiveSlot, MutationGate
from segmentql.graphql.execution.document_cache import DocumentCache, Operation, SchemaExposure
from segmentql.graphql.execution.error_locations import ErrorLocator
from segmentql.graphql.execution.idempotency_keys import read_idempotency_keys
from segmentql.graphql.execution.middleware import build_middleware
from segmentql.graphql.execution.operation_metrics import OperationMetrics
from segmentql.graphql.execution.operation_records import OperationRecorder
from segmentql.graphql.execution.plans import MutationResult, PlanFallback
from segmentql.graphql.execution.request import MAX_COERCION_ERRORS, Request
from segmentql.graphql.execution.request_documents import RequestDocuments
from segmentql.graphql.execution.request_errors import cause_of_cancellation, format_request_errors
from segmentql.graphql.execution.response_size import BoundedExecutor, ResponseTooLarge
from segmentql.graphql.execution.subscriptions import SubscriptionExecutor
from segmentql.graphql.types.error_causes import REJECTED_MUTATIONS, FailureCause
from segmentql.graphql.types.errors import (
    Code,
    format_response_too_large,
    limit_exceeded,
    subscription_needs_stream,
)
from segmentql.logs import RequestLog
from segmentql.tables import Role

EXPENSIVE_QUERY_COST: Final = 2_000
"""The cost above which a query is expensive."""

EXPENSIVE_QUERY_CONCURRENCY: Final = 1
"""The maximum number of concurrent expensive queries."""

NO_WAIT: Final = nullcontext()


@dataclass(slots=True)
class ExecutionResponse:
    """The response to a GraphQL request."""

    body: dict[str, Any]
    executed: bool
    """Whether the operation was executed; False if the request was rejected."""
    size: int = 0
    """A lower bound of the body's size in bytes."""
    is_unavailable: bool = False
    """Whether the request was rejected because the database is not available."""


class MethodNotAllowed(Exception):
    """The operation is not a query, but only queries are allowed."""


class GraphQLExecutor:
    """An executor of the requests to one schema."""

    def __init__(
        self,
        schema: strawberry.Schema,
        limits: DocumentLimits,
        schema_exposure: SchemaExposure | None = None,
        *,
        plans: bool = True,
        trusted_only: bool = False,
        log: RequestLog | None = None,
    ) -> None:
        """Create the executor.

        Args:
            schema: The schema.
            limits: The limits of each request.
            schema_exposure: What clients may learn about the schema.
            plans: Whether to use plans. Tests compare the executor with and without them.
            trusted_only: Whether requests must name stored documents.
            log: The log of requests.
        """
        self._limits = limits
        self._schema = schema
        self._core: GraphQLSchema = schema._schema
        self._schema_exposure = schema_exposure or SchemaExposure()
        self._cache = DocumentCache(self._core, limits, self._schema_exposure, plans=plans)
        self._documents = RequestDocuments(self._cache, trusted_only=trusted_only)
        self._expensive_queries = asyncio.Semaphore(EXPENSIVE_QUERY_CONCURRENCY)
        self._mutation_gate = MutationGate()
        self._recorder = OperationRecorder(log)
        self._metrics = OperationMetrics()
        self.subscriptions = SubscriptionExecutor(
            self._core,
            self._documents,
            limits,
            check_cost=self._check_cost,
            hide_suggestions=not self._schema_exposure.suggestions,
            operation_metrics=self._metrics,
            log=log,
        )

    def close(self) -> None:
        """Stop the thread of documents. `execute` must not be called any more."""
        self._cache.close()

    async def execute(
        self, request: Request, context: Context, *, queries_only: bool
    ) -> ExecutionResponse:
        """Execute a request, count it and log it. The response reports all errors of the request.

        Raises:
            MethodNotAllowed: `queries_only` is set, and the operation is not a query.
        """
        started = time.perf_counter()
        context.response_bytes = context.remaining_bytes = self._limits.response_bytes
        outcome = "rejected"
        label: tuple[str | None, str] = (None, "invalid")
        cost: int | None = None
        rejected_mutations: list[FailureCause] = []
        is_logged = True
        metrics.REQUESTS_IN_FLIGHT.inc()
        try:
            prepared = await self._documents.prepare(request, context)
            if prepared.document is None:
                return self._reject(prepared.errors, context)
            operation = prepared.operations.get(request.operation_name)
            if operation is None:  # graphql-core reports the error
                result = await self._execute_by_core(prepared.document, request, context)
                return self._reject(result.errors or [], context)
            label = (operation.node.operation.value, self._metrics.label(operation.node))
            if operation.is_subscription:
                return self._reject([subscription_needs_stream()], context)
            if not operation.is_query:
                if queries_only:
                    is_logged = False  # the view logs it
                    raise MethodNotAllowed
                context.primary = context.is_mutation = True
                REJECTED_MUTATIONS.set(rejected_mutations)
            try:
                cost = self._check_cost(operation, request)
                if operation.root_field_keys or context.idempotency_keys:
                    read_idempotency_keys(operation.root_field_keys, context, request.variables)
            except GraphQLError as error:
                return self._reject([error], context)
            if not operation.is_query:
                await self._mutation_gate.enter()
            # An expensive mutation does not wait here: it may run for a minute (`waitSeconds`).
            is_expensive = operation.is_query and cost > EXPENSIVE_QUERY_COST
            slot = ExpensiveSlot(self._expensive_queries) if is_expensive else None
            context.expensive_slot = slot
            async with slot or NO_WAIT:
                response = await self._execute_operation(
                    prepared.document, operation, request, context
                )
            if response.executed:
                outcome = "failed" if "errors" in response.body else "done"
                response.body["extensions"] = {
                    "cost": {"estimated": cost, "allowed": self._limits.cost}
                }
            return response
        except asyncio.CancelledError:
            outcome = "cancelled"
            context.cause = cause_of_cancellation(context)
            raise
        finally:
            metrics.REQUESTS_IN_FLIGHT.dec()
            seconds = time.perf_counter() - started
            self._metrics.count(label[1], outcome, seconds)
            if is_logged:
                cause = context.cause or next(iter(rejected_mutations), None)
                self._recorder.record(
                    label, context, cause, outcome=outcome, cost=cost, seconds=seconds
                )

    def _check_cost(self, operation: Operation, request: Request) -> int:
        """Return the cost of an operation.

        Raises:
            GraphQLError: The cost, or a list in the variables, exceeds its limit (LIMIT_EXCEEDED).
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
        mutation_result: MutationResult | None = None
        # A plan does not check the role of a query. An EVALUATOR may query only `viewer`.
        if operation.plan is not None and context.principal.role is not Role.EVALUATOR:
            try:
                data = await operation.plan.run(context, request.variables or {})
                return ExecutionResponse({"data": data}, executed=True, size=context.counted_bytes)
            except ResponseTooLarge as error:
                return self._too_large(error, context)
            except PlanFallback as fallback:
                mutation_result = fallback.mutation_result
                if isinstance(fallback.__cause__, Unavailable | TimedOut):
                    # graphql-core reports this error; it does not wait for it a second time.
                    context.database_error = fallback.__cause__
        context.remaining_bytes = context.response_bytes  # graphql-core builds the whole response
        result = await self._execute_by_core(document, request, context, mutation_result)
        for core_error in result.errors or ():
            if isinstance(core_error, ResponseTooLarge):
                return self._too_large(core_error, context)
        locator = ErrorLocator(
            self._core,
            document,
            hide_names=not self._schema_exposure.suggestions,
            operation=operation.node,
            variables=request.variables,
        )
        errors = locator.add_locations(result.errors or ())
        if result.data is None and not any(core_error.path for core_error in errors):
            return self._reject(errors, context)
        body: dict[str, Any] = {"data": result.data}
        if errors:
            body["errors"] = format_request_errors(errors, context, executed=True)
        return ExecutionResponse(body, executed=True, size=context.counted_bytes)

    async def _execute_by_core(
        self,
        document: DocumentNode,
        request: Request,
        context: Context,
        mutation_result: MutationResult | None = None,
    ) -> ExecutionResult:
        """Execute an operation by graphql-core.

        Args:
            document: The document.
            request: The request, which names the operation.
            context: The context of the request.
            mutation_result: The result of the mutation, if a plan has already called its resolver.
        """
        result = execute_by_core(
            self._core,
            document,
            context_value=context,
            variable_values=dict(request.variables or {}),
            operation_name=request.operation_name,
            max_coercion_errors=MAX_COERCION_ERRORS,
            hide_suggestions=not self._schema_exposure.suggestions,
            executor_class=BoundedExecutor,
            is_awaitable=optimized_is_awaitable,  # type: ignore[arg-type]
            middleware=build_middleware(context, mutation_result),
        )
        return result if isinstance(result, ExecutionResult) else await result

    @staticmethod
    def _reject(errors: Sequence[GraphQLError], context: Context) -> ExecutionResponse:
        return ExecutionResponse(
            {"errors": format_request_errors(errors, context, executed=False)},
            executed=False,
            is_unavailable=any(
                isinstance(error.original_error, Unavailable | TimedOut) for error in errors
            ),
        )

    @staticmethod
    def _too_large(error: ResponseTooLarge, context: Context) -> ExecutionResponse:
        formatted = format_response_too_large(
            error, is_mutation=context.is_mutation, is_complete=False
        )
        context.cause = FailureCause(Code.LIMIT_EXCEEDED, formatted["message"])
        metrics.REQUESTS_REJECTED.labels("size").inc()
        return ExecutionResponse({"data": None, "errors": [formatted]}, executed=True)
