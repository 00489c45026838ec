"""Plans: compiled operations, the common case of execution without graphql-core's general one.

A plan is made once a document (`compiler.py`). Running it costs a tenth of walking the document
again.

It is right by doing little. A plan knows no errors: whatever goes wrong (a resolver raises, a null
stands where none may, a value cannot be written) raises `PlanFallback`, and the caller executes the
operation anew with graphql-core, which tells every error as the specification wants it. That is
safe because queries change nothing, and a change that was begun is not made anew: graphql-core gets
its outcome. `tests/graphql/test_plans.py` holds the two equal on random documents.
"""

import asyncio
import time
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, TypeAlias

import strawberry
from graphql.execution.values import VariableValues, get_variable_values
from strawberry.permission import BasePermission

from graphql import GraphQLSchema, OperationDefinitionNode
from segmentql.graphql.context import Context, Info
from segmentql.graphql.cost.scheduling import TIME_SLICE_SECONDS, yield_to_event_loop
from segmentql.graphql.execution.input_coercion import Arguments
from segmentql.graphql.execution.response_size import ResponseTooLarge

SLICE_VALUES: Final = 50
"""Answers written in one turn in any case: what they ask for in turn shares a statement."""

SLICE_BYTES: Final = 65_536
"""Bytes after which a turn may end before `SLICE_VALUES` answers are written."""


@dataclass(frozen=True, slots=True)
class MutationResult:
    """What came of a change that was made, or refused: it must not be made again."""

    payload: object = None
    fault: Exception | None = None
    """What the resolver raised, instead of the payload."""

    def resolve(self, resolver: Callable[..., Any], source: Any, info: Any, **given: Any) -> Any:
        """Answer for the change's resolver, as graphql-core's middleware; others are called."""
        if info.path.prev is not None:
            return resolver(source, info, **given)
        if self.fault:
            raise self.fault
        return self.payload


class PlanFallback(Exception):
    """graphql-core must execute the operation, because something in it went wrong."""

    def __init__(self, outcome: MutationResult | None = None) -> None:
        super().__init__()
        self.outcome = outcome
        """Of the change, where it was begun; graphql-core is not to begin it again."""


class ExecutionState:
    """One execution of a plan: what resolvers get, and what is still awaited."""

    __slots__ = ("_infos", "context", "pending", "remaining_bytes", "variables")

    def __init__(self, context: Context, variables: VariableValues) -> None:
        self.context = context
        self.variables = variables
        self.remaining_bytes = context.remaining_bytes
        """How many bytes the response may still have."""
        self.pending: list[PendingField] = []
        self._infos: dict[frozenset[str], Info] = {}

    def check_remaining_bytes(self) -> None:
        """Stop where the response is too large.

        Raises:
            ResponseTooLarge: it has more bytes than it may have.
        """
        if self.remaining_bytes < 0:
            self.context.remaining_bytes = self.remaining_bytes
            raise self.context.response_too_large()

    def info(self, selected_fields: frozenset[str]) -> Info:
        """What the resolver of a field gets below which these are asked for."""
        info = self._infos.get(selected_fields)
        if info is None:
            info = self._infos[selected_fields] = strawberry.Info(
                _raw_info=MinimalResolveInfo(self.context, selected_fields),  # type: ignore[arg-type]
                _field=None,  # type: ignore[arg-type]
            )
        return info

    async def fill(self, source: object, fields: "Sequence[FieldWriter]") -> dict[str, Any]:
        """These fields of `source`, with all that is below them; what goes wrong is raised."""
        clock = time.perf_counter
        data: dict[str, Any] = {}
        try:
            for fill in fields:
                fill(source, data, self)
            while self.pending:
                # A whole wave is awaited before any of it is written, so that what its writing
                # begins in turn is asked for in one turn of the loop, and so in one batch.
                batch = self.pending
                answers = [await pending.answer for pending in batch]
                self.pending = []
                slice_ends = clock() + TIME_SLICE_SECONDS
                slice_room = self.remaining_bytes - SLICE_BYTES
                for number, ((_, into, key, serialize), answer) in enumerate(
                    zip(batch, answers, strict=True), start=1
                ):
                    into[key] = serialize(answer, self)
                    if (
                        number % SLICE_VALUES == 0 or self.remaining_bytes < slice_room
                    ) and clock() > slice_ends:
                        self.check_remaining_bytes()
                        await yield_to_event_loop()
                        slice_ends = clock() + TIME_SLICE_SECONDS
                        slice_room = self.remaining_bytes - SLICE_BYTES
        except BaseException:
            _cancel_pending(self.pending)
            raise
        self.check_remaining_bytes()
        self.context.remaining_bytes = self.remaining_bytes
        return data


class PendingField(NamedTuple):
    """An answer to come, and where it goes."""

    answer: asyncio.Future[Any]
    into: dict[str, Any]
    key: str
    serialize: "ValueSerializer"


class MinimalResolveInfo(NamedTuple):
    """What of graphql-core's resolve info our resolvers use; asking for more fails the plan.

    Or the change, which is a fault that its first test finds.
    """

    context: Context
    selected_fields: frozenset[str]
    """The fields asked for, without arguments, of what the resolver answers with."""


ValueSerializer: TypeAlias = Callable[[Any, ExecutionState], Any]
"""Makes what the response holds out of what a resolver or attribute gave."""

FieldWriter: TypeAlias = Callable[[Any, dict[str, Any], ExecutionState], None]
"""Puts one field of an object into the response's dict."""


class Plan(ABC):
    """One operation of one document, ready to run many times."""

    def __init__(self, schema: GraphQLSchema, operation: OperationDefinitionNode) -> None:
        self._schema = schema
        self._definitions = operation.variable_definitions or ()

    @abstractmethod
    async def run(self, context: Context, variables: Mapping[str, Any]) -> dict[str, Any]:
        """Execute; the response's `data`.

        Raises:
            PlanFailed: something went wrong; execute the operation by graphql-core.
            ResponseTooLarge: the response has more bytes than it may have.
        """

    def _coerce_variables(self, context: Context, variables: Mapping[str, Any]) -> ExecutionState:
        coerced = get_variable_values(self._schema, self._definitions, dict(variables))
        if isinstance(coerced, list):
            raise PlanFallback
        return ExecutionState(context, coerced)


class QueryPlan(Plan):
    """A query, of any fields."""

    def __init__(
        self,
        schema: GraphQLSchema,
        operation: OperationDefinitionNode,
        fields: Sequence[FieldWriter],
    ) -> None:
        super().__init__(schema, operation)
        self._fields = fields

    async def run(self, context: Context, variables: Mapping[str, Any]) -> dict[str, Any]:
        run = self._coerce_variables(context, variables)
        try:
            return await run.fill(None, self._fields)
        except ResponseTooLarge:
            raise
        except Exception as error:
            raise PlanFallback from error


@dataclass(frozen=True, slots=True)
class MutationField:
    """The one field of a mutation."""

    permissions: Sequence[BasePermission]
    arguments: Arguments
    resolve: Callable[..., Awaitable[Any]]
    fill: FieldWriter
    """Puts the payload, which is its source, into the response's data."""


class MutationPlan(Plan):
    """A mutation of one field."""

    def __init__(
        self, schema: GraphQLSchema, operation: OperationDefinitionNode, change: MutationField
    ) -> None:
        super().__init__(schema, operation)
        self._change = change

    async def run(self, context: Context, variables: Mapping[str, Any]) -> dict[str, Any]:
        run = self._coerce_variables(context, variables)
        change = self._change
        info = run.info(frozenset())
        try:
            for permission in change.permissions:
                if permission.has_permission(None, info) is not True:
                    raise PlanFallback
            given = change.arguments(run.variables)
        except Exception as error:
            raise PlanFallback from error
        try:
            payload = await change.resolve(None, info=info, **given)
        except Exception as error:
            raise PlanFallback(MutationResult(fault=error)) from error
        try:
            return await run.fill(payload, [change.fill])
        except ResponseTooLarge:
            raise
        except Exception as error:
            raise PlanFallback(MutationResult(payload)) from error


def _cancel_pending(pending: Sequence[PendingField]) -> None:
    """Take back what nobody will read."""
    for answer, *_ in pending:
        if answer.done() and not answer.cancelled():
            answer.exception()  # seen, so that it is not reported as lost
        else:
            answer.cancel()
