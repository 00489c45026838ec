"""How much an operation may cost, estimated before it is executed.

An object costs 1, and so does each object of a list. A list multiplies the cost of its selection by
its size: the `first` of a page, the number of ids in the argument, or a guess if the size is
unknown. Plain attributes cost nothing, except long texts. A field that costs more than its object
declares that:

    member_count: int = strawberry.field(metadata=cost(SCAN), ...)
    description: str | None = strawberry.field(metadata=cost(characters=4096), ...)

A size that cannot be read from the request counts as the largest size that the field allows.

Compiled once an operation: a number where no variable matters, else a function of the variables.
After GitHub's and Shopify's rate limits of GraphQL.
"""

import dataclasses
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Final, TypeAlias

from strawberry.types.field import StrawberryField

from graphql import (
    DocumentNode,
    FieldNode,
    FragmentDefinitionNode,
    FragmentSpreadNode,
    GraphQLField,
    GraphQLInterfaceType,
    GraphQLList,
    GraphQLNonNull,
    GraphQLObjectType,
    GraphQLSchema,
    InlineFragmentNode,
    IntValueNode,
    ListValueNode,
    NullValueNode,
    OperationDefinitionNode,
    OperationType,
    SelectionSetNode,
    ValueNode,
    VariableNode,
    get_named_type,
    is_composite_type,
    value_from_ast_untyped,
)
from segmentql import validators
from segmentql.graphql.cost.cost_expressions import (
    CostExpression,
    EvaluationContext,
    Variables,
    add,
    memoized,
    times,
)

MUTATION_COST: Final = 10
"""What a field of a mutation costs beside its payload."""

DEFAULT_LIST_SIZE: Final = 5
"""Of a list whose size nothing says."""

SCAN: Final = 100
"""The weight of a field whose statement reads every row of a segment, for instance to count them.

An index-only scan of 100,000 rows takes about as long as reading 100 objects does."""

HISTORY_SCAN: Final = 3
"""The weight of a field whose statement may read all that one user or segment has of history, some
thousand rows, for a page of it."""

HISTORY_REPLAY: Final = 10
"""The weight of a field that reads all of a user's history up to a moment and sorts it."""

CHARACTERS_PER_COST: Final = 4096
"""A text that may have this many characters costs as much as an object."""

INTROSPECTION: Final = {
    "types": 100,
    "fields": 6,
    "args": 2,
    "inputFields": 2,
    "enumValues": 2,
    "interfaces": 1,
    "possibleTypes": 1,
    "directives": 5,
}
"""Sizes of lists of the schema, by field, as ours has them on average."""

MAX_COST: Final = 2**53
"""No cost is told as more: JSON's numbers are not exact beyond."""

_KEY: Final = "segmentql.cost"


@dataclasses.dataclass(frozen=True)
class FieldCost:
    """What a field costs beyond what its type says."""

    weight: int = 0
    """Added for each object that has the field."""
    size: int | None = None
    """Of the list; None: `first`, or a guess."""
    size_of: str | None = None
    """The argument, a list, that is as long as the answer."""
    max_first: int = validators.MAX_PAGE_ROWS
    """The largest `first` that the field accepts."""
    if_given: Mapping[str, int] = dataclasses.field(default_factory=dict)
    """What is added where an argument is given, by the argument's name."""


def cost(
    weight: int = 0,
    *,
    size: int | None = None,
    size_of: str | None = None,
    max_first: int = validators.MAX_PAGE_ROWS,
    characters: int = 0,
    if_given: Mapping[str, int] | None = None,
) -> dict[str, Any]:
    """Return a field's `metadata`, which declares its cost.

    Args:
        weight: added for each object that has the field.
        size: of the field's list, if it is known.
        size_of: the name of the list argument that has as many items as the field's list.
        max_first: the largest `first` that the field accepts.
        characters: the most that the field's text, or all texts of its list, may have.
        if_given: what an argument adds to `weight` if it is given, by the argument's name.
    """
    total = weight + characters // CHARACTERS_PER_COST
    return {_KEY: FieldCost(total, size, size_of, max_first, if_given or {})}


class Cost:
    """What one operation costs."""

    def __init__(self, amount: CostExpression, defaults: Variables) -> None:
        self._amount = amount
        self._defaults = defaults

    def of(self, variables: Variables) -> int:
        """The estimate for these variables, `MAX_COST` at most."""
        if isinstance(self._amount, int):
            return min(self._amount, MAX_COST)
        return min(self._amount(EvaluationContext({**self._defaults, **variables})), MAX_COST)


def estimate(
    schema: GraphQLSchema, document: DocumentNode, operation: OperationDefinitionNode
) -> Cost:
    """Compile the cost of a validated operation."""
    root = schema.get_root_type(operation.operation)
    if root is None:  # graphql-core says so
        return Cost(0, {})
    estimator = _Estimator(schema, document)
    own, _ = estimator.selected(root, operation.selection_set)
    if operation.operation is OperationType.MUTATION:
        own = add(own, MUTATION_COST * estimator.count_roots(operation.selection_set))
    defaults = {
        definition.variable.name.value: value_from_ast_untyped(definition.default_value)
        for definition in operation.variable_definitions or ()
        if definition.default_value
    }
    return Cost(own, defaults)


_Selected: TypeAlias = tuple[CostExpression, CostExpression]
"""What a selection costs, and what of it is to be paid for each row of the page it is of."""


class _Estimator:
    def __init__(self, schema: GraphQLSchema, document: DocumentNode) -> None:
        self._schema = schema
        self._page_types = _page_types(schema)
        self._fragments = {
            node.name.value: node
            for node in document.definitions
            if isinstance(node, FragmentDefinitionNode)
        }
        self._known: dict[str, _Selected] = {}

    def selected(self, parent: Any, selection_set: SelectionSetNode | None) -> _Selected:
        own: CostExpression = 0
        a_row: CostExpression = 0
        is_page = parent in self._page_types
        for node in selection_set.selections if selection_set else ():
            if isinstance(node, FieldNode):
                field = self._definition(parent, node.name.value)
                if field is None:
                    continue
                if is_page and _has_unknown_size(field):  # the page multiplies it
                    a_row = add(a_row, self._object(field, node))
                else:
                    own = add(own, self._field(field, node))
                continue
            of_own, of_row = self._fragment(parent, node)
            own, a_row = add(own, of_own), add(a_row, of_row)
        return own, a_row

    def count_roots(self, selection_set: SelectionSetNode) -> int:
        """The fields of a mutation, through fragments; limits keep them few."""
        count = 0
        for node in selection_set.selections:
            if isinstance(node, FieldNode):
                count += 1
            elif isinstance(node, InlineFragmentNode):
                count += self.count_roots(node.selection_set)
            elif isinstance(node, FragmentSpreadNode):
                count += self.count_roots(self._fragments[node.name.value].selection_set)
        return count

    def _fragment(self, parent: Any, node: Any) -> _Selected:
        if isinstance(node, InlineFragmentNode):
            condition = node.type_condition
            kind = self._schema.get_type(condition.name.value) if condition else parent
            return self.selected(kind, node.selection_set)
        name = node.name.value
        if name not in self._known:
            fragment = self._fragments[name]
            kind = self._schema.get_type(fragment.type_condition.name.value)
            own, a_row = self.selected(kind, fragment.selection_set)
            self._known[name] = memoized(own), memoized(a_row)
        return self._known[name]

    def _field(self, field: GraphQLField, node: FieldNode) -> CostExpression:
        """What a field costs, for one object that has it."""
        declared = _declared(field)
        weight = declared.weight + sum(
            added
            for name, added in declared.if_given.items()
            if not isinstance(_argument(node, name), NullValueNode | None)
        )
        if not is_composite_type(get_named_type(field.type)):
            return weight
        if "first" in field.args:
            rows = _page_size(field, node, declared)
            if _is_list(field.type):
                return add(weight, times(rows, self._object(field, node)))
            own, a_row = self.selected(get_named_type(field.type), node.selection_set)
            return add(weight + 1, add(own, times(rows, a_row)))
        each = self._object(field, node)
        if not _is_list(field.type):
            return add(weight, each)
        return add(weight, times(_list_size(field, node, declared), each))

    def _object(self, field: GraphQLField, node: FieldNode) -> CostExpression:
        """What one object costs that a field returns."""
        own, a_row = self.selected(get_named_type(field.type), node.selection_set)
        return add(1, add(own, a_row))

    def _definition(self, parent: Any, name: str) -> GraphQLField | None:
        if name in {"__schema", "__type"}:
            return self._schema.get_field(parent, name)
        has_fields = isinstance(parent, GraphQLObjectType | GraphQLInterfaceType)
        return parent.fields.get(name) if has_fields else None


def _declared(field: GraphQLField) -> FieldCost:
    definition = field.extensions.get("strawberry-definition")
    metadata = definition.metadata if isinstance(definition, StrawberryField) else {}
    found: FieldCost = (metadata or {}).get(_KEY, FieldCost())
    return found


def _is_list(kind: Any) -> bool:
    if isinstance(kind, GraphQLNonNull):
        kind = kind.of_type
    return isinstance(kind, GraphQLList)


@lru_cache(maxsize=8)
def _page_types(schema: GraphQLSchema) -> frozenset[Any]:
    """The types of pages: `first` of the field that returns one sizes the lists of the page."""
    return frozenset(
        get_named_type(field.type)
        for kind in schema.type_map.values()
        if isinstance(kind, GraphQLObjectType | GraphQLInterfaceType)
        for field in kind.fields.values()
        if "first" in field.args and not _is_list(field.type)
    )


def _has_unknown_size(field: GraphQLField) -> bool:
    """Whether a field of a page is a list of objects whose size only the page knows."""
    declared = _declared(field)
    return (
        _is_list(field.type)
        and is_composite_type(get_named_type(field.type))
        and declared.size is None
        and declared.size_of is None
        and "first" not in field.args
    )


def _page_size(field: GraphQLField, node: FieldNode, declared: FieldCost) -> CostExpression:
    most = declared.max_first
    default = _rows(field.args["first"].default_value, most, most)
    given = _argument(node, "first")
    if isinstance(given, VariableNode):
        name = given.name.value
        return lambda context: _rows(context.variables.get(name), default, most)
    if isinstance(given, IntValueNode):
        return _rows(int(given.value), default, most)
    return default if given is None or isinstance(given, NullValueNode) else most


def _rows(given: object, default: int, most: int) -> int:
    """The size of a page, for a `first` as the client sent it.

    GraphQL's Int accepts whole floats. A value out of range, or of another type, is rejected later
    with a better message than one about the cost.
    """
    if given is None:
        return default
    if isinstance(given, bool) or not isinstance(given, int | float) or given != given // 1:
        return most
    return min(max(int(given), 0), most)


def _list_size(field: GraphQLField, node: FieldNode, declared: FieldCost) -> CostExpression:
    if declared.size_of:
        given = _argument(node, declared.size_of)
        if isinstance(given, ListValueNode):
            return len(given.values)
        if isinstance(given, VariableNode):
            name = given.name.value
            return lambda context: _length(context.variables.get(name))
        return 1
    if declared.size is not None:
        return declared.size
    is_ours = "strawberry-definition" in field.extensions
    return DEFAULT_LIST_SIZE if is_ours else INTROSPECTION.get(node.name.value, 1)


def _length(given: object) -> int:
    return len(given) if isinstance(given, list) else 1


def _argument(node: FieldNode, name: str) -> ValueNode | None:
    return next((a.value for a in node.arguments or () if a.name.value == name), None)
