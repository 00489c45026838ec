"""The walk over selection sets that limits, cost and compiler share visits each fragment once."""

import time
from collections import Counter
from contextlib import nullcontext
from dataclasses import replace

import pytest

from graphql import (
    DocumentNode,
    FieldNode,
    GraphQLError,
    OperationDefinitionNode,
    SelectionSetNode,
    parse,
    validate,
)
from segmentql.graphql.cost.document_limits import DocumentAnalyzer
from segmentql.graphql.cost.query_cost import estimate
from segmentql.graphql.execution.compiler import compile_operation
from segmentql.graphql.selections import FieldCounter, fragments_of
from tests.graphql.executor_helpers import CORE, LIMITS

FRAGMENTS = 50


def doubling(spread: str, *, last: str) -> DocumentNode:
    """Return a document that includes its last fragment 2^50 times.

    Args:
        spread: The two spreads of the next fragment; `#` stands for its number.
        last: The fields of the last fragment.
    """
    variables = " ".join(f"$a{n}: Boolean! $b{n}: Boolean!" for n in range(1, FRAGMENTS + 1))
    bodies = [spread.replace("#", str(n)) for n in range(1, FRAGMENTS + 1)]
    fragments = [f"fragment F{n} on Query {{ {body} }}" for n, body in enumerate([*bodies, last])]
    return parse(f"query ({variables}) {{ {bodies[0]} }} {' '.join(fragments[1:])}")


def operation_of(document: DocumentNode) -> OperationDefinitionNode:
    (operation,) = [n for n in document.definitions if isinstance(n, OperationDefinitionNode)]
    return operation


class VisitCounter(FieldCounter):
    """A walk that counts the visits of each field."""

    def __init__(self, document: DocumentNode) -> None:
        super().__init__(fragments_of(document))
        self.visits: Counter[str] = Counter()

    def field(self, node: FieldNode, scope: None) -> int:
        self.visits[node.name.value] += 1
        return super().field(node, scope)


def count(query: str) -> tuple[int, dict[str, int]]:
    document = parse(query)
    counter = VisitCounter(document)
    return counter.walk(operation_of(document).selection_set, None), dict(counter.visits)


def test_fields_are_counted_through_fragments_and_each_fragment_is_visited_once() -> None:
    query = "{ a ...F ... { b ... on Query { c } } ...F } fragment F on Query { d e }"
    assert count(query) == (7, dict.fromkeys("abcde", 1))


@pytest.mark.parametrize(
    ("query", "fields"),
    [
        ("{ a ...F } fragment F on Query { b ...F }", 2),
        ("{ a ...F } fragment F on Query { b ...G } fragment G on Query { c ...F }", 3),
        ("{ a ...Missing }", 1),
        ("{ }", 0),
    ],
)
def test_invalid_fragments_count_as_empty(query: str, fields: int) -> None:
    assert count(query)[0] == fields


def test_a_missing_selection_set_has_no_fields() -> None:
    nothing: SelectionSetNode | None = None
    assert FieldCounter({}).walk(nothing, None) == 0


@pytest.mark.parametrize("last", ["", "__typename"])
def test_doubling_fragments_are_analyzed_in_linear_time(last: str) -> None:
    document = doubling("...F# ...F#", last=last)
    operation = operation_of(document)
    started = time.perf_counter()
    estimate(CORE, document, operation)
    assert compile_operation(CORE, document, operation) is not None
    limits = replace(LIMITS, root_fields=2**FRAGMENTS - 1)
    with pytest.raises(GraphQLError, match="root fields") if last else nullcontext():
        DocumentAnalyzer(limits).check(document)
    assert time.perf_counter() - started < 1


@pytest.mark.parametrize("last", ["", "__typename"])
def test_doubling_fragments_under_conditions_have_no_plan(last: str) -> None:
    document = doubling("...F# @include(if: $a#) ...F# @include(if: $b#)", last=last)
    started = time.perf_counter()
    assert compile_operation(CORE, document, operation_of(document)) is None
    assert time.perf_counter() - started < 1


def test_doubling_fragments_of_a_mutation_are_counted_in_linear_time() -> None:
    fragments = [f"fragment F{n} on Mutation {{ ...F{n + 1} ...F{n + 1} }}" for n in range(1, 50)]
    document = parse(" ".join(["mutation { ...F1 }", *fragments, "fragment F50 on Mutation { }"]))
    assert validate(CORE, document) == []
    started = time.perf_counter()
    assert estimate(CORE, document, operation_of(document)).of({}) == 0
    assert time.perf_counter() - started < 1
