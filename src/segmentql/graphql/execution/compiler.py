"""The compiler of plans: it turns every field of an operation into a closure.

A closure knows whether the field is an attribute or a resolver, how its value is serialized, and
the closures of its sub-selections. graphql-core executes what has no plan: introspection, several
mutations in one operation, and fields that are selected twice under different conditions.

The value of an interface or union is an instance of one of its Strawberry types, or a record of a
node (`types/nodes.py`), so its class selects the closures. A list of an interface with many types,
such as that of errors, has a plan that works only if the list is empty.
"""

from collections.abc import Mapping, Sequence
from typing import Final

from strawberry.permission import PermissionExtension
from strawberry.types.base import StrawberryObjectDefinition

from graphql import (
    DocumentNode,
    FieldNode,
    GraphQLAbstractType,
    GraphQLEnumType,
    GraphQLField,
    GraphQLList,
    GraphQLNonNull,
    GraphQLObjectType,
    GraphQLOutputType,
    GraphQLScalarType,
    GraphQLSchema,
    GraphQLString,
    OperationDefinitionNode,
    OperationType,
    SelectionSetNode,
    get_named_type,
    is_abstract_type,
)
from segmentql.graphql.execution.field_collection import (
    CollectedFields,
    collect_fields,
    lookup_field,
    sub_selections,
)
from segmentql.graphql.execution.field_writers import (
    attribute,
    constant,
    count_bytes,
    empty_list,
    from_source,
    if_conditions,
    instance_of,
    is_text,
    leaf,
    list_of,
    nullable,
    object_of,
    resolved,
    text,
    text_attribute,
)
from segmentql.graphql.execution.idempotency_keys import compile_idempotent_call
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
from segmentql.graphql.selections import fragments_of
from segmentql.graphql.types.nodes import class_of_values
from segmentql.graphql.types.scalars import ID

MAX_FIELDS: Final = 1000
"""The maximum number of fields in a plan. Nested fragments can make a small document a huge query,
and a plan is compiled for all fields before it is known which objects exist."""


MAX_ITEM_TYPES: Final = 4
"""The maximum number of types of a list's interface or union that is compiled, once for each type.
"""


def compile_operation(
    schema: GraphQLSchema, document: DocumentNode, operation: OperationDefinitionNode
) -> Plan | None:
    """Compile an operation of a validated document.

    Returns:
        The plan, or None if graphql-core must execute the operation.
    """
    compiler = _Compiler(schema, document)
    try:
        if operation.directives:
            raise NotCompilable
        selection_sets = [operation.selection_set]
        if operation.operation is OperationType.QUERY and schema.query_type:
            writers = compiler.query(schema.query_type, selection_sets)
            return QueryPlan(schema, operation, writers)
        if operation.operation is OperationType.MUTATION and schema.mutation_type:
            field = compiler.mutation_field(schema.mutation_type, selection_sets)
            return MutationPlan(schema, operation, field)
        if operation.operation is OperationType.SUBSCRIPTION and schema.subscription_type:
            writer = compiler.event(schema.subscription_type, operation.selection_set)
            return QueryPlan(schema, operation, [writer])
    except NotCompilable:
        pass
    return None


class _Compiler:
    """A compiler of the operations of one document."""

    def __init__(self, schema: GraphQLSchema, document: DocumentNode) -> None:
        self._schema = schema
        self._fields_left = MAX_FIELDS
        self._fragments = fragments_of(document)

    def query(
        self, parent: GraphQLObjectType, selection_sets: Sequence[SelectionSetNode]
    ) -> Sequence[FieldWriter]:
        """Return the writers of the fields of a query."""
        writers, size = self._compile_fields(parent, selection_sets)
        return [count_bytes(writers[0], size), *writers[1:]] if writers else []

    def mutation_field(
        self, parent: GraphQLObjectType, selection_sets: Sequence[SelectionSetNode]
    ) -> MutationField:
        """Return the root field of a mutation, which must have only one."""
        collected = self._collect_fields(parent, selection_sets)
        if len(collected) != 1:
            raise NotCompilable
        ((key, (nodes, conditions)),) = collected.items()
        field, definition = lookup_field(parent, nodes[0])
        resolver = definition.base_resolver
        if conditions or not resolver or not resolver.is_async or not resolver.info_parameter:
            raise NotCompilable
        if any(type(extension) is not PermissionExtension for extension in definition.extensions):
            raise NotCompilable
        return MutationField(
            permissions=[permission() for permission in definition.permission_classes],
            arguments=arguments_of(field, nodes[0]),
            resolve=resolver.wrapped_func,  # type: ignore[arg-type]
            write_payload=self._compile_payload(key, field, nodes),
            find_idempotent_call=compile_idempotent_call(key, field, nodes[0]),
        )

    def event(self, parent: GraphQLObjectType, selections: SelectionSetNode) -> FieldWriter:
        """Return the writer of the root field of a subscription, whose value is the event."""
        ((key, (nodes, conditions)),) = self._collect_fields(parent, [selections]).items()
        if conditions:
            raise NotCompilable
        field, _ = lookup_field(parent, nodes[0])
        return self._compile_payload(key, field, nodes)

    def _compile_payload(
        self, key: str, field: GraphQLField, nodes: Sequence[FieldNode]
    ) -> FieldWriter:
        serialize, size = self._compile_serializer(field.type, sub_selections(nodes))
        return count_bytes(from_source(key, serialize), FIELD_BYTES + len(key) + size)

    def _collect_fields(
        self, parent: GraphQLObjectType, selection_sets: Sequence[SelectionSetNode]
    ) -> CollectedFields:
        return collect_fields(self._schema, self._fragments, parent, selection_sets)

    def _compile_fields(
        self, parent: GraphQLObjectType, selection_sets: Sequence[SelectionSetNode]
    ) -> tuple[Sequence[FieldWriter], int]:
        """Compile the fields of an object.

        Returns:
            The writers of the fields, in the order of the response, and the bytes of the object
            that do not depend on its values. The caller must count these bytes.
        """
        collected = self._collect_fields(parent, selection_sets)
        self._fields_left -= len(collected)
        if self._fields_left < 0:
            raise NotCompilable
        writers = []
        total = OBJECT_BYTES
        for key, (nodes, conditions) in collected.items():
            write, size = self._compile_field(parent, key, nodes)
            size += FIELD_BYTES + len(key)
            if conditions:
                write = if_conditions(conditions, count_bytes(write, size))
            else:
                total += size
            writers.append(write)
        return writers, total

    def _compile_field(
        self, parent: GraphQLObjectType, key: str, nodes: Sequence[FieldNode]
    ) -> tuple[FieldWriter, int]:
        node = nodes[0]
        if node.name.value == "__typename":
            return constant(key, parent.name), TEXT_BYTES + len(parent.name)
        field, definition = lookup_field(parent, node)
        selection_sets = sub_selections(nodes)
        serialize, size = self._compile_serializer(field.type, selection_sets)
        if definition.base_resolver is None:
            make_writer = text_attribute if is_text(field.type) else attribute
            return make_writer(key, definition.python_name, serialize), size
        arguments = arguments_of(field, node)
        selected_fields = self._selected_fields(field.type, selection_sets)
        return resolved(key, definition, arguments, serialize, selected_fields), size

    def _selected_fields(
        self, return_type: GraphQLOutputType, selection_sets: Sequence[SelectionSetNode]
    ) -> frozenset[str]:
        """Return the names of the selected fields that have no arguments."""
        parent = get_named_type(return_type)
        if not isinstance(parent, GraphQLObjectType):
            return frozenset()
        collected = self._collect_fields(parent, selection_sets).values()
        return frozenset(nodes[0].name.value for nodes, _ in collected if not nodes[0].arguments)

    def _compile_serializer(
        self, return_type: GraphQLOutputType, selection_sets: Sequence[SelectionSetNode]
    ) -> tuple[ValueSerializer, int]:
        """Return the serializer of a type, and the bytes of its shortest value.

        The caller must count these bytes.
        """
        if isinstance(return_type, GraphQLNonNull):
            return self._compile_non_null_serializer(return_type.of_type, selection_sets)
        serialize, size = self._compile_non_null_serializer(return_type, selection_sets)
        return nullable(serialize, size - NULL_BYTES), min(size, NULL_BYTES)

    def _compile_non_null_serializer(
        self, return_type: GraphQLOutputType, selection_sets: Sequence[SelectionSetNode]
    ) -> tuple[ValueSerializer, int]:
        """Do what `_compile_serializer` does, with a serializer that rejects None."""
        if isinstance(return_type, GraphQLList):
            named = get_named_type(return_type)
            if is_abstract_type(named) and self._has_many_types(named):
                return empty_list, LIST_BYTES
            item, item_size = self._compile_serializer(return_type.of_type, selection_sets)
            return list_of(item, item_size + 1), LIST_BYTES
        if isinstance(return_type, GraphQLObjectType) and return_type.is_type_of is None:
            writers, size = self._compile_fields(return_type, selection_sets)
            return object_of(writers), size
        if is_abstract_type(return_type):
            return self._compile_abstract(self._classes_of(return_type), selection_sets)
        if return_type in {GraphQLString, ID}:
            return text(return_type), TEXT_BYTES
        if isinstance(return_type, GraphQLEnumType):
            return leaf(return_type), TEXT_BYTES + min(map(len, return_type.values))
        if isinstance(return_type, GraphQLScalarType):
            return leaf(return_type), SCALAR_BYTES.get(return_type.name, 1)
        raise NotCompilable

    def _has_many_types(self, abstract: GraphQLAbstractType) -> bool:
        return len(self._schema.get_possible_types(abstract)) > MAX_ITEM_TYPES

    def _classes_of(self, abstract: GraphQLAbstractType) -> dict[type, GraphQLObjectType]:
        """Return the types of an interface or union by the classes of their values."""
        types = self._schema.get_possible_types(abstract)
        definitions = [kind.extensions.get(DEFINITION) for kind in types]
        return {
            class_of_values(definition.origin): kind
            for kind, definition in zip(types, definitions, strict=True)
            if isinstance(definition, StrawberryObjectDefinition)
        }

    def _compile_abstract(
        self,
        classes: Mapping[type, GraphQLObjectType],
        selection_sets: Sequence[SelectionSetNode],
    ) -> tuple[ValueSerializer, int]:
        """Compile the fields for each type of an interface or union."""
        compiled = {
            value_class: self._compile_fields(kind, selection_sets)
            for value_class, kind in classes.items()
        }
        shortest = min(size for _, size in compiled.values())
        serializers = {
            value_class: (object_of(writers), size - shortest)
            for value_class, (writers, size) in compiled.items()
        }
        return instance_of(serializers), shortest
