"""The fields that an operation selects on an object, with their `@include` and `@skip` conditions.

Source: the algorithm CollectFields of the GraphQL specification.
"""

from collections.abc import Sequence
from typing import TypeAlias

from graphql import (
    BooleanValueNode,
    FieldNode,
    FragmentDefinitionNode,
    FragmentSpreadNode,
    GraphQLObjectType,
    InlineFragmentNode,
    SelectionNode,
    SelectionSetNode,
    VariableNode,
)
from segmentql.graphql.execution.field_writers import Conditions
from segmentql.graphql.execution.input_coercion import NotCompilable
from segmentql.graphql.selections import Fragments, SelectionWalker

CollectedFields: TypeAlias = dict[str, tuple[list[FieldNode], Conditions]]
"""The fields of an object by their names in the response, with their conditions."""


def collect_fields(
    fragments: Fragments,
    parent: GraphQLObjectType,
    selection_sets: Sequence[SelectionSetNode],
) -> CollectedFields:
    """Return the fields that selection sets select on an object of type `parent`.

    Raises:
        NotCompilable: A field is selected twice under different conditions, or a fragment is for
            another type.
    """
    collector = _FieldCollector(fragments, parent)
    for selection_set in selection_sets:
        collector.walk(selection_set, frozenset())
    return collector.fields


class _FieldCollector(SelectionWalker[Conditions, None]):
    """A walk that collects the fields of an object. Its scope is the conditions around them."""

    empty = None

    def __init__(self, fragments: Fragments, parent: GraphQLObjectType) -> None:
        super().__init__(fragments)
        self._parent = parent
        self._fragment_conditions: dict[str, Conditions] = {}
        self.fields: CollectedFields = {}

    def field(self, node: FieldNode, scope: Conditions) -> None:
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
        type_condition = fragment.type_condition
        if type_condition and type_condition.name.value != self._parent.name:
            raise NotCompilable
        return conditions


def _with_conditions_of(node: SelectionNode, scope: Conditions) -> Conditions:
    return scope | _conditions(node) if node.directives else scope


def _conditions(node: SelectionNode) -> Conditions:
    """Return the conditions of a node's `@include` and `@skip` directives."""
    conditions: set[tuple[bool, str | bool]] = set()
    for directive in node.directives or ():
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
