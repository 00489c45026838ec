"""The fields that an operation selects on an object, with their `@include` and `@skip` conditions.

Source: the algorithm CollectFields of the GraphQL specification.
"""

from collections.abc import Sequence
from typing import Final, TypeAlias

from strawberry.types.field import StrawberryField

from graphql import (
    BooleanValueNode,
    FieldNode,
    FragmentDefinitionNode,
    FragmentSpreadNode,
    GraphQLField,
    GraphQLObjectType,
    GraphQLSchema,
    InlineFragmentNode,
    SelectionNode,
    SelectionSetNode,
    VariableNode,
    is_abstract_type,
)
from segmentql.graphql.execution.field_writers import Conditions
from segmentql.graphql.execution.input_coercion import DEFINITION, NotCompilable
from segmentql.graphql.selections import Fragments, SelectionWalker
from segmentql.graphql.types.idempotency import DIRECTIVE_NAME

CollectedFields: TypeAlias = dict[str, tuple[list[FieldNode], Conditions]]
"""The fields of an object by their names in the response, with their conditions."""


_NEVER: Final = (True, "")
"""The condition within a fragment for another type of the interface or union.

No variable has this name."""


def collect_fields(
    schema: GraphQLSchema,
    fragments: Fragments,
    parent: GraphQLObjectType,
    selection_sets: Sequence[SelectionSetNode],
) -> CollectedFields:
    """Return the fields that selection sets select on an object of type `parent`.

    Raises:
        NotCompilable: A field is selected twice under different conditions.
    """
    collector = _FieldCollector(schema, fragments, parent)
    for selection_set in selection_sets:
        collector.walk(selection_set, frozenset())
    return collector.fields


def sub_selections(nodes: Sequence[FieldNode]) -> Sequence[SelectionSetNode]:
    """Return the selection sets of all nodes of one field."""
    return [node.selection_set for node in nodes if node.selection_set]


def lookup_field(
    parent: GraphQLObjectType, node: FieldNode
) -> tuple[GraphQLField, StrawberryField]:
    """Return the definition of a field in graphql-core and in Strawberry."""
    field = parent.fields.get(node.name.value)
    definition = field.extensions.get(DEFINITION) if field else None
    if field is None or not isinstance(definition, StrawberryField):
        raise NotCompilable
    return field, definition


class _FieldCollector(SelectionWalker[Conditions, None]):
    """A walk that collects the fields of an object. Its scope is the conditions around them."""

    empty = None

    def __init__(
        self, schema: GraphQLSchema, fragments: Fragments, parent: GraphQLObjectType
    ) -> None:
        super().__init__(fragments)
        self._schema = schema
        self._parent = parent
        self._fragment_conditions: dict[str, Conditions] = {}
        self.fields: CollectedFields = {}

    def field(self, node: FieldNode, scope: Conditions) -> None:
        if _NEVER in scope:
            return
        conditions = _with_conditions_of(node, scope)
        key = (node.alias or node.name).value
        nodes, conditions_before = self.fields.setdefault(key, ([], conditions))
        if conditions_before != conditions:
            raise NotCompilable
        nodes.append(node)

    def combine(self, total: None, value: None) -> None:
        return None

    def enter(
        self,
        node: FragmentSpreadNode | InlineFragmentNode,
        fragment: FragmentDefinitionNode | InlineFragmentNode,
        scope: Conditions,
    ) -> Conditions:
        conditions = _with_conditions_of(node, scope)
        if isinstance(fragment, FragmentDefinitionNode):
            name = fragment.name.value
            if self._fragment_conditions.setdefault(name, conditions) != conditions:
                raise NotCompilable
            if fragment.directives:
                raise NotCompilable
        if fragment.type_condition and not self._applies(fragment.type_condition.name.value):
            return conditions | {_NEVER}
        return conditions

    def _applies(self, type_name: str) -> bool:
        """Return whether a fragment for a type applies to the object."""
        if type_name == self._parent.name:
            return True
        condition = self._schema.get_type(type_name)
        return is_abstract_type(condition) and self._schema.is_sub_type(condition, self._parent)


def _with_conditions_of(node: SelectionNode, scope: Conditions) -> Conditions:
    return scope | _conditions(node) if node.directives else scope


def _conditions(node: SelectionNode) -> Conditions:
    """Return the conditions of a node's `@include` and `@skip` directives."""
    conditions: set[tuple[bool, str | bool]] = set()
    for directive in node.directives or ():
        if directive.name.value == DIRECTIVE_NAME:  # it does not affect whether a field is selected
            continue
        required = {"include": True, "skip": False}.get(directive.name.value)
        arguments = directive.arguments or ()
        if required is None or len(arguments) != 1:
            raise NotCompilable
        value = arguments[0].value
        if isinstance(value, BooleanValueNode):
            conditions.add((required, value.value))
        elif isinstance(value, VariableNode):
            conditions.add((required, value.name.value))
        else:
            raise NotCompilable
    return frozenset(conditions)
