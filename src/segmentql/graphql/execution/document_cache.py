"""The cache of documents, which are parsed, checked, validated and compiled once.

Large documents are prepared in a thread, so that they do not block the event loop.
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

from graphql import (
    DocumentNode,
    GraphQLError,
    GraphQLSchema,
    NoSchemaIntrospectionCustomRule,
    OperationDefinitionNode,
    OperationType,
    ValuesOfCorrectTypeRule,
    specified_rules,
    validate,
)
from segmentql.graphql.cost.document_limits import DocumentLimits, parse_within_limits
from segmentql.graphql.cost.query_cost import Cost, estimate
from segmentql.graphql.execution.compiler import compile_operation
from segmentql.graphql.execution.error_locations import ErrorLocator
from segmentql.graphql.execution.idempotency_keys import IdempotentFieldRule, RootFieldKeys
from segmentql.graphql.execution.one_of_rule import OneOfRule
from segmentql.graphql.execution.plans import Plan
from segmentql.graphql.execution.value_rule import LocatedValuesRule

MAX_DOCUMENTS: Final = 500
"""The maximum number of cached valid documents. The least recently used ones are evicted first."""

MAX_CACHED_DOCUMENT_CHARACTERS: Final = 20_000
"""The maximum length of a cached document whose text a client has sent, in characters. Longer ones
are not cached, so that they cannot evict many others. Stored documents may be longer."""

MAX_CACHED_CHARACTERS: Final = 500_000
"""The maximum length of all documents in one cache together, in characters.

A syntax tree takes about a hundred bytes per character."""

MAX_INVALID_DOCUMENTS: Final = 50
"""The maximum number of cached invalid documents. They have their own cache, so that they cannot
evict valid documents."""

MAX_ERRORS: Final = 8
"""The maximum number of validation errors in a response, which must not outgrow its request."""

OFFLOAD_THRESHOLD_CHARACTERS: Final = 1_000
"""The length above which documents are prepared in a thread. Preparing one takes milliseconds."""

THROTTLE_FACTOR: Final = 3
"""The thread's pause after each document, as a multiple of its processing time."""

RULES: Final = (
    *(LocatedValuesRule if rule is ValuesOfCorrectTypeRule else rule for rule in specified_rules),
    MaybeNullValidationRule,
    OneOfRule,
    IdempotentFieldRule,
)
"""The validation rules of the GraphQL specification, of Strawberry and of our directive."""

SUGGESTION: Final = re.compile(r" Did you mean [^?]*\?$")


@dataclass(frozen=True, kw_only=True)
class SchemaExposure:
    """What clients may learn about the schema from the server. Each field is a setting."""

    introspection: bool = True
    """Whether clients may introspect the schema."""
    suggestions: bool = True
    """Whether errors suggest names of the schema, as in "Did you mean ...?"."""


@dataclass(frozen=True, slots=True)
class Operation:
    """An operation of a cached document."""

    node: OperationDefinitionNode
    plan: Plan | None
    """The plan; None if graphql-core executes the operation."""
    cost: Cost
    root_field_keys: RootFieldKeys | None
    """The root fields with their idempotency keys; None if the operation is not a mutation."""

    @property
    def is_query(self) -> bool:
        return self.node.operation is OperationType.QUERY

    @property
    def is_subscription(self) -> bool:
        return self.node.operation is OperationType.SUBSCRIPTION


@dataclass(frozen=True, slots=True)
class PreparedDocument:
    """A cached document: its operations if it is valid, or its errors."""

    document: DocumentNode | None
    """The syntax tree; None if the document is invalid."""
    errors: Sequence[GraphQLError] = ()
    operations: Mapping[str | None, Operation] = field(default_factory=dict)
    """The operations by name. If there is only one, it also has the key None."""


class LruDocumentCache:
    """A least recently used cache of prepared documents, by their text.

    Their number and their characters are limited.
    """

    def __init__(self, max_documents: int) -> None:
        self._max_documents = max_documents
        self._documents: OrderedDict[str, PreparedDocument] = OrderedDict()
        self._characters = 0

    def get(self, query: str) -> PreparedDocument | None:
        """Return a document and mark it as used; None if it is not cached."""
        prepared = self._documents.get(query)
        if prepared is not None:
            self._documents.move_to_end(query)
        return prepared

    def put(self, query: str, prepared: PreparedDocument, *, is_stored: bool = False) -> None:
        """Cache a document, and evict others beyond the limits.

        Args:
            query: The text of the document.
            prepared: The document.
            is_stored: Whether it is a stored document, which may be longer than others.
        """
        max_characters = MAX_CACHED_CHARACTERS if is_stored else MAX_CACHED_DOCUMENT_CHARACTERS
        if len(query) > max_characters or query in self._documents:
            return
        self._documents[query] = prepared
        self._characters += len(query)
        while (
            len(self._documents) > self._max_documents or self._characters > MAX_CACHED_CHARACTERS
        ):
            evicted, _ = self._documents.popitem(last=False)
            self._characters -= len(evicted)


class DocumentCache:
    """The documents of one schema."""

    def __init__(
        self,
        schema: GraphQLSchema,
        limits: DocumentLimits,
        schema_exposure: SchemaExposure,
        *,
        plans: bool,
    ) -> None:
        """Create the cache.

        Args:
            schema: The schema.
            limits: The limits of each document.
            schema_exposure: What clients may learn about the schema.
            plans: Whether operations are compiled to plans.
        """
        self._schema = schema
        self._rules = (
            RULES if schema_exposure.introspection else (*RULES, NoSchemaIntrospectionCustomRule)
        )
        self._hide_suggestions = not schema_exposure.suggestions
        self._limits = limits
        self._plans = plans
        self._valid = LruDocumentCache(MAX_DOCUMENTS)
        self._invalid = LruDocumentCache(MAX_INVALID_DOCUMENTS)
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="documents")
        self._busy_seconds = 0.0
        self._in_progress: dict[str, asyncio.Future[PreparedDocument]] = {}

    def close(self) -> None:
        """Stop the thread. `prepare` must not be called any more."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def prepare(self, query: str, *, is_stored: bool = False) -> PreparedDocument:
        """Return a document from the cache, or prepare and cache it.

        Args:
            query: The text of the document.
            is_stored: Whether it is a stored document.
        """
        prepared = self._valid.get(query) or self._invalid.get(query)
        if prepared is not None:
            return prepared
        if len(query) <= OFFLOAD_THRESHOLD_CHARACTERS:
            prepared = self._prepare_document(query)
        else:
            prepared = await self._prepare_in_thread(query)
        cache = self._valid if prepared.document else self._invalid
        cache.put(query, prepared, is_stored=is_stored)
        return prepared

    def errors_of(self, query: str) -> Sequence[GraphQLError]:
        """Return the errors of a document, which is not cached; none if it is valid."""
        return self._prepare_document(query).errors

    async def _prepare_in_thread(self, query: str) -> PreparedDocument:
        in_progress = self._in_progress.get(query)
        if in_progress is None:
            loop = asyncio.get_running_loop()
            in_progress = loop.run_in_executor(self._thread, self._prepare_and_time, query)
            self._thread.submit(self._throttle)
            self._in_progress[query] = in_progress
            in_progress.add_done_callback(lambda _: self._in_progress.pop(query))
        return await asyncio.shield(in_progress)  # another request may wait for it as well

    def _prepare_and_time(self, query: str) -> PreparedDocument:
        started = time.perf_counter()
        try:
            return self._prepare_document(query)
        except StopIteration as error:  # a future cannot have it, so `prepare` would never return
            raise RuntimeError from error
        finally:
            self._busy_seconds = time.perf_counter() - started

    def _throttle(self) -> None:
        # The thread shares the interpreter's lock with the event loop. The pause keeps a client
        # that sends large documents without end from taking half of the CPU time.
        time.sleep(THROTTLE_FACTOR * self._busy_seconds)

    def _prepare_document(self, query: str) -> PreparedDocument:
        try:
            document = parse_within_limits(query, self._limits)
        except GraphQLError as error:
            return PreparedDocument(None, [error])
        validation_errors = validate(
            self._schema,
            document,
            self._rules,
            max_errors=MAX_ERRORS,
            hide_suggestions=self._hide_suggestions,
        )
        if validation_errors:
            if self._hide_suggestions:  # one rule of graphql-core ignores hide_suggestions
                for invalid in validation_errors:
                    invalid.message = SUGGESTION.sub("", invalid.message)
            locator = ErrorLocator(self._schema, document, hide_names=self._hide_suggestions)
            return PreparedDocument(None, locator.add_locations(validation_errors))
        operations = {
            node.name.value if node.name else None: Operation(
                node,
                compile_operation(self._schema, document, node) if self._plans else None,
                estimate(self._schema, document, node),
                RootFieldKeys(document, node) if node.operation is OperationType.MUTATION else None,
            )
            for node in document.definitions
            if isinstance(node, OperationDefinitionNode)
        }
        if len(operations) == 1:
            operations[None] = next(iter(operations.values()))
        return PreparedDocument(document, (), operations)
