"""Makes plans: every field of a document becomes a closure.

It knows whether the field is a plain attribute or a resolver, how its value is written, and what is
below it. Introspection, two changes in one operation, and fields asked for twice under different
conditions have no plan: graphql-core executes them. Nor have interfaces, but for an empty list.
"""

from collections.abc import Sequence
from typing import Final, TypeAlias

from strawberry.permission import PermissionExtension
from strawberry.types.field import StrawberryField

from graphql import (
    BooleanValueNode,
    DocumentNode,
    FieldNode,
    FragmentDefinitionNode,
    FragmentSpreadNode,
    GraphQLEnumType,
    GraphQLField,
    GraphQLInterfaceType,
    GraphQLList,
    GraphQLNonNull,
    GraphQLObjectType,
    GraphQLOutputType,
    GraphQLScalarType,
    GraphQLSchema,
    GraphQLString,
    InlineFragmentNode,
    OperationDefinitionNode,
    OperationType,
    SelectionNode,
    SelectionSetNode,
    VariableNode,
)
from graphql import get_named_type as named_type
from segmentql.graphql.execution.field_writers import (
    Conditions,
    attribute,
    constant,
    count_bytes,
    empty_list,
    from_source,
    if_conditions,
    is_text,
    leaf,
    list_of,
    nullable,
    object_of,
    resolved,
    text,
    text_attribute,
)
from segmentql.graphql.execution.input_coercion import DEFINITION, NotCompilable, arguments_of
from segmentql.graphql.execution.plans import (
    FieldWriter,
    MutationField,
    MutationPlan,
    Plan,
    QueryPlan,
    ValueSerializer,
)
from segmentql.graphql.execution.response_size import (
    FIELD_BYTES,
    LIST_BYTES,
    NULL_BYTES,
    OBJECT_BYTES,
    SCALAR_BYTES,
    TEXT_BYTES,
)
from segmentql.graphql.types.scalars import ID

MAX_FIELDS: Final = 1000
"""Of one plan: fragments in fragments can make a small document a huge query, and a plan is made of
all of it before anything is known to be there."""

CollectedFields: TypeAlias = dict[str, tuple[list[FieldNode], Conditions]]
"""The fields of an object by their names in the response."""


def compile_operation(
    schema: GraphQLSchema, document: DocumentNode, operation: OperationDefinitionNode
) -> Plan | None:
    """Compile a validated operation; None where graphql-core must execute it."""
    compiler = _Compiler(document)
    try:
        if operation.directives:
            raise NotCompilable
        asked = [operation.selection_set]
        if operation.operation is OperationType.QUERY and schema.query_type:
            return QueryPlan(schema, operation, compiler.query(schema.query_type, asked))
        if operation.operation is OperationType.MUTATION and schema.mutation_type:
            return MutationPlan(
                schema, operation, compiler.mutation_field(schema.mutation_type, asked)
            )
    except NotCompilable:
        pass
    return None


class _Compiler:
    def __init__(self, document: DocumentNode) -> None:
        self._fields_left = MAX_FIELDS
        self._fragments = {
            node.name.value: node
            for node in document.definitions
            if isinstance(node, FragmentDefinitionNode)
        }

    def query(
        self, parent: GraphQLObjectType, sets: Sequence[SelectionSetNode]
    ) -> Sequence[FieldWriter]:
        """What fills the response's data."""
        field_writers, size = self.fields(parent, sets)
        return [count_bytes(field_writers[0], size), *field_writers[1:]] if field_writers else []

    def fields(
        self, parent: GraphQLObjectType, sets: Sequence[SelectionSetNode]
    ) -> tuple[Sequence[FieldWriter], int]:
        """What fills the dict of an object of type `parent`, in the response's order.

        Also the bytes of the object as far as they do not depend on its values, which the caller
        counts.
        """
        grouped = self._collect_fields(parent, sets)
        self._fields_left -= len(grouped)
        if self._fields_left < 0:
            raise NotCompilable
        field_writers = []
        total = OBJECT_BYTES
        for key, (nodes, conditions) in grouped.items():
            fill, size = self._compile_field(parent, key, nodes)
            size += FIELD_BYTES + len(key)
            if conditions:
                fill = if_conditions(conditions, count_bytes(fill, size))
            else:
                total += size
            field_writers.append(fill)
        return field_writers, total

    def mutation_field(
        self, parent: GraphQLObjectType, sets: Sequence[SelectionSetNode]
    ) -> MutationField:
        """The one field that is asked of a mutation."""
        grouped = self._collect_fields(parent, sets)
        if len(grouped) != 1:
            raise NotCompilable
        ((key, (nodes, conditions)),) = grouped.items()
        field, definition = _lookup_field(parent, nodes[0])
        resolver = definition.base_resolver
        if conditions or not resolver or not resolver.is_async or not resolver.info_parameter:
            raise NotCompilable
        if any(type(extension) is not PermissionExtension for extension in definition.extensions):
            raise NotCompilable
        return MutationField(
            permissions=[permission() for permission in definition.permission_classes],
            arguments=arguments_of(field, nodes[0]),
            resolve=resolver.wrapped_func,  # type: ignore[arg-type]
            fill=self._compile_payload(key, field, nodes),
        )

    def _compile_payload(
        self, key: str, field: GraphQLField, nodes: Sequence[FieldNode]
    ) -> FieldWriter:
        serialize, size = self._compile_serializer(field.type, _sub_selections(nodes))
        return count_bytes(from_source(key, serialize), FIELD_BYTES + len(key) + size)

    def _collect_fields(
        self, parent: GraphQLObjectType, sets: Sequence[SelectionSetNode]
    ) -> CollectedFields:
        grouped: CollectedFields = {}
        spread: dict[str, Conditions] = {}
        for selection_set in sets:
            self._collect(parent, selection_set, grouped, spread, frozenset())
        return grouped

    def _collect(
        self,
        parent: GraphQLObjectType,
        selection_set: SelectionSetNode,
        grouped: CollectedFields,
        spread: dict[str, Conditions],
        around: Conditions,
    ) -> None:
        for node in selection_set.selections:
            conditions = around | _conditions(node) if node.directives else around
            if isinstance(node, FieldNode):
                key = (node.alias or node.name).value
                nodes, before = grouped.setdefault(key, ([], conditions))
                if before != conditions:
                    raise NotCompilable
                nodes.append(node)
                continue
            if isinstance(node, FragmentSpreadNode):
                name = node.name.value
                if name in spread:
                    if spread[name] != conditions:
                        raise NotCompilable
                    continue  # its fields are here already
                spread[name] = conditions
                fragment: FragmentDefinitionNode | InlineFragmentNode = self._fragments[name]
                if fragment.directives:
                    raise NotCompilable
            elif isinstance(node, InlineFragmentNode):
                fragment = node
            else:
                raise NotCompilable
            condition = fragment.type_condition
            if condition and condition.name.value != parent.name:
                raise NotCompilable
            self._collect(parent, fragment.selection_set, grouped, spread, conditions)

    def _compile_field(
        self, parent: GraphQLObjectType, key: str, nodes: Sequence[FieldNode]
    ) -> tuple[FieldWriter, int]:
        node = nodes[0]
        name = node.name.value
        if name == "__typename":
            return constant(key, parent.name), TEXT_BYTES + len(parent.name)
        field, definition = _lookup_field(parent, node)
        sets = _sub_selections(nodes)
        serialize, size = self._compile_serializer(field.type, sets)
        if definition.base_resolver is None:
            of_kind = text_attribute if is_text(field.type) else attribute
            return of_kind(key, definition.python_name, serialize), size
        arguments = arguments_of(field, node)
        selected_fields = self._selected_fields(field.type, sets)
        return resolved(key, definition, arguments, serialize, selected_fields), size

    def _selected_fields(
        self, kind: GraphQLOutputType, sets: Sequence[SelectionSetNode]
    ) -> frozenset[str]:
        parent = named_type(kind)
        if not isinstance(parent, GraphQLObjectType):
            return frozenset()
        asked = self._collect_fields(parent, sets).values()
        return frozenset(nodes[0].name.value for nodes, _ in asked if not nodes[0].arguments)

    def _compile_serializer(
        self, kind: GraphQLOutputType, sets: Sequence[SelectionSetNode]
    ) -> tuple[ValueSerializer, int]:
        """How a value is written, and the bytes that any value has, which the caller counts."""
        if isinstance(kind, GraphQLNonNull):
            return self._compile_non_null_serializer(kind.of_type, sets)
        serialize, size = self._compile_non_null_serializer(kind, sets)
        return nullable(serialize, size - NULL_BYTES), min(size, NULL_BYTES)

    def _compile_non_null_serializer(
        self, kind: GraphQLOutputType, sets: Sequence[SelectionSetNode]
    ) -> tuple[ValueSerializer, int]:
        """How a value that must not be null is written; each of these refuses None."""
        if isinstance(kind, GraphQLList):
            if isinstance(named_type(kind), GraphQLInterfaceType):
                return empty_list, LIST_BYTES
            item, item_size = self._compile_serializer(kind.of_type, sets)
            return list_of(item, item_size + 1), LIST_BYTES
        if isinstance(kind, GraphQLObjectType) and kind.is_type_of is None:
            field_writers, size = self.fields(kind, sets)
            return object_of(field_writers), size
        if kind in {GraphQLString, ID}:
            return text(kind), TEXT_BYTES
        if isinstance(kind, GraphQLEnumType):
            return leaf(kind), TEXT_BYTES + min(map(len, kind.values))
        if isinstance(kind, GraphQLScalarType):
            return leaf(kind), SCALAR_BYTES.get(kind.name, 1)
        raise NotCompilable


def _lookup_field(
    parent: GraphQLObjectType, node: FieldNode
) -> tuple[GraphQLField, StrawberryField]:
    """A field as graphql-core has it and as Strawberry has."""
    field = parent.fields.get(node.name.value)
    definition = field.extensions.get(DEFINITION) if field else None
    if field is None or not isinstance(definition, StrawberryField):
        raise NotCompilable
    return field, definition


def _sub_selections(nodes: Sequence[FieldNode]) -> Sequence[SelectionSetNode]:
    """What is asked for below a field, wherever it is named."""
    return [node.selection_set for node in nodes if node.selection_set]


def _conditions(node: SelectionNode) -> Conditions:
    found: set[tuple[bool, str | bool]] = set()
    for directive in node.directives or ():
        wanted = {"include": True, "skip": False}.get(directive.name.value)
        arguments = directive.arguments or ()
        if wanted is None or len(arguments) != 1:
            raise NotCompilable
        given = arguments[0].value
        if isinstance(given, BooleanValueNode):
            found.add((wanted, given.value))
        elif isinstance(given, VariableNode):
            found.add((wanted, given.name.value))
        else:
            raise NotCompilable
    return frozenset(found)
