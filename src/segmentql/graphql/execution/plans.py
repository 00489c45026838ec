"""Plans: compiled operations, which execute the common case without graphql-core.

`compiler.py` compiles a plan once per operation of a document. Executing it takes a tenth of the
time that graphql-core takes to walk the document again.

A plan has no error handling. Whatever goes wrong (a resolver raises, a non-null field is null, a
value cannot be serialized) raises `PlanFallback`, and the executor executes the operation again by
graphql-core, which reports every error as the specification requires. That is safe because queries
change nothing, and a mutation does not run twice: graphql-core gets its `MutationResult`.
`tests/graphql/test_plans.py` checks on random documents that both give the same response.
"""

import asyncio
import time
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, TypeAlias

import strawberry
from graphql.execution.values import VariableValues
from strawberry.permission import BasePermission

from graphql import GraphQLSchema, OperationDefinitionNode
from segmentql.graphql.context import Context, Info
from segmentql.graphql.cost.scheduling import TIME_SLICE_SECONDS, yield_to_event_loop
from segmentql.graphql.execution.input_coercion import Arguments
from segmentql.graphql.execution.response_size import ResponseTooLarge
from segmentql.graphql.execution.variable_coercion import compile_variables
from segmentql.graphql.types.idempotency import IdempotentCall

SLICE_VALUES: Final = 50
"""The number of values that are written before a time slice may end.

The loads that they start join one batch."""

SLICE_BYTES: Final = 65_536
"""The number of bytes after which a time slice may end before `SLICE_VALUES` values."""


@dataclass(frozen=True, slots=True)
class MutationResult:
    """The result of a mutation's resolver, which must not run again."""

    payload: object = None
    error: Exception | None = None
    """The exception that the resolver raised instead of returning a payload."""

    def resolve(self, resolver: Callable[..., Any], source: Any, info: Any, **values: Any) -> Any:
        """Return the result for the root field, and call the resolvers of the fields below it.

        graphql-core calls this as middleware.
        """
        if info.path.prev is not None:
            return resolver(source, info, **values)
        if self.error:
            raise self.error
        return self.payload


class PlanFallback(Exception):
    """The plan failed, and graphql-core must execute the operation."""

    def __init__(self, mutation_result: MutationResult | None = None) -> None:
        super().__init__()
        self.mutation_result = mutation_result
        """The result of the mutation, if its resolver was called."""


class ExecutionState:
    """The state of one execution of a plan."""

    __slots__ = ("_infos", "context", "pending", "remaining_bytes", "variables")

    def __init__(self, context: Context, variables: VariableValues) -> None:
        self.context = context
        self.variables = variables
        self.remaining_bytes = context.remaining_bytes
        """The number of bytes that may be added to the response."""
        self.pending: list[PendingField] = []
        """The fields whose values are awaited."""
        self._infos: dict[frozenset[str], Info] = {}

    def check_remaining_bytes(self) -> None:
        """Check the size of the response.

        Raises:
            ResponseTooLarge: The response exceeds its limit.
        """
        if self.remaining_bytes < 0:
            self.context.remaining_bytes = self.remaining_bytes
            raise self.context.response_too_large()

    def info(self, selected_fields: frozenset[str]) -> Info:
        """Return the `info` of a resolver on whose result these fields are selected."""
        info = self._infos.get(selected_fields)
        if info is None:
            info = self._infos[selected_fields] = strawberry.Info(
                _raw_info=MinimalResolveInfo(self.context, selected_fields),  # type: ignore[arg-type]
                _field=None,  # type: ignore[arg-type]
            )
        return info

    async def write_fields(
        self, source: object, writers: "Sequence[FieldWriter]"
    ) -> dict[str, Any]:
        """Return fields of `source` with all fields below them; raise the first error."""
        clock = time.perf_counter
        data: dict[str, Any] = {}
        try:
            for write in writers:
                write(source, data, self)
            while self.pending:
                # All values of a level are awaited before any of them is written, so that the loads
                # of the next level start in one iteration of the event loop and join one batch.
                batch = self.pending
                values = [await pending.value for pending in batch]
                self.pending = []
                slice_ends = clock() + TIME_SLICE_SECONDS
                slice_ends_at_bytes = self.remaining_bytes - SLICE_BYTES
                for count, ((_, into, key, serialize), value) in enumerate(
                    zip(batch, values, strict=True), start=1
                ):
                    into[key] = serialize(value, self)
                    if (
                        count % SLICE_VALUES == 0 or self.remaining_bytes < slice_ends_at_bytes
                    ) and clock() > slice_ends:
                        self.check_remaining_bytes()
                        await yield_to_event_loop()
                        slice_ends = clock() + TIME_SLICE_SECONDS
                        slice_ends_at_bytes = self.remaining_bytes - SLICE_BYTES
        except BaseException:
            _cancel_pending(self.pending)
            raise
        self.check_remaining_bytes()
        self.context.remaining_bytes = self.remaining_bytes
        return data


class PendingField(NamedTuple):
    """A field whose value is awaited, and its place in the response."""

    value: asyncio.Future[Any]
    into: dict[str, Any]
    key: str
    serialize: "ValueSerializer"


class MinimalResolveInfo(NamedTuple):
    """The part of graphql-core's resolve info that the resolvers use.

    A resolver that reads another attribute raises AttributeError. A query then falls back to
    graphql-core; a mutation fails, which its first test detects.
    """

    context: Context
    selected_fields: frozenset[str]
    """The fields without arguments that are selected on the resolver's result."""


ValueSerializer: TypeAlias = Callable[[Any, ExecutionState], Any]
"""A function that returns the value of a resolver or attribute as the response has it."""

FieldWriter: TypeAlias = Callable[[Any, dict[str, Any], ExecutionState], None]
"""A function that writes one field of an object into the response."""


class Plan(ABC):
    """A compiled operation, which can be executed many times."""

    def __init__(self, schema: GraphQLSchema, operation: OperationDefinitionNode) -> None:
        self._coerce = compile_variables(schema, operation.variable_definitions or ())

    @abstractmethod
    async def run(
        self, context: Context, variables: Mapping[str, Any], event: object = None
    ) -> dict[str, Any]:
        """Execute the operation and return the `data` of the response.

        Args:
            context: The context of the request.
            variables: The variables of the request.
            event: The event of a subscription, which is the value of its root field.

        Raises:
            PlanFallback: The plan failed; graphql-core must execute the operation.
            ResponseTooLarge: The response exceeds its limit.
        """

    def _coerce_variables(self, context: Context, variables: Mapping[str, Any]) -> ExecutionState:
        coerced = self._coerce(variables)
        if coerced is None:
            raise PlanFallback
        return ExecutionState(context, coerced)


class QueryPlan(Plan):
    """The plan of a query, or of each event of a subscription."""

    def __init__(
        self,
        schema: GraphQLSchema,
        operation: OperationDefinitionNode,
        writers: Sequence[FieldWriter],
    ) -> None:
        super().__init__(schema, operation)
        self._writers = writers

    async def run(
        self, context: Context, variables: Mapping[str, Any], event: object = None
    ) -> dict[str, Any]:
        state = self._coerce_variables(context, variables)
        try:
            return await state.write_fields(event, self._writers)
        except ResponseTooLarge:
            raise
        except Exception as error:
            raise PlanFallback from error


@dataclass(frozen=True, slots=True)
class MutationField:
    """The root field of a mutation."""

    permissions: Sequence[BasePermission]
    arguments: Arguments
    resolve: Callable[..., Awaitable[Any]]
    write_payload: FieldWriter
    """The writer of the payload, which is its source."""
    find_idempotent_call: Callable[[Context, VariableValues], IdempotentCall | None]
    """Returns the call of the field with its idempotency key, if it has one."""


class MutationPlan(Plan):
    """The plan of a mutation with one root field."""

    def __init__(
        self, schema: GraphQLSchema, operation: OperationDefinitionNode, field: MutationField
    ) -> None:
        super().__init__(schema, operation)
        self._field = field

    async def run(
        self, context: Context, variables: Mapping[str, Any], event: object = None
    ) -> dict[str, Any]:
        state = self._coerce_variables(context, variables)
        field = self._field
        info = state.info(frozenset())
        try:
            for permission in field.permissions:
                if permission.has_permission(None, info) is not True:
                    raise PlanFallback
            arguments = field.arguments(state.variables)
            if context.idempotency_keys is not None:
                context.idempotency_keys.current_call = field.find_idempotent_call(
                    context, state.variables
                )
        except Exception as error:
            raise PlanFallback from error
        try:
            payload = await field.resolve(None, info=info, **arguments)
        except Exception as error:
            raise PlanFallback(MutationResult(error=error)) from error
        try:
            return await state.write_fields(payload, [field.write_payload])
        except ResponseTooLarge:
            raise
        except Exception as error:
            raise PlanFallback(MutationResult(payload)) from error


def _cancel_pending(pending: Sequence[PendingField]) -> None:
    """Cancel the values that will not be read."""
    for value, *_ in pending:
        if value.done() and not value.cancelled():
            value.exception()  # otherwise asyncio logs that the exception was never retrieved
        else:
            value.cancel()
