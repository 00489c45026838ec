"""The opening of subscriptions.

The document of a subscription passes the same cache, limits and cost as that of a query. Then the
resolver of its root field returns the source, a stream of events.
`graphql/execution/subscription_results.py` executes them.
"""

import time
from collections.abc import AsyncIterable, Callable, Sequence
from typing import Any, Final

from graphql.execution.collect_fields import collect_fields
from graphql.execution.execute import assert_event_stream
from graphql.execution.executor import Executor
from graphql.pyutils import Path
from strawberry.execution import optimized_is_awaitable

from graphql import (
    GraphQLError,
    GraphQLSchema,
    get_argument_values,
    located_error,
)
from segmentql.graphql.context import Context
from segmentql.graphql.cost.deadlines import Deadlines
from segmentql.graphql.cost.document_limits import DocumentLimits
from segmentql.graphql.execution.document_cache import Operation, PreparedDocument
from segmentql.graphql.execution.error_locations import ErrorLocator
from segmentql.graphql.execution.idempotency_keys import read_idempotency_keys
from segmentql.graphql.execution.operation_metrics import OperationMetrics
from segmentql.graphql.execution.request import MAX_COERCION_ERRORS, Request
from segmentql.graphql.execution.request_documents import RequestDocuments
from segmentql.graphql.execution.request_errors import format_request_errors
from segmentql.graphql.execution.response_size import BoundedExecutor
from segmentql.graphql.execution.subscription_results import Subscription
from segmentql.graphql.types.errors import forbidden
from segmentql.logs import RequestLog
from segmentql.tables import Role

CURSOR_ARGUMENT: Final = "after"
"""The argument of a root field that the `Last-Event-ID` of a client replaces."""


class NotASubscription(Exception):
    """The operation is a query or a mutation."""


class _InvalidOperation(Exception):
    """The document or its variables are not valid."""

    def __init__(self, errors: Sequence[GraphQLError]) -> None:
        super().__init__(errors)
        self.errors = errors


class SubscriptionRejected(Exception):
    """The subscription was not opened; `errors` are formatted for the client."""

    def __init__(self, errors: Sequence[dict[str, Any]]) -> None:
        super().__init__(errors)
        self.errors = list(errors)


class SubscriptionExecutor:
    """An executor of the subscriptions to one schema."""

    def __init__(
        self,
        schema: GraphQLSchema,
        documents: RequestDocuments,
        limits: DocumentLimits,
        *,
        check_cost: Callable[[Operation, Request], int],
        hide_suggestions: bool,
        operation_metrics: OperationMetrics,
        log: RequestLog | None,
    ) -> None:
        self._schema = schema
        self._documents = documents
        self._response_bytes = limits.response_bytes
        self._check_cost = check_cost
        self._hide_suggestions = hide_suggestions
        self._operation_metrics = operation_metrics
        self._log = log

    async def open(
        self,
        request: Request,
        context: Context,
        *,
        deadlines: Deadlines,
        last_event_id: str | None = None,
    ) -> "Subscription":
        """Open a subscription. A rejection is counted and logged.

        Args:
            request: The request.
            context: The context of the request.
            deadlines: The time limits of the execution of each event.
            last_event_id: The cursor of the last result that the client has; it replaces the
                argument `after` of the root field.

        Raises:
            NotASubscription: The operation is of another type.
            SubscriptionRejected: The document, its variables or its cost are not valid, or the
                resolver of the root field failed.
        """
        started = time.perf_counter()
        context.response_bytes = context.remaining_bytes = self._response_bytes
        context.primary = True  # a replica may not have the rows of an event yet
        label = "invalid"
        cost: int | None = None
        try:
            prepared = await self._documents.prepare(request, context)
            if prepared.document is None:
                raise _InvalidOperation(prepared.errors)
            operation = prepared.operations.get(request.operation_name)
            if operation is not None and not operation.is_subscription:
                raise NotASubscription
            if operation is not None:
                label = self._operation_metrics.label(operation.node)
                cost = self._check_cost(operation, request)
                read_idempotency_keys(None, context, None)
            executor = self._build(prepared, request, context)
            try:
                source = await self._open_source(executor, last_event_id)
            except GraphQLError as error:
                raise _InvalidOperation(self._name_arguments([error], prepared, request)) from None
        except (_InvalidOperation, GraphQLError) as error:
            errors = error.errors if isinstance(error, _InvalidOperation) else [error]
            executed = any(core_error.path for core_error in errors)
            formatted = format_request_errors(errors, context, executed=executed)
            self._operation_metrics.count(label, "rejected", time.perf_counter() - started)
            self._log_outcome(context, label, "rejected", started, cost=cost)
            raise SubscriptionRejected(formatted) from None
        assert operation is not None  # noqa: S101 - graphql-core has rejected it
        self._operation_metrics.count(label, "opened", time.perf_counter() - started)
        return Subscription(
            source,
            executor,
            operation,
            request,
            context,
            deadlines=deadlines,
            log_outcome=lambda outcome, results: self._log_outcome(
                context, label, outcome, started, cost=cost, results=results
            ),
        )

    def _build(
        self, prepared: PreparedDocument, request: Request, context: Context
    ) -> Executor[Any]:
        """Return graphql-core's executor of the operation."""
        assert prepared.document is not None  # noqa: S101 - the document is valid
        built = BoundedExecutor.build(
            self._schema,
            prepared.document,
            context_value=context,
            raw_variable_values=dict(request.variables or {}),
            operation_name=request.operation_name,
            max_coercion_errors=MAX_COERCION_ERRORS,
            hide_suggestions=self._hide_suggestions,
            is_awaitable=optimized_is_awaitable,  # type: ignore[arg-type]
        )
        if isinstance(built, list):
            raise _InvalidOperation(self._name_arguments(built, prepared, request))
        return built

    def _name_arguments(
        self, errors: Sequence[GraphQLError], prepared: PreparedDocument, request: Request
    ) -> list[GraphQLError]:
        assert prepared.document is not None  # noqa: S101 - the document is valid
        operation = prepared.operations.get(request.operation_name)
        locator = ErrorLocator(
            self._schema,
            prepared.document,
            hide_names=self._hide_suggestions,
            operation=operation.node if operation else None,
            variables=request.variables,
        )
        return locator.add_locations(errors)

    async def _open_source(
        self, executor: Executor[Any], last_event_id: str | None
    ) -> AsyncIterable[Any]:
        """Call the resolver of the root field, which returns the stream of events.

        This is graphql-core's `create_source_event_stream`, except that `last_event_id` can replace
        an argument.
        """
        root = executor.schema.subscription_type
        assert root is not None  # noqa: S101 - validation has found the field
        fields = collect_fields(
            executor.schema,
            executor.fragments,
            executor.variable_values,
            root,
            executor.operation,
            executor.hide_suggestions,
        ).grouped_field_set
        if not fields:
            raise GraphQLError("@skip or @include excludes the field of the subscription.")
        ((key, details),) = fields.items()
        nodes = [detail.node for detail in details]
        field = executor.schema.get_field(root, nodes[0].name.value)
        assert field is not None  # noqa: S101 - see above
        path = Path(None, key, root.name)
        principal = executor.context_value.principal
        info = executor.build_resolve_info(field, nodes, root, path)
        try:
            if not principal.has_role(Role.READER):
                raise forbidden(info.field_name, needed=Role.READER, held=principal.role)
            arguments = get_argument_values(field, nodes[0], executor.variable_values)
            if last_event_id is not None and CURSOR_ARGUMENT in field.args:
                arguments[CURSOR_ARGUMENT] = last_event_id
            resolve = field.subscribe or executor.subscribe_field_resolver
            result = resolve(None, info, **arguments)
            return assert_event_stream(await result if executor.is_awaitable(result) else result)
        except Exception as error:
            raise located_error(error, nodes, path.as_list()) from error

    def _log_outcome(
        self, context: Context, label: str, outcome: str, started: float, **fields: object
    ) -> None:
        if self._log:
            cause = context.cause
            self._log.executed(
                failed=cause is not None,
                is_fault=cause is not None and cause.is_fault,
                request_id=context.request_id,
                operation=label,
                outcome=outcome,
                duration_ms=round((time.perf_counter() - started) * 1000, 3),
                key=context.principal.name,
                **fields,
                **(cause.fields if cause else {}),
            )
