"""Executes a GraphQL request: parse and validate once a document, then graphql-core.

Strawberry's own `Schema.execute` builds its extensions anew at each request; this keeps what it
does for a schema without extensions, and remembers documents. See
`docs/decisions/0003-own-http-view.md`.
"""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import strawberry
from strawberry.execution import optimized_is_awaitable
from strawberry.schema.schema import validate_document

from graphql import (
    DocumentNode,
    ExecutionResult,
    FieldNode,
    GraphQLError,
    GraphQLSchema,
    OperationDefinitionNode,
    OperationType,
    execute,
    get_operation_ast,
    parse,
    specified_rules,
)
from segmentql import metrics
from segmentql.errors import TimedOut, Unavailable
from segmentql.graphql.arguments import name_argument
from segmentql.graphql.context import Context
from segmentql.graphql.failures import tell_all
from segmentql.graphql.plans import Plan, PlanFailed, make_plan

MAX_DOCUMENTS: Final = 500
"""Documents remembered; those least lately used go first."""

MAX_REMEMBERED_CHARACTERS: Final = 20_000
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
class Answer:
    """What a client gets; `executed` is false where the document itself was refused."""

    body: dict[str, Any]
    executed: bool


class MethodNotAllowed(Exception):
    """A GET asked for something other than a query."""


@dataclass(slots=True)
class _Prepared:
    """What is remembered of a document: itself, or why it is refused, and its plans."""

    document: DocumentNode | None
    errors: list[GraphQLError]
    plans: dict[str | None, Plan | None] = field(default_factory=dict)
    """By operation name; None where graphql-core executes it."""


class Engine:
    """A schema, ready to be asked; without `plans` by graphql-core alone, to compare with."""

    def __init__(self, schema: strawberry.Schema, *, plans: bool = True) -> None:
        self._plans = plans
        self._schema = schema
        self._core: GraphQLSchema = schema._schema
        self._documents: OrderedDict[str, _Prepared] = OrderedDict()
        self._names: set[str] = set()

    async def answer(self, request: Request, context: Context, *, queries_only: bool) -> Answer:
        """Execute one request; the answer tells every failure but one of the method.

        Raises:
            MethodNotAllowed: `queries_only` is set and the operation is none.
        """
        started = time.perf_counter()
        outcome = "refused"
        name = "invalid"
        metrics.REQUESTS_UNDER_WAY.inc()
        try:
            prepared = self._prepare(request.query)
            if prepared.document is None:
                return self._refused(prepared.errors, context)
            operation = get_operation_ast(prepared.document, request.operation_name)
            if operation is not None:
                name = self._bounded(operation)
                if operation.operation is not OperationType.QUERY:
                    if queries_only:
                        raise MethodNotAllowed
                    context.primary = True
                data = await self._try_plan(prepared, operation, request, context)
                if data is not None:
                    outcome = "done"
                    return Answer({"data": data}, executed=True)
            result = await self._execute(prepared.document, request, context)
            if result.data is None and not any(error.path for error in result.errors or ()):
                return self._refused(
                    [
                        name_argument(error, prepared.document, operation)
                        for error in result.errors or ()
                    ],
                    context,
                )
            outcome = "failed" if result.errors else "done"
            return Answer(self._body(result, context), executed=True)
        except asyncio.CancelledError:
            outcome = "cancelled"
            raise
        finally:
            metrics.REQUESTS_UNDER_WAY.dec()
            metrics.REQUESTS.labels(name, outcome).inc()
            metrics.REQUEST_SECONDS.labels(name).observe(time.perf_counter() - started)

    async def _try_plan(
        self,
        prepared: _Prepared,
        operation: OperationDefinitionNode,
        request: Request,
        context: Context,
    ) -> dict[str, Any] | None:
        """The data of a query that has a plan and meets no error; else None."""
        if request.operation_name not in prepared.plans:
            assert prepared.document  # noqa: S101 - else it would have been refused
            prepared.plans[request.operation_name] = (
                make_plan(self._core, prepared.document, operation) if self._plans else None
            )
        plan = prepared.plans[request.operation_name]
        if plan is None:
            return None
        try:
            return await plan.run(context, request.variables or {})
        except PlanFailed as failed:
            if isinstance(failed.__cause__, Unavailable | TimedOut):
                # graphql-core is to tell it, not to wait for it once more.
                context.fault = failed.__cause__
            return None

    async def _execute(
        self, document: DocumentNode, request: Request, context: Context
    ) -> ExecutionResult:
        result = execute(
            self._core,
            document,
            context_value=context,
            variable_values=dict(request.variables or {}),
            operation_name=request.operation_name,
            max_coercion_errors=MAX_COERCION_ERRORS,
            executor_class=self._schema.execution_context_class,
            is_awaitable=optimized_is_awaitable,  # type: ignore[arg-type]
        )
        return result if isinstance(result, ExecutionResult) else await result

    def _prepare(self, query: str) -> _Prepared:
        prepared = self._documents.get(query)
        if prepared is not None:
            self._documents.move_to_end(query)
            return prepared
        try:
            document = parse(query)
        except GraphQLError as error:
            prepared = _Prepared(None, [error])
        else:
            found = validate_document(self._core, document, tuple(specified_rules))
            prepared = (
                _Prepared(None, [name_argument(error, document, None) for error in found])
                if found
                else _Prepared(document, [])
            )
        if len(query) <= MAX_REMEMBERED_CHARACTERS:
            self._documents[query] = prepared
            if len(self._documents) > MAX_DOCUMENTS:
                self._documents.popitem(last=False)
        return prepared

    def _bounded(self, operation: OperationDefinitionNode) -> str:
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
    def _refused(errors: list[GraphQLError], context: Context) -> Answer:
        told = tell_all(errors, executed=False, request_id=context.request_id)
        return Answer({"errors": told}, executed=False)

    @staticmethod
    def _body(result: ExecutionResult, context: Context) -> dict[str, Any]:
        if not result.errors:
            return {"data": result.data}
        told = tell_all(result.errors, executed=True, request_id=context.request_id)
        return {"data": result.data, "errors": told}
