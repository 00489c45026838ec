"""Documents: parsed, checked, validated and compiled once, and remembered.

A large one is prepared on a thread of its own, so that it does not keep others from the event loop.
"""

import asyncio
import re
import time
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Final

from strawberry.schema.validation_rules.maybe_null import MaybeNullValidationRule
from strawberry.schema.validation_rules.one_of import OneOfInputValidationRule

from graphql import (
    DocumentNode,
    GraphQLError,
    GraphQLSchema,
    NoSchemaIntrospectionCustomRule,
    OperationDefinitionNode,
    OperationType,
    specified_rules,
    validate,
)
from segmentql.graphql.arguments import name_argument
from segmentql.graphql.compiler import make_plan
from segmentql.graphql.costs import Cost, estimate
from segmentql.graphql.limits import Limits, parsed
from segmentql.graphql.plans import Plan

MAX_DOCUMENTS: Final = 500
"""Documents remembered; those least lately used go first."""

MAX_REMEMBERED_CHARACTERS: Final = 20_000
"""Of one document."""

MAX_REMEMBERED: Final = 500_000
"""Characters of all documents; as syntax trees they take some hundred times as many bytes."""

MAX_REFUSED: Final = 50
"""Refused documents remembered, apart from the others, which they must not push out."""

MAX_ERRORS: Final = 8
"""Told of one document, and then that there are more: an answer must not outgrow its question."""

ASIDE_CHARACTERS: Final = 1_000
"""Documents longer than this are prepared on a thread: some milliseconds' work."""


RULES: Final = (*specified_rules, MaybeNullValidationRule, OneOfInputValidationRule)
"""GraphQL's own and Strawberry's."""

SUGGESTION: Final = re.compile(r" Did you mean [^?]*\?$")


@dataclass(frozen=True, kw_only=True)
class Manners:
    """What a client may learn of the schema by asking; each is a setting."""

    introspection: bool = True
    suggestions: bool = True
    """Whether errors name what exists: "Did you mean ...?"."""


@dataclass(frozen=True, slots=True)
class Operation:
    """What is remembered of an operation."""

    node: OperationDefinitionNode
    plan: Plan | None
    """None where graphql-core executes it."""
    cost: Cost

    @property
    def is_query(self) -> bool:
        return self.node.operation is OperationType.QUERY


@dataclass(frozen=True, slots=True)
class Prepared:
    """What is remembered of a document: itself with its operations, or why it is refused."""

    document: DocumentNode | None
    errors: Sequence[GraphQLError] = ()
    operations: Mapping[str | None, Operation] = field(default_factory=dict)
    """By name; where there is one alone, also by None."""


REST: Final = 3
"""How many times as long as it worked the thread rests before the next document."""


class Remembered:
    """Documents that were prepared, by their text; not too many, nor of too many characters."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._documents: OrderedDict[str, Prepared] = OrderedDict()
        self._characters = 0

    def get(self, query: str) -> Prepared | None:
        prepared = self._documents.get(query)
        if prepared is not None:
            self._documents.move_to_end(query)
        return prepared

    def put(self, query: str, prepared: Prepared) -> None:
        if len(query) > MAX_REMEMBERED_CHARACTERS or query in self._documents:
            return
        self._documents[query] = prepared
        self._characters += len(query)
        while len(self._documents) > self._most or self._characters > MAX_REMEMBERED:
            gone, _ = self._documents.popitem(last=False)
            self._characters -= len(gone)


class Documents:
    """The documents of one schema; without `plans` all is left to graphql-core."""

    def __init__(
        self, schema: GraphQLSchema, limits: Limits, manners: Manners, *, plans: bool
    ) -> None:
        self._schema = schema
        self._rules = RULES if manners.introspection else (*RULES, NoSchemaIntrospectionCustomRule)
        self._hide_suggestions = not manners.suggestions
        self._limits = limits
        self._plans = plans
        self._valid = Remembered(MAX_DOCUMENTS)
        self._refused = Remembered(MAX_REFUSED)
        self._aside = ThreadPoolExecutor(max_workers=1, thread_name_prefix="documents")
        self._busy_seconds = 0.0
        self._being_prepared: dict[str, asyncio.Future[Prepared]] = {}

    def close(self) -> None:
        """End the thread; nothing is to be asked any more."""
        self._aside.shutdown(wait=False, cancel_futures=True)

    async def prepare(self, query: str) -> Prepared:
        """What there is to know of a document, or why it is refused."""
        prepared = self._valid.get(query) or self._refused.get(query)
        if prepared is not None:
            return prepared
        if len(query) <= ASIDE_CHARACTERS:
            prepared = self._prepared(query)
        else:
            prepared = await self._prepared_aside(query)
        remembered = self._valid if prepared.document else self._refused
        remembered.put(query, prepared)
        return prepared

    async def _prepared_aside(self, query: str) -> Prepared:
        under_way = self._being_prepared.get(query)
        if under_way is None:
            loop = asyncio.get_running_loop()
            under_way = loop.run_in_executor(self._aside, self._prepared_timed, query)
            self._aside.submit(self._rest)
            self._being_prepared[query] = under_way
            under_way.add_done_callback(lambda _: self._being_prepared.pop(query))
        return await asyncio.shield(under_way)  # another may wait for it as well

    def _prepared_timed(self, query: str) -> Prepared:
        began = time.perf_counter()
        try:
            return self._prepared(query)
        finally:
            self._busy_seconds = time.perf_counter() - began

    def _rest(self) -> None:
        # The thread takes turns with the event loop, by the interpreter's lock. Whoever sends
        # large documents without end has a share of the time, not half of it.
        time.sleep(REST * self._busy_seconds)

    def _prepared(self, query: str) -> Prepared:
        try:
            document = parsed(query, self._limits)
        except GraphQLError as error:
            return Prepared(None, [error])
        found = validate(
            self._schema,
            document,
            self._rules,
            max_errors=MAX_ERRORS,
            hide_suggestions=self._hide_suggestions,
        )
        if found:
            if self._hide_suggestions:  # one of graphql-core's rules does not know of it
                for wrong in found:
                    wrong.message = SUGGESTION.sub("", wrong.message)
            return Prepared(None, [name_argument(error, document, None) for error in found])
        operations = {
            node.name.value if node.name else None: Operation(
                node,
                make_plan(self._schema, document, node) if self._plans else None,
                estimate(self._schema, document, node),
            )
            for node in document.definitions
            if isinstance(node, OperationDefinitionNode)
        }
        if len(operations) == 1:
            operations[None] = next(iter(operations.values()))
        return Prepared(document, (), operations)
