"""The cost of an operation, which is estimated before the operation is executed.

An object costs 1, and so does each object of a list. A list multiplies the cost of its selection by
its size: the `first` of a page, the number of ids in the argument, or `DEFAULT_LIST_SIZE`. Plain
attributes are free, except long texts. Other costs are declared by the fields (`field_cost.py`).

A `first`, or another size, that cannot be read counts as the largest that the field allows. An
argument that is not a list counts as one item.

The cost is compiled once per operation: an integer, or a function of the variables.

Source: the GraphQL rate limits of GitHub and Shopify.
"""

from functools import lru_cache
from typing import Any, Final, TypeAlias

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
    VariableNode,
    get_named_type,
    is_composite_type,
    value_from_ast_untyped,
)
from segmentql.graphql.cost.cost_expressions import (
    CostExpression,
    EvaluationContext,
    Variables,
    add,
    memoized,
    multiply,
)
from segmentql.graphql.cost.field_cost import FieldCost, declared_cost
from segmentql.graphql.cost.input_costs import (
    argument_value,
    input_boolean_cost,
    input_list_size,
    list_length,
)
from segmentql.graphql.selections import FieldCounter, Fragments, SelectionWalker, fragments_of

MUTATION_COST: Final = 10
"""The cost of a mutation's root field, in addition to its payload."""

DEFAULT_LIST_SIZE: Final = 5
"""The assumed size of a list if nothing declares it."""

INTROSPECTION_LIST_SIZES: Final = {
    "types": 100,
    "fields": 6,
    "args": 2,
    "inputFields": 2,
    "enumValues": 2,
    "interfaces": 1,
    "possibleTypes": 1,
    "directives": 5,
}
"""The average sizes of the introspection lists of this schema, by field."""

MAX_COST: Final = 2**53
"""The maximum cost. Larger integers are not exact in the JSON of every client."""


class Cost:
    """The cost of one operation."""

    def __init__(self, expression: CostExpression, defaults: Variables) -> None:
        self._expression = expression
        self._defaults = defaults

    def of(self, variables: Variables) -> int:
        """Return the estimate for the variables, at most `MAX_COST`."""
        if isinstance(self._expression, int):
            return min(self._expression, MAX_COST)
        context = EvaluationContext({**self._defaults, **variables})
        return min(self._expression(context), MAX_COST)


def estimate(
    schema: GraphQLSchema, document: DocumentNode, operation: OperationDefinitionNode
) -> Cost:
    """Compile the cost of an operation of a validated document."""
    root = schema.get_root_type(operation.operation)
    if root is None:  # graphql-core reports the error
        return Cost(0, {})
    fragments = fragments_of(document)
    expression, _ = _Estimator(schema, fragments).walk(operation.selection_set, root)
    if operation.operation is OperationType.MUTATION:
        root_fields = FieldCounter(fragments).walk(operation.selection_set, None)
        expression = add(expression, MUTATION_COST * root_fields)
    defaults = {
        definition.variable.name.value: value_from_ast_untyped(definition.default_value)
        for definition in operation.variable_definitions or ()
        if definition.default_value
    }
    return Cost(expression, defaults)


_SelectionCost: TypeAlias = tuple[CostExpression, CostExpression]
"""The cost of a selection: a fixed part, and a part for each row of the page it selects from."""


class _Estimator(SelectionWalker[Any, _SelectionCost]):
    """A walk that compiles the cost of a selection. Its scope is the type that has the fields."""

    empty = (0, 0)

    def __init__(self, schema: GraphQLSchema, fragments: Fragments) -> None:
        super().__init__(fragments)
        self._schema = schema
        self._page_types = _page_types(schema)

    def field(self, node: FieldNode, scope: Any) -> _SelectionCost:
        field = self._definition(scope, node.name.value)
        if field is None:
            return self.empty
        if scope in self._page_types and _is_sized_by_page(field):
            return 0, self._object_cost(field, node)
        return self._field_cost(field, node), 0

    def combine(self, total: _SelectionCost, value: _SelectionCost) -> _SelectionCost:
        return add(total[0], value[0]), add(total[1], value[1])

    def enter(
        self,
        node: FragmentSpreadNode | InlineFragmentNode,
        fragment: FragmentDefinitionNode | InlineFragmentNode,
        scope: Any,
    ) -> Any:
        condition = fragment.type_condition
        return self._schema.get_type(condition.name.value) if condition else scope

    def reusable(self, value: _SelectionCost) -> _SelectionCost:
        return memoized(value[0]), memoized(value[1])

    def _field_cost(self, field: GraphQLField, node: FieldNode) -> CostExpression:
        """Return the cost of a field of one object."""
        declared = declared_cost(field)
        weight: CostExpression = declared.weight + sum(
            added
            for name, added in declared.if_given.items()
            if not isinstance(argument_value(node, name), NullValueNode | None)
        )
        for name in declared.input_lists:
            weight = add(weight, input_list_size(node, name))
        for name, added in declared.if_true.items():
            weight = add(weight, input_boolean_cost(node, name, added))
        if not is_composite_type(get_named_type(field.type)):
            return weight
        if declared.size_argument in field.args:
            rows = _page_size(field, node, declared)
            if _is_list(field.type):
                return add(weight, multiply(rows, self._object_cost(field, node)))
            fixed, per_row = self.walk(node.selection_set, get_named_type(field.type))
            return add(add(weight, 1), add(fixed, multiply(rows, per_row)))
        object_cost = self._object_cost(field, node)
        if not _is_list(field.type):
            return add(weight, object_cost)
        return add(weight, multiply(_list_size(field, node, declared), object_cost))

    def _object_cost(self, field: GraphQLField, node: FieldNode) -> CostExpression:
        """Return the cost of one object that a field returns."""
        fixed, per_row = self.walk(node.selection_set, get_named_type(field.type))
        return add(1, add(fixed, per_row))

    def _definition(self, parent: Any, name: str) -> GraphQLField | None:
        if name in {"__schema", "__type"}:
            return self._schema.get_field(parent, name)
        has_fields = isinstance(parent, GraphQLObjectType | GraphQLInterfaceType)
        return parent.fields.get(name) if has_fields else None


def _is_list(kind: Any) -> bool:
    if isinstance(kind, GraphQLNonNull):
        kind = kind.of_type
    return isinstance(kind, GraphQLList)


@lru_cache(maxsize=8)
def _page_types(schema: GraphQLSchema) -> frozenset[Any]:
    """Return the types of pages, whose lists have the size of the page."""
    return frozenset(
        get_named_type(field.type)
        for kind in schema.type_map.values()
        if isinstance(kind, GraphQLObjectType | GraphQLInterfaceType)
        for field in kind.fields.values()
        if "first" in field.args and not _is_list(field.type)
    )


def _is_sized_by_page(field: GraphQLField) -> bool:
    """Return whether a field of a page is a list of objects with the size of the page."""
    declared = declared_cost(field)
    return (
        _is_list(field.type)
        and is_composite_type(get_named_type(field.type))
        and declared.size is None
        and declared.size_of is None
        and declared.size_argument not in field.args
    )


def _page_size(field: GraphQLField, node: FieldNode, declared: FieldCost) -> CostExpression:
    maximum = declared.max_first
    default = _rows(field.args[declared.size_argument].default_value, maximum, maximum)
    value = argument_value(node, declared.size_argument)
    if isinstance(value, VariableNode):
        name = value.name.value
        return lambda context: _rows(context.variables.get(name), default, maximum)
    if isinstance(value, IntValueNode):
        return _rows(int(value.value), default, maximum)
    return default if value is None or isinstance(value, NullValueNode) else maximum


def _rows(value: object, default: int, maximum: int) -> int:
    """Return the size of a page, or of a list, for an argument as the client sent it.

    GraphQL's Int accepts whole floats. A value that is out of range or of another type is rejected
    later, with a better message than one about the cost.
    """
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int | float) or value != value // 1:
        return maximum
    return min(max(int(value), 0), maximum)


def _list_size(field: GraphQLField, node: FieldNode, declared: FieldCost) -> CostExpression:
    if declared.size_of:
        value = argument_value(node, declared.size_of)
        if isinstance(value, ListValueNode):
            return len(value.values)
        if isinstance(value, VariableNode):
            name = value.name.value
            return lambda context: list_length(context.variables.get(name))
        return 1
    if declared.size is not None:
        return declared.size
    is_introspection = "strawberry-definition" not in field.extensions
    return (
        INTROSPECTION_LIST_SIZES.get(node.name.value, 1) if is_introspection else DEFAULT_LIST_SIZE
    )
