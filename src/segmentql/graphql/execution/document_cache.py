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
from segmentql.graphql.cost.document_limits import DocumentLimits, parse_within_limits
from segmentql.graphql.cost.query_cost import Cost, estimate
from segmentql.graphql.execution.compiler import compile_operation
from segmentql.graphql.execution.error_locations import name_argument
from segmentql.graphql.execution.plans import Plan

MAX_DOCUMENTS: Final = 500
"""Documents remembered; those least lately used go first."""

MAX_CACHED_DOCUMENT_CHARACTERS: Final = 20_000
"""Of one document."""

MAX_CACHED_CHARACTERS: Final = 500_000
"""Characters of all documents; as syntax trees they take some hundred times as many bytes."""

MAX_INVALID_DOCUMENTS: Final = 50
"""Refused documents remembered, apart from the others, which they must not push out."""

MAX_ERRORS: Final = 8
"""Told of one document, and then that there are more: an answer must not outgrow its question."""

OFFLOAD_THRESHOLD_CHARACTERS: Final = 1_000
"""Documents longer than this are prepared on a thread: some milliseconds' work."""


RULES: Final = (*specified_rules, MaybeNullValidationRule, OneOfInputValidationRule)
"""GraphQL's own and Strawberry's."""

SUGGESTION: Final = re.compile(r" Did you mean [^?]*\?$")


@dataclass(frozen=True, kw_only=True)
class SchemaExposure:
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
class PreparedDocument:
    """What is remembered of a document: itself with its operations, or why it is refused."""

    document: DocumentNode | None
    errors: Sequence[GraphQLError] = ()
    operations: Mapping[str | None, Operation] = field(default_factory=dict)
    """By name; where there is one alone, also by None."""


THROTTLE_FACTOR: Final = 3
"""How many times as long as it worked the thread rests before the next document."""


class LruDocumentCache:
    """Documents that were prepared, by their text; not too many, nor of too many characters."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._documents: OrderedDict[str, PreparedDocument] = OrderedDict()
        self._characters = 0

    def get(self, query: str) -> PreparedDocument | None:
        prepared = self._documents.get(query)
        if prepared is not None:
            self._documents.move_to_end(query)
        return prepared

    def put(self, query: str, prepared: PreparedDocument) -> None:
        if len(query) > MAX_CACHED_DOCUMENT_CHARACTERS or query in self._documents:
            return
        self._documents[query] = prepared
        self._characters += len(query)
        while len(self._documents) > self._most or self._characters > MAX_CACHED_CHARACTERS:
            gone, _ = self._documents.popitem(last=False)
            self._characters -= len(gone)


class DocumentCache:
    """The documents of one schema; without `plans` all is left to graphql-core."""

    def __init__(
        self,
        schema: GraphQLSchema,
        limits: DocumentLimits,
        schema_exposure: SchemaExposure,
        *,
        plans: bool,
    ) -> None:
        self._schema = schema
        self._rules = (
            RULES if schema_exposure.introspection else (*RULES, NoSchemaIntrospectionCustomRule)
        )
        self._hide_suggestions = not schema_exposure.suggestions
        self._limits = limits
        self._plans = plans
        self._valid = LruDocumentCache(MAX_DOCUMENTS)
        self._refused = LruDocumentCache(MAX_INVALID_DOCUMENTS)
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="documents")
        self._busy_seconds = 0.0
        self._in_progress: dict[str, asyncio.Future[PreparedDocument]] = {}

    def close(self) -> None:
        """End the thread; nothing is to be asked any more."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def prepare(self, query: str) -> PreparedDocument:
        """What there is to know of a document, or why it is refused."""
        prepared = self._valid.get(query) or self._refused.get(query)
        if prepared is not None:
            return prepared
        if len(query) <= OFFLOAD_THRESHOLD_CHARACTERS:
            prepared = self._prepare_document(query)
        else:
            prepared = await self._prepare_in_thread(query)
        remembered = self._valid if prepared.document else self._refused
        remembered.put(query, prepared)
        return prepared

    async def _prepare_in_thread(self, query: str) -> PreparedDocument:
        in_progress = self._in_progress.get(query)
        if in_progress is None:
            loop = asyncio.get_running_loop()
            in_progress = loop.run_in_executor(self._thread, self._prepare_and_time, query)
            self._thread.submit(self._throttle)
            self._in_progress[query] = in_progress
            in_progress.add_done_callback(lambda _: self._in_progress.pop(query))
        return await asyncio.shield(in_progress)  # another may wait for it as well

    def _prepare_and_time(self, query: str) -> PreparedDocument:
        began = time.perf_counter()
        try:
            return self._prepare_document(query)
        finally:
            self._busy_seconds = time.perf_counter() - began

    def _throttle(self) -> None:
        # The thread takes turns with the event loop, by the interpreter's lock. Whoever sends
        # large documents without end has a share of the time, not half of it.
        time.sleep(THROTTLE_FACTOR * self._busy_seconds)

    def _prepare_document(self, query: str) -> PreparedDocument:
        try:
            document = parse_within_limits(query, self._limits)
        except GraphQLError as error:
            return PreparedDocument(None, [error])
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
            return PreparedDocument(None, [name_argument(error, document, None) for error in found])
        operations = {
            node.name.value if node.name else None: Operation(
                node,
                compile_operation(self._schema, document, node) if self._plans else None,
                estimate(self._schema, document, node),
            )
            for node in document.definitions
            if isinstance(node, OperationDefinitionNode)
        }
        if len(operations) == 1:
            operations[None] = next(iter(operations.values()))
        return PreparedDocument(document, (), operations)
